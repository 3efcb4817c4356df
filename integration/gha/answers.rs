//! What is refused, and in whose terms.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::json;

use super::ask::{Ask, VERSION};
use crate::harness::{Lab, layerd_with, until};
use crate::hub::{Gate, claims, signed, with};

#[tokio::test]
async fn addresses_that_were_given_to_a_revoked_token_are_refused_by_every_hub() {
    let gate = Gate::new().await;
    let keys = gate.lab.path("keys").display().to_string();
    let second = gate.lab.hub("two").data_dir(gate.hub.data_dir());
    let arguments = ["--auth", "token", "--token-key-file", &keys];
    let second = second.arguments(arguments).start().await;
    let bearer = |id: &str| {
        let claims = with(claims(&["main"], &["main"]), "jti", id);
        signed("first", &claims)
    };
    let (leaked, fine) = (bearer("leaked"), bearer("fine"));
    let [ask, other] = [&leaked, &fine].map(|token| Ask::new(gate.hub.url(), Some(token)));
    ask.save("saved", VERSION, "content".into()).await;
    let (_, down) = ask.find(&["saved"], VERSION).await.unwrap();
    let up = ask.reserved("open", VERSION).await;
    let (_, others_down) = other.find(&["saved"], VERSION).await.unwrap();
    let others_up = other.reserved("other", VERSION).await;
    let there = |url: &str| url.replace(gate.hub.address(), second.address());
    ask.put_block(&there(&up), "a", "content").await.is(201);
    ask.get(&there(&down), &[]).await.is(200);

    let dir = gate.hub.data_dir().display().to_string();
    let revoke = ["token", "revoke", "--data-dir", &dir, "-"];
    layerd_with(revoke, &[], &leaked).await.ok();
    for url in [&down, &there(&down)] {
        let refused = until("its address is refused", async || {
            let answer = ask.get(url, &[]).await;
            (answer.status != 200).then_some(answer)
        });
        let refused = refused.await.is(401);
        refused.json();
        ask.get(url, &[("x-ms-range", "bytes=0-1")]).await.is(401);
    }
    for url in [&up, &there(&up)] {
        ask.put_whole(url, "evil").await.is(401).json();
        ask.put_block(url, "b", "evil").await.is(401).json();
        ask.put_list(url, &["a"]).await.is(401).json();
    }
    // Those of another token are what they were.
    other.get(&there(&others_down), &[]).await.is(200);
    other.put_whole(&there(&others_up), "content").await.is(201);
    other.finalize("other", VERSION, 7).await.is(200);
}

#[tokio::test]
async fn a_method_that_is_not_for_it_is_told_in_each_clients_terms() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    let asked = async |method: Method, path: &str| {
        let url = format!("{}{path}", hub.url());
        ask.request(method, &url, &[], "").await.is(405)
    };
    let twirp = "/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry";
    let told = asked(Method::GET, twirp).await.json();
    assert_eq!(told["code"], "bad_route", "{told}");
    assert!(told["msg"].is_string(), "{told}");
    for (method, path) in [
        (Method::POST, "/_apis/artifactcache/cache"),
        (Method::GET, "/_apis/artifactcache/caches"),
        (Method::PUT, "/_apis/artifactcache/caches/1"),
    ] {
        let told = asked(method, path).await.json();
        assert_eq!(told["typeKey"], "InvalidRequestException", "{path} {told}");
        assert!(told["message"].is_string(), "{told}");
    }
    for (method, path) in [(Method::GET, "/gha/up/x"), (Method::PUT, "/gha/down/x")] {
        let told = asked(method, path).await;
        assert_eq!(told.header("x-ms-error-code"), "UnsupportedHttpVerb");
        told.json();
    }
}

#[tokio::test]
async fn what_was_ended_is_ended_once_more_with_the_same_size_alone() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    ask.save("key", VERSION, "content".into()).await;
    ask.finalize("key", VERSION, 7).await.is(200);
    let told = ask.finalize("key", VERSION, 8).await.is(400).json();
    assert_eq!(told["code"], "invalid_argument", "{told}");
    let reserved = ask.reserve("first", VERSION).await.is(201).json();
    let id = reserved["cacheId"].as_i64().unwrap();
    ask.chunk(id, "bytes 0-6/*", "content".into()).await.is(204);
    ask.commit(id, 7).await.is(204);
    ask.commit(id, 7).await.is(204);
    let told = ask.commit(id, 6).await.is(400).json();
    assert!(told["message"].is_string(), "{told}");
}

#[tokio::test]
async fn a_runner_whose_project_is_none_is_not_let_into_another() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let payload = json!({"project": "a b", "ac": r#"[{"Scope":"main","Permission":3}]"#});
    let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
    let token = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let ask = Ask::new(hub.url(), Some(&token));
    let told = ask.create("key", VERSION).await.is(401).json();
    assert_eq!(told["code"], "unauthenticated", "{told}");
    assert!(told["msg"].as_str().unwrap().contains("project"), "{told}");
}
