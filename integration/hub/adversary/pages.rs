//! The same at the pages of a hub: every route of its OpenAPI document, tried
//! with every token that a stranger could have, at a hub that has much of others
//! and at one that has nothing of them.
//!
//! That the document has every route is a test beside the routers.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::super::access::{Gate, claims, signed, with};
use super::super::ask::{export, look_up, noise};
use super::super::place;
use super::{MAIN, of_q, of_secret, of_spy};
use crate::harness::oidc::Issuer;
use crate::harness::{Hub, HubClient};
use crate::identity;

/// What came back, but for what differs from one time to another.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// A body, and what it is.
type Sent = Option<(&'static str, String)>;

async fn ask(hub: &Hub, method: &Method, path: &str, token: Option<&str>, body: &Sent) -> Told {
    let stream = TcpStream::connect(hub.address()).await.unwrap();
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "hub");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some((kind, _)) = body {
        request = request.header(CONTENT_TYPE, *kind);
    }
    let body = body.as_ref().map(|(_, body)| Bytes::from(body.clone()));
    let request = request.body(Full::new(body.unwrap_or_default())).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = match serde_json::from_slice(&body) {
        Ok(json) => plain(json, path).to_string(),
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    Told {
        status: parts.status.as_u16(),
        headers: told_headers(&parts.headers),
        body,
    }
}

/// All but the date, and the length: times are of various lengths.
fn told_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let told = headers
        .iter()
        .filter(|(name, _)| !["date", "content-length"].contains(&name.as_str()));
    told.map(|(name, value)| (name.to_string(), format!("{value:?}")))
        .collect()
}

/// Without what is random or a time; and without the numbers of the audit log,
/// which are one row over all projects and which administrators are told.
fn plain(json: Value, path: &str) -> Value {
    match json {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let is_number = path.starts_with("/v1/audit") && ["id", "next"].contains(&&*name);
                let is_random = ["request", "peer", "id", "token", "access_token"];
                let value = match value {
                    Value::Number(_) if is_number => json!("a number"),
                    Value::String(_) if is_number => json!("a number"),
                    Value::String(_) if is_random.contains(&&*name) => json!("random"),
                    value => plain(value, path),
                };
                (name, value)
            });
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.into_iter().map(|item| plain(item, path)).collect(),
        Value::String(text) if text.parse::<Timestamp>().is_ok() => json!("a time"),
        other => other,
    }
}

/// What somebody would send there; none: nothing.
fn bodies(operation: &str, issuer: &Issuer, theirs: &str) -> Vec<Sent> {
    let json = |value: Value| Some(("application/json", value.to_string()));
    match operation {
        "exchange_token" => {
            let job = identity::claims(issuer, "push", MAIN, "");
            let job = with(job, "repository", "acme/spy");
            [theirs.to_owned(), issuer.sign("first", &job)]
                .map(|token| {
                    let form = url::form_urlencoded::Serializer::new(String::new())
                        .extend_pairs(identity::form(&token))
                        .finish();
                    Some(("application/x-www-form-urlencoded", form))
                })
                .to_vec()
        }
        "put_settings" => vec![json(json!({"max_bytes": 1}))],
        "flush" => vec![json(json!({})), json(json!({"ref": MAIN}))],
        "start_gc" => vec![json(json!({"dry_run": true})), json(json!({}))],
        "mint_token" => [json!("q"), json!(null)]
            .map(|project| {
                json(json!({
                    "project": project, "admin": project.is_null(), "read": [],
                    "ttl_seconds": 60, "subject": "x",
                }))
            })
            .to_vec(),
        "revoke_token" => vec![json(json!({"token": theirs})), json(json!({"id": "1"}))],
        "explain_token" => vec![json(json!({"token": theirs}))],
        _ => vec![None],
    }
}

/// Every route of the document: method, path with its names, and what it is
/// called.
async fn operations(hub: &Hub) -> Vec<(Method, String, String)> {
    let told = ask(hub, &Method::GET, "/v1/openapi.json", None, &None).await;
    let document: Value = serde_json::from_str(&told.body).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let name = operation["operationId"].as_str().unwrap();
            let takes_body = !operation["requestBody"].is_null();
            assert!(
                !takes_body || bodies_are_known(name),
                "{name} is new: what would somebody send there?"
            );
            operations.push((method, path.clone(), name.to_owned()));
        }
    }
    operations
}

fn bodies_are_known(operation: &str) -> bool {
    [
        "exchange_token",
        "put_settings",
        "flush",
        "start_gc",
        "mint_token",
        "revoke_token",
        "explain_token",
    ]
    .contains(&operation)
}

/// A path for each thing of others that it could name.
fn paths(path: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for project in ["q", "acme%2Fshop"] {
        for id in 2..=5 {
            let path = path.replace("{project}", project);
            paths.push(path.replace("{id}", &id.to_string()));
        }
    }
    paths.sort();
    paths.dedup();
    assert!(paths.iter().all(|path| !path.contains('{')), "{path}");
    paths
}

/// A hub at which a spy has exported first.
async fn hub_of_spy(issuer: &Issuer) -> Gate {
    let gate = Gate::told(&identity::tables(issuer, "15m")).await;
    let mut spy = gate.client(&of_spy()).await;
    export(&mut spy, &place("p", MAIN), &[noise(70, 50_000)], "own").await;
    gate
}

/// How many there are of others.
async fn exports(client: &mut HubClient) -> usize {
    let found = look_up(client, &place("q", MAIN), true).await;
    found.unwrap().map_or(0, |import| import.exports)
}

#[tokio::test]
async fn no_page_tells_what_an_empty_hub_would_not_tell() {
    let issuer = Issuer::start().await;
    let (full, empty) = (hub_of_spy(&issuer).await, hub_of_spy(&issuer).await);
    let mut q = full.client(&of_q()).await;
    for (git_ref, seed) in [(MAIN, 71), ("refs/heads/x", 72)] {
        export(&mut q, &place("q", git_ref), &[noise(seed, 1000)], "theirs").await;
    }
    let admin = |project: &str| {
        let token = with(claims(&[], &[]), "project", project);
        signed("first", &with(token, "admin", true))
    };
    let theirs = signed("first", &of_q());
    let tokens = [
        None,
        Some("nonsense".to_owned()),
        Some(signed("first", &of_spy())),
        Some(signed("first", &of_secret())),
        Some(admin("p")),
        Some(admin("nobody")),
    ];
    let operations = operations(&full.hub).await;
    assert!(operations.len() >= 22, "{operations:?}");
    for (method, path, name) in &operations {
        let bodies = bodies(name, &issuer, &theirs);
        for path in paths(path) {
            for query in ["", "?project=q", "?after=0", "?after=9", "?limit=1000"] {
                for (token, body) in tokens
                    .iter()
                    .flat_map(|token| bodies.iter().map(move |body| (token, body)))
                {
                    let path = format!("{path}{query}");
                    let mut told = Vec::new();
                    for gate in [&full, &empty] {
                        let answer = ask(&gate.hub, method, &path, token.as_deref(), body);
                        told.push(answer.await);
                    }
                    assert_eq!(told[0], told[1], "{method} {path}");
                    let is_exchange = name == "exchange_token";
                    if token.is_none() && !is_exchange {
                        assert_eq!(told[0].status, 401, "{method} {path}");
                    }
                }
            }
        }
    }
    // And nothing of it has changed: it is there, and its tokens count.
    assert_eq!(exports(&mut q).await, 1);
}
