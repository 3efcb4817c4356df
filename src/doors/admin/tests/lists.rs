//! Lists, and the document.

use std::collections::BTreeSet;

use super::*;
use crate::entry::EntryName;

#[tokio::test]
async fn pages_have_all_of_2500_exports_each_once() {
    let lab = Lab::new().await;
    for n in 0..2500 {
        lab.export(["a", "b"][n % 2], "main").await;
    }
    for (project, all) in [(None, 2500), (Some("a"), 1250)] {
        let token = lab.admin(project);
        let (mut seen, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
        loop {
            let page = lab
                .get(&format!("/v1/exports?limit=1000{after}"), &token)
                .await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.json);
            let items = page.json["items"].as_array().unwrap();
            assert!(items.len() <= 1000);
            for item in items {
                assert!(seen.insert(item["id"].as_i64().unwrap()));
                assert!(project.is_none_or(|project| item["project"] == project));
            }
            pages += 1;
            match page.json["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!((seen.len(), pages), (all, all / 1000 + 1));
    }
    let token = lab.admin(None);
    for limit in ["0", "1001", "-1", "x", "4294967296"] {
        let told = lab.get(&format!("/v1/exports?limit={limit}"), &token).await;
        assert_eq!(
            (told.status.as_u16(), told.code()),
            (400, "bad_request"),
            "{limit}"
        );
    }
    let behind = lab.get("/v1/exports?after=-5", &token).await;
    assert_eq!(behind.json["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn exports_are_listed_by_kind_and_entries_with_their_keys() {
    let lab = Lab::new().await;
    let build = lab.export("a", "main").await;
    let name = EntryName {
        key: "npm-1".parse().unwrap(),
        version: "v1".parse().unwrap(),
    };
    let entry = lab.entry("a", "main", &name).await;
    let token = lab.admin(Some("a"));
    for (kind, expected) in [
        ("", vec![entry, build]),
        ("?kind=cache", vec![build]),
        ("?kind=entry", vec![entry]),
        ("?kind=gha", vec![entry]),
    ] {
        let page = lab.get(&format!("/v1/exports{kind}"), &token).await;
        let items = page.json["items"].as_array().unwrap();
        let ids: Vec<_> = items.iter().map(|item| item["id"].as_i64()).collect();
        let expected: Vec<_> = expected.iter().map(|id| Some(id.0)).collect();
        assert_eq!(ids, expected, "{kind}");
        for item in items {
            match item["id"].as_i64() == Some(entry.0) {
                true => {
                    assert_eq!(item["kind"], "entry");
                    assert_eq!(item["entry"]["key"], "npm-1");
                    assert_eq!(item["entry"]["version"], "v1");
                }
                false => {
                    assert_eq!(item["kind"], "cache");
                    assert!(item.get("entry").is_none());
                }
            }
        }
    }
    let told = lab.get("/v1/exports?kind=other", &token).await;
    assert_eq!(told.status.as_u16(), 400);
    let told = lab.get(&format!("/v1/exports/{entry}"), &token).await;
    assert_eq!(told.json["export"]["entry"]["key"], "npm-1");
}

#[tokio::test]
async fn the_document_describes_every_route_and_is_whole() {
    let lab = Lab::new().await;
    let told = lab.ask("GET", DOCUMENT, None, None).await;
    assert_eq!(told.status, StatusCode::OK);
    assert!(told.json["openapi"].as_str().unwrap().starts_with("3."));
    let text = told.json.to_string();
    let schemas = told.json["components"]["schemas"].as_object().unwrap();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is named and not there");
    }
    // Every one of them is there: no token is what is missing.
    let mut operations = BTreeSet::new();
    for (path, item) in told.json["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                operations.insert(operation["operationId"].to_string()),
                "{path}"
            );
            let path = path.replace("{project}", "p").replace("{id}", "1");
            let told = lab.ask(&method.to_uppercase(), &path, None, None).await;
            assert_eq!(told.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
}

/// All items of a list, page by page.
async fn listed(lab: &Lab, path: &str, token: &str) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = lab.get(&format!("{path}?limit=7{after}"), token).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.json);
        let more = page.json["items"].as_array().unwrap();
        assert!(more.len() <= 7);
        items.extend(more.iter().cloned());
        let Some(next) = page.json["next"].as_str() else {
            return items;
        };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        after = format!("&after={next}");
    }
}

#[tokio::test]
async fn what_an_export_has_and_what_was_saved_come_in_pages() {
    let lab = Lab::new().await;
    let token = lab.admin(Some("p"));
    let layer = |n: u64| crate::catalog::Layer {
        digest: crate::digest::Digest::of(&n.to_le_bytes()),
        size: n,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        diff_id: None,
        created_at: None,
        annotations: Default::default(),
    };
    let export = NewExport {
        layers: (0..30).map(layer).collect(),
        ..new_export("p", "main")
    };
    let id = lab.catalog.append(export).await.unwrap();
    let layers = listed(&lab, &format!("/v1/exports/{id}/layers"), &token).await;
    let sizes: Vec<_> = layers.iter().map(|layer| layer["size"].as_u64()).collect();
    assert_eq!(sizes, (0..30).map(Some).collect::<Vec<_>>());
    let steps = listed(&lab, &format!("/v1/exports/{id}/steps"), &token).await;
    assert_eq!(steps.len(), 0);
    for day in 1..=28 {
        for project in ["p", "q"] {
            let saving = crate::catalog::Saving {
                project: project.parse().unwrap(),
                git_ref: "main".parse().unwrap(),
                day: jiff::civil::date(2026, 11, day),
                builds: 1,
                steps: 1,
                cached: 1,
                saved_ms: 1,
                estimated_ms: 0,
            };
            lab.catalog.add_saving(&saving).await.unwrap();
        }
    }
    let own = listed(&lab, "/v1/savings", &token).await;
    assert_eq!(own.len(), 28);
    assert_eq!(own[0]["day"], "2026-11-28");
    let all = listed(&lab, "/v1/savings", &lab.admin(None)).await;
    assert_eq!(all.len(), 56);
    for after in ["x", "2026-11-28", "2026-11-28 p", "2026-11-28 .. main"] {
        let after: String = url::form_urlencoded::byte_serialize(after.as_bytes()).collect();
        let told = lab.get(&format!("/v1/savings?after={after}"), &token).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{after}");
    }
}
