//! Who may, and what others are told.

use serde_json::json;

use super::*;

/// A body that a route takes.
fn body(method: &str, path: &str, token: &str) -> Option<Value> {
    match (method, path) {
        ("POST", "/v1/tokens") => Some(json!({
            "project": "b", "read": ["**"], "ttl_seconds": 60, "subject": "x",
        })),
        ("POST", "/v1/tokens/revoke" | "/v1/tokens/explain") => Some(json!({ "token": token })),
        ("POST" | "PUT", _) => Some(json!({})),
        _ => None,
    }
}

#[tokio::test]
async fn every_route_wants_an_admin_token() {
    let lab = Lab::new().await;
    let id = lab.export("b", "main").await.to_string();
    let (build, routes) = (lab.build("b"), documented("b", &id));
    assert!(routes.len() >= 21, "{routes:?}");
    for (method, path) in routes {
        let body = body(&method, &path, &build);
        for (token, status, code) in [
            (None, 401, "unauthenticated"),
            (Some("nonsense"), 401, "unauthenticated"),
            (Some(build.as_str()), 403, "forbidden"),
        ] {
            let told = lab.ask(&method, &path, token, body.clone()).await;
            assert_eq!(
                (told.status.as_u16(), told.code()),
                (status, code),
                "{method} {path}"
            );
            assert!(
                told.json["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("token")
            );
        }
    }
}

#[tokio::test]
async fn of_another_project_an_administrator_is_told_what_an_empty_hub_would_tell() {
    let (full, empty) = (Lab::new().await, Lab::new().await);
    let id = full.export("b", "main").await.to_string();
    let settings = ProjectSettingsOfB::some();
    full.catalog
        .settle(&"b".parse().unwrap(), &settings, &origin())
        .await
        .unwrap();
    for (method, path) in documented("b", &id) {
        let mut answers = Vec::new();
        for lab in [&full, &empty] {
            let (own, theirs) = (lab.admin(Some("a")), lab.build("b"));
            let body = body(&method, &path, &theirs);
            for query in ["", "?project=b", "?after=0"] {
                let told = lab
                    .ask(&method, &format!("{path}{query}"), Some(&own), body.clone())
                    .await;
                let mut json = told.json.to_string();
                for name in ["id", "expires"] {
                    // Of the own token, which differs.
                    if path == "/v1/whoami" {
                        json = json.replace(told.json[name].as_str().unwrap_or("-"), name);
                    }
                }
                answers.push((
                    lab.catalog.count(&Default::default()).await.is_ok(),
                    told.status,
                    json,
                ));
            }
        }
        let of_empty = answers.split_off(answers.len() / 2);
        assert_eq!(answers, of_empty, "{method} {path}");
        if path.contains("/projects/") || path.contains("/exports/") {
            assert_eq!(answers[0].1, StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
    // And nothing has happened.
    assert_eq!(full.catalog.count(&Default::default()).await.unwrap(), 1);
    let settled = full.catalog.settings(&"b".parse().unwrap()).await.unwrap();
    assert_eq!(settled.unwrap().settings, settings);
}

struct ProjectSettingsOfB;

impl ProjectSettingsOfB {
    fn some() -> crate::catalog::ledger::ProjectSettings {
        crate::catalog::ledger::ProjectSettings {
            max_bytes: Some(7),
            ..Default::default()
        }
    }
}

fn origin() -> crate::catalog::ledger::Origin {
    crate::catalog::ledger::Origin::here(crate::catalog::ledger::Actor::Layerd)
}

#[tokio::test]
async fn an_admin_token_opens_no_cache() {
    let lab = Lab::new().await;
    for project in [None, Some("a")] {
        let token = lab.admin(project);
        let denied = builds(&lab.access, &token).await.unwrap_err();
        assert_eq!(denied, crate::access::Denied::Admin);
    }
}

/// What the door of builds asks.
async fn builds(access: &Access, token: &str) -> Result<(), crate::access::Denied> {
    access.grant(Some(token), Timestamp::now()).await.map(drop)
}

#[tokio::test]
async fn an_open_hub_is_administered_from_its_own_host_alone() {
    let lab = Lab::open().await;
    for (peer, status) in [("127.0.0.1:9", 200), ("[::1]:9", 200), ("192.0.2.1:9", 403)] {
        let peer: std::net::SocketAddr = peer.parse().unwrap();
        let request = Request::builder().uri("/v1/whoami").extension(peer);
        let told = lab.asked(request.body(Body::empty()).unwrap()).await;
        assert_eq!(told.status.as_u16(), status, "{peer}");
    }
}

/// A browser on the hub's own host, with a page whose name means that host.
#[tokio::test]
async fn an_open_hub_is_not_administered_by_a_page_from_elsewhere() {
    let lab = Lab::open().await;
    let peer: std::net::SocketAddr = "127.0.0.1:9".parse().unwrap();
    for (method, path) in documented("a", "1") {
        for (host, origin, status) in [
            (
                "evil.example.com:8700",
                None,
                StatusCode::MISDIRECTED_REQUEST,
            ),
            (
                "localhost:8700",
                Some("http://evil.example.com"),
                StatusCode::FORBIDDEN,
            ),
        ] {
            let mut request = Request::builder().method(method.as_str()).uri(&path);
            request = request.extension(peer).header(http::header::HOST, host);
            if let Some(origin) = origin {
                request = request.header(http::header::ORIGIN, origin);
            }
            let request = request.header(CONTENT_TYPE, "application/json");
            let told = lab.asked(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(told.status, status, "{method} {path} {host}");
        }
    }
    // A page of a form has no other kinds of bodies, and no header to add.
    for (method, path) in documented("a", "1") {
        if method != "POST" {
            continue;
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            let request = Request::builder().method("POST").uri(&path).extension(peer);
            let request = request.header(CONTENT_TYPE, kind).body(Body::from("{}"));
            let told = lab.asked(request.unwrap()).await;
            assert_eq!(
                told.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{path} {kind}"
            );
        }
    }
}

#[tokio::test]
async fn an_admin_token_is_made_for_no_more_than_the_one_it_is_made_with() {
    let lab = Lab::new().await;
    let own = lab.admin(Some("a"));
    let mint = async |body: Value| {
        lab.ask("POST", "/v1/tokens", Some(&own), Some(body))
            .await
            .status
    };
    let asked = |project: Option<&str>, admin: bool, ttl: u64| {
        let read = if admin { json!([]) } else { json!(["main"]) };
        json!({"project": project, "admin": admin, "ttl_seconds": ttl, "subject": "x", "read": read})
    };
    assert_eq!(
        mint(asked(Some("a"), false, 7200)).await,
        StatusCode::CREATED
    );
    assert_eq!(mint(asked(Some("a"), true, 60)).await, StatusCode::CREATED);
    assert_eq!(
        mint(asked(Some("a"), true, 7200)).await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(mint(asked(None, true, 60)).await, StatusCode::FORBIDDEN);
    assert_eq!(
        mint(asked(Some("b"), false, 60)).await,
        StatusCode::NOT_FOUND
    );
    let audit = lab.get("/v1/audit?action=mint", &own).await;
    assert_eq!(audit.json["items"].as_array().unwrap().len(), 2);
    assert_eq!(audit.json["items"][0]["actor"]["subject"], "ops");
}

#[tokio::test]
async fn an_export_of_others_is_asked_for_as_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let pair = KeyPair::generate(Algorithm::Ed25519).unwrap();
    std::fs::write(&path, pair.private).unwrap();
    let plain: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
    let access = access(Keys::open(&path).unwrap(), &plain);
    let journal = crate::blobs::Journal::default();
    let noting = crate::catalog::Metered::noting(plain, journal.clone());
    let lab = Lab::of(dir, Arc::new(noting), access).await;
    let foreign = lab.export("q", "main").await;
    let own = lab.export("p", "main").await;
    let token = lab.admin(Some("p"));
    let asked = |id: ExportId| {
        let documented = documented("q", &id.to_string()).into_iter();
        documented.filter(|(_, path)| path.starts_with("/v1/exports/"))
    };
    let gone = ExportId(own.0 + 1000);
    let ask = async |method: &str, path: &str| {
        journal.take();
        let told = lab.ask(method, path, Some(&token), None).await;
        (told.status, told.json, journal.take())
    };
    for ((method, theirs), (_, nobodys)) in asked(foreign).zip(asked(gone)) {
        let (status, json, questions) = ask(&method, &theirs).await;
        let (as_gone, said_of_gone, as_questions) = ask(&method, &nobodys).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {theirs}");
        assert_eq!(status, as_gone, "{method} {theirs}");
        let said = json.to_string().replace(&foreign.to_string(), "ID");
        let said_of_gone = said_of_gone.to_string().replace(&gone.to_string(), "ID");
        assert_eq!(said.len(), said_of_gone.len(), "{method} {theirs}");
        assert_eq!(questions, as_questions, "{method} {theirs}");
        assert!(!questions.is_empty());
    }
    let (status, _, _) = ask("GET", &format!("/v1/exports/{own}/layers")).await;
    assert_eq!(status, StatusCode::OK);
}
