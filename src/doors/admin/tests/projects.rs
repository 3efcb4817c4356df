//! Projects, their exports, and what is done to them.

use serde_json::json;

use super::*;
use crate::catalog::Layer;
use crate::digest::Digest;

#[tokio::test]
async fn a_project_is_flushed_and_that_is_in_the_audit_log() {
    let lab = Lab::new().await;
    let token = lab.admin(Some("acme/shop"));
    lab.export("acme/shop", "main").await;
    lab.export("acme/shop", "dev").await;
    lab.export("other", "main").await;
    let path = "/v1/projects/acme%2Fshop/flush";
    let told = lab
        .ask("POST", path, Some(&token), Some(json!({"ref": "dev"})))
        .await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.json);
    assert_eq!(told.json["exports"], 1);
    let refs = lab.get("/v1/projects/acme%2Fshop/refs", &token).await;
    assert_eq!(refs.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(refs.json["items"][0]["ref"], "refs/heads/main");
    let audit = lab.get("/v1/audit", &token).await;
    assert_eq!(audit.json["items"][0]["action"], "flush");
    assert_eq!(audit.json["items"][0]["actor"]["subject"], "ops");
    assert_eq!(audit.json["items"][0]["ref"], "refs/heads/dev");
    let all = lab.get("/v1/projects", &lab.admin(None)).await;
    assert_eq!(all.json["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_project_that_never_was_is_not_flushed_and_one_that_has_nothing_left_is() {
    let lab = Lab::new().await;
    let all = lab.admin(None);
    lab.export("acme/shop", "main").await;
    let flush = async |project: &str, token: &str, body: Value| {
        let path = format!("/v1/projects/{project}/flush");
        lab.ask("POST", &path, Some(token), Some(body)).await
    };
    let typo = flush("acme%2Fshpo", &all, json!({})).await;
    assert_eq!(typo.status, StatusCode::NOT_FOUND);
    assert_eq!(
        typo.json["error"]["message"],
        "there is no project acme/shpo"
    );
    assert!(
        lab.get("/v1/audit", &all).await.json["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let nothing = flush("acme%2Fshop", &all, json!({"ref": "none"})).await;
    assert_eq!(nothing.status, StatusCode::OK);
    for exports in [1, 0] {
        let told = flush("acme%2Fshop", &all, json!({})).await;
        assert_eq!(told.json["exports"], exports, "{}", told.json);
    }
    // Who administers one project does not learn whether anything was there.
    let own = lab.admin(Some("new"));
    let told = flush("new", &own, json!({})).await;
    assert_eq!(
        (told.status, &told.json["exports"]),
        (StatusCode::OK, &json!(0))
    );
}

#[tokio::test]
async fn nothing_is_settled_for_a_name_that_nothing_new_is_written_to() {
    let lab = Lab::new().await;
    let all = lab.admin(None);
    let path = "/v1/projects/m%D0%B0in/settings";
    let put = async || {
        let body = json!({"max_bytes": 1});
        lab.ask("PUT", path, Some(&all), Some(body)).await
    };
    let refused = put().await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let message = refused.json["error"]["message"].as_str().unwrap();
    assert!(message.contains("U+0430"), "{message}");
    assert_eq!(lab.get(path, &all).await.status, StatusCode::NOT_FOUND);
    // What an older hub has taken is seen, settled and flushed.
    lab.export("m\u{430}in", "m\u{430}in").await;
    assert_eq!(put().await.status, StatusCode::OK);
    let listed = lab.get("/v1/exports", &all).await;
    assert_eq!(listed.json["items"][0]["ref"], "refs/heads/m\u{430}in");
    let path = "/v1/projects/m%D0%B0in/flush";
    let flushed = lab.ask("POST", path, Some(&all), Some(json!({}))).await;
    assert_eq!(flushed.json["exports"], 1);
}

#[tokio::test]
async fn no_token_is_made_that_writes_under_a_name_that_looks_like_another() {
    let lab = Lab::new().await;
    let all = lab.admin(None);
    for (project, write, status) in [
        ("p", json!(["m\u{430}in"]), StatusCode::BAD_REQUEST),
        ("p", json!(["main", "m\u{430}*"]), StatusCode::BAD_REQUEST),
        ("m\u{430}in", json!(["main"]), StatusCode::BAD_REQUEST),
        ("m\u{430}in", json!([]), StatusCode::CREATED),
        ("p", json!(["ветка"]), StatusCode::CREATED),
    ] {
        let body = json!({
            "project": project, "read": ["**"], "write": write, "ttl_seconds": 60, "subject": "x",
        });
        let told = lab.ask("POST", "/v1/tokens", Some(&all), Some(body)).await;
        assert_eq!(told.status, status, "{project} {write}: {}", told.json);
    }
}

#[tokio::test]
async fn an_export_is_shown_with_its_config_and_deleted_once() {
    let lab = Lab::new().await;
    let token = lab.admin(Some("p"));
    let id = lab.export("p", "main").await;
    let path = format!("/v1/exports/{id}");
    let shown = lab.get(&path, &token).await;
    assert_eq!(shown.json["export"]["project"], "p");
    let config = lab.get(&format!("{path}/config"), &token).await;
    assert_eq!(config.json, json!({"records": []}));
    for status in [204, 404] {
        let told = lab.ask("DELETE", &path, Some(&token), None).await;
        assert_eq!(told.status.as_u16(), status);
    }
    let audit = lab.get("/v1/audit?action=delete", &token).await;
    assert_eq!(audit.json["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn of_each_layer_it_is_said_whether_it_is_there() {
    let lab = Lab::new().await;
    let folder = lab._dir.path().join("blobs/sha256");
    std::fs::create_dir_all(&folder).unwrap();
    let layer = |content: &str, there: Option<&str>| {
        let digest = Digest::of(content.as_bytes());
        if let Some(there) = there {
            std::fs::write(folder.join(digest.hex()), there).unwrap();
        }
        Layer {
            digest,
            size: content.len() as u64,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            diff_id: None,
            created_at: None,
            annotations: Default::default(),
        }
    };
    let mut export = new_export("p", "main");
    export.layers = vec![
        layer("here", Some("here")),
        layer("gone", None),
        layer("short", Some("sh")),
    ];
    let id = lab.catalog.append(export).await.unwrap();
    let token = lab.admin(Some("p"));
    let told = lab.get(&format!("/v1/exports/{id}/layers"), &token).await;
    let layers = told.json["items"].as_array().unwrap();
    let present: Vec<_> = layers.iter().map(|layer| &layer["present"]).collect();
    assert_eq!(present, [true, false, false], "{}", told.json);
    assert_eq!(layers[1]["digest"], Digest::of(b"gone").to_string());
    let page = format!("/v1/exports/{id}/layers?after=2&limit=1");
    let told = lab.get(&page, &token).await;
    assert_eq!(told.json["items"][0]["present"], false, "{}", told.json);
}

#[tokio::test]
async fn what_is_settled_counts_until_it_is_unsettled() {
    let lab = Lab::new().await;
    let token = lab.admin(None);
    let path = "/v1/projects/p/settings";
    assert_eq!(lab.get(path, &token).await.status, StatusCode::NOT_FOUND);
    let new = json!({"max_bytes": 1000, "max_age_seconds": 60, "note": "small"});
    let put = lab.ask("PUT", path, Some(&token), Some(new)).await;
    assert_eq!(put.json["max_bytes"], 1000, "{}", put.json);
    let got = lab.get(path, &token).await;
    assert_eq!(
        (&got.json["note"], &got.json["by"]),
        (&json!("small"), &json!("ops"))
    );
    let quotas = crate::cache::quotas::Quotas::default();
    let limits = quotas
        .of(&*Arc::clone(&lab.catalog), &"p".parse().unwrap())
        .await;
    assert_eq!(limits.unwrap().max_bytes, Some(1000));
    let own = lab.admin(Some("p"));
    let told = lab.ask("PUT", path, Some(&own), Some(json!({}))).await;
    assert_eq!(told.status, StatusCode::FORBIDDEN);
    let told = lab.ask("DELETE", path, Some(&token), None).await;
    assert_eq!(told.status, StatusCode::NO_CONTENT);
    assert_eq!(lab.get(path, &token).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_collection_is_begun_and_its_report_is_read_later() {
    let lab = Lab::new().await;
    let token = lab.admin(None);
    lab.export("p", "main").await;
    for dry_run in [true, false] {
        let body = Some(json!({"dry_run": dry_run}));
        let begun = lab.ask("POST", "/v1/gc", Some(&token), body).await;
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.json);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let last = loop {
            let status = lab.get("/v1/gc", &token).await;
            if status.json["running_since"].is_null() {
                break status.json["last"].clone();
            }
            assert!(std::time::Instant::now() < deadline, "{}", status.json);
            tokio::task::yield_now().await;
        };
        assert_eq!(last["dry_run"], dry_run);
        assert_eq!(last["collected"]["exports_after"], 1, "{last}");
    }
    let own = lab.admin(Some("p"));
    let told = lab.get("/v1/gc", &own).await;
    assert_eq!(told.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_usage_of_today_is_what_there_is_and_that_of_other_days_what_was_kept() {
    let lab = Lab::new().await;
    lab.export("a", "main").await;
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let sizes = lab.catalog.project_sizes().await.unwrap();
    for day in [today.yesterday().unwrap(), today] {
        lab.catalog.keep_usage(day, &sizes).await.unwrap();
    }
    lab.export("a", "main").await;
    lab.export("new", "main").await;
    let token = lab.admin(None);
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let days = lab.get("/v1/usage/days", &token).await;
    let row = |row: &Value| (row["project"].clone(), row["exports"].clone());
    let rows: Vec<_> = days.json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(row)
        .collect();
    let of = |project: &str, exports: u64| (json!(project), json!(exports));
    assert_eq!(rows[..2], [of("a", 2), of("new", 1)], "{}", days.json);
    assert_eq!(rows.last(), Some(&of("a", 1)), "{}", days.json);
    let since = format!("/v1/usage/days?since={today}&project=new");
    let of_new = lab.get(&since, &token).await;
    assert_eq!(of_new.json["items"].as_array().unwrap().len(), 1);
    let later = today.tomorrow().unwrap();
    let none = lab
        .get(&format!("/v1/usage/days?since={later}"), &token)
        .await;
    assert_eq!(none.json["items"], json!([]), "{}", none.json);
}

#[tokio::test]
async fn usage_is_of_what_is_seen() {
    let lab = Lab::new().await;
    lab.export("a", "main").await;
    lab.export("b", "main").await;
    for (project, exports) in [(None, 2), (Some("a"), 1)] {
        let token = lab.admin(project);
        let now = lab.get("/v1/usage", &token).await;
        assert_eq!(now.json["exports"], exports, "{}", now.json);
        let days = lab.get("/v1/usage/days?limit=1", &token).await;
        assert_eq!(days.json["items"].as_array().unwrap().len(), 1);
        let next = days.json["next"].as_str().unwrap().replace(' ', "%20");
        let rest = lab
            .get(&format!("/v1/usage/days?after={next}"), &token)
            .await;
        assert_eq!(rest.json["items"].as_array().unwrap().len(), exports - 1);
    }
}

#[tokio::test]
async fn a_token_is_revoked_by_itself_or_by_its_id() {
    let lab = Lab::new().await;
    let (all, own) = (lab.admin(None), lab.admin(Some("p")));
    let token = lab.build("p");
    let path = "/v1/tokens/revoke";
    let told = lab
        .ask("POST", path, Some(&own), Some(json!({"token": token})))
        .await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.json);
    let by_id = json!({"id": "0123456789abcdef0123456789abcdef"});
    let told = lab.ask("POST", path, Some(&own), Some(by_id.clone())).await;
    assert_eq!(told.status, StatusCode::FORBIDDEN);
    let told = lab.ask("POST", path, Some(&all), Some(by_id)).await;
    assert_eq!(told.status, StatusCode::OK);
    let list = lab.get("/v1/tokens/revoked", &all).await;
    assert_eq!(list.json["items"].as_array().unwrap().len(), 2);
    let said = lab
        .ask(
            "POST",
            "/v1/tokens/explain",
            Some(&own),
            Some(json!({"token": token})),
        )
        .await;
    assert_eq!(said.json["project"], "p");
    assert_eq!(said.json["admin"], false);
}

#[tokio::test]
async fn a_quota_of_the_command_line_is_told_until_another_is_settled() {
    let lab = Lab::new().await;
    let token = lab.admin(None);
    let told = lab.get("/v1/projects/said", &token).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.json);
    assert_eq!(told.json["settings"], Value::Null);
    assert_eq!(
        told.json["limits"],
        json!({"max_bytes": SAID, "max_bytes_from": "hub", "max_age_seconds": null, "max_age_from": null})
    );
    let new = json!({"max_bytes": 7});
    lab.ask("PUT", "/v1/projects/said/settings", Some(&token), Some(new))
        .await;
    let told = lab.get("/v1/projects/said", &token).await;
    assert_eq!(told.json["limits"]["max_bytes"], 7);
    assert_eq!(told.json["limits"]["max_bytes_from"], "settled");
}
