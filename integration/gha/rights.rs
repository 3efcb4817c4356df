//! What a token is good for, and what it is not.

use serde_json::{Value, json};

use super::ask::{Answer, Ask, VERSION};
use crate::harness::{Lab, Metrics, layerd, runtime_token};
use crate::hub::{Gate, claims, signed, with};

const PULL: &str = "refs/pull/7/merge";

/// A client of project `p` that reads and writes these refs.
fn ask(gate: &Gate, read: &[&str], write: &[&str]) -> Ask {
    bearer(gate, &claims(read, write))
}

fn bearer(gate: &Gate, claims: &Value) -> Ask {
    Ask::new(gate.hub.url(), Some(&signed("first", claims)))
}

/// A refusal of the second version, which says why.
#[track_caller]
fn refused(answer: Answer, status: u16, code: &str, why: &str) {
    let body = answer.is(status).json();
    assert_eq!(body["code"], code, "{body}");
    assert!(body["msg"].as_str().unwrap().contains(why), "{body}");
}

#[tokio::test]
async fn a_token_of_another_project_sees_nothing_and_takes_nothing() {
    let gate = Gate::new().await;
    let own = ask(&gate, &["main"], &["main"]);
    let of_other = with(claims(&["**"], &["main", "**"]), "project", "q");
    let other = bearer(&gate, &of_other);
    own.save("key", VERSION, "content".into()).await;
    assert_eq!(own.restored(&["key"], VERSION).await.unwrap(), "content");
    assert_eq!(other.find(&["key", "k"], VERSION).await, None);
    // The same key is free there.
    other.save("key", VERSION, "other".into()).await;
    assert_eq!(own.restored(&["key"], VERSION).await.unwrap(), "content");
    // An upload is known to nobody else, by its number or by its name.
    let reserved = own.reserve("first", VERSION).await.is(201).json();
    let id = reserved["cacheId"].as_i64().unwrap();
    let unknown = other.chunk(id, "bytes 0-3/*", "abcd".into()).await.is(404);
    assert_eq!(unknown.json()["message"], "there is no such upload");
    other.commit(id, 0).await.is(404);
    let unknown = other.finalize("first", VERSION, 0).await;
    refused(unknown, 404, "not_found", "no such upload");
    let beside = ask(&gate, &["**"], &[PULL]);
    beside.chunk(id, "bytes 0-3/*", "abcd".into()).await.is(404);
    own.chunk(id, "bytes 0-3/*", "abcd".into()).await.is(204);
    own.commit(id, 4).await.is(204);
    assert_eq!(own.restored(&["first"], VERSION).await.unwrap(), "abcd");
}

#[tokio::test]
async fn refs_are_read_in_the_tokens_order_and_only_the_own_one_is_written() {
    let gate = Gate::new().await;
    let main = ask(&gate, &["main"], &["main"]);
    let pull = ask(&gate, &[PULL, "main"], &[PULL]);
    main.save("deps-1", VERSION, "of main".into()).await;
    assert_eq!(
        pull.restored(&["deps-1"], VERSION).await.unwrap(),
        "of main"
    );
    // A key of the base is free in the own ref, and comes first from then on.
    pull.save("deps-1", VERSION, "of the request".into()).await;
    let found = pull.restored(&["deps-1"], VERSION).await.unwrap();
    assert_eq!(found, "of the request");
    assert_eq!(
        main.restored(&["deps-1"], VERSION).await.unwrap(),
        "of main"
    );
    // The first ref counts more than the first key.
    main.save("deps-2", VERSION, "newer".into()).await;
    let found = pull.restored(&["deps-2", "deps-"], VERSION).await.unwrap();
    assert_eq!(found, "of the request");
    let other = ask(&gate, &["refs/pull/8/merge"], &[]);
    assert_eq!(other.find(&["deps-1"], VERSION).await, None);
    let denied = other.create("deps-3", VERSION).await;
    refused(denied, 403, "permission_denied", "cache write denied: ");
    let writer = ask(&gate, &[], &["main"]);
    let look = json!({"key": "deps-1", "version": VERSION});
    let denied = writer.twirp("GetCacheEntryDownloadURL", &look).await;
    refused(denied, 403, "permission_denied", "cache read denied: ");
    let first = writer.first(http::Method::GET, "cache?keys=a&version=b", None);
    let message = first.await.is(403).json()["message"].to_string();
    assert!(message.starts_with("\"cache read denied: "), "{message}");
}

#[tokio::test]
async fn a_token_as_it_is_minted_is_enough() {
    let lab = Lab::new();
    let key = lab.path("ci.pem").display().to_string();
    layerd(["token", "key", "-o", &key]).await.ok();
    let arguments = ["--auth", "token", "--token-key-file", &key];
    let hub = lab.hub("hub").arguments(arguments).start().await;
    let refs = ["--project=acme/shop", "--read=main", "--write=main"];
    let mint = ["token", "mint", "--token-key-file", &key];
    let minted = layerd(mint.iter().chain(&refs)).await.ok();
    let ask = Ask::new(hub.url(), Some(minted.stdout.trim()));
    ask.save("key", VERSION, "content".into()).await;
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "content");
}

#[tokio::test]
async fn without_a_token_that_counts_every_answer_is_a_refusal_in_json() {
    let gate = Gate::new().await;
    let unsigned = runtime_token("p", &[("refs/heads/main", 3)]);
    let own = claims(&["main"], &["main"]);
    let past = jiff::Timestamp::now().as_second() - 3600;
    let expired = signed("first", &with(own.clone(), "exp", past));
    let early = signed("first", &with(own.clone(), "nbf", past + 7200));
    let admin = signed("first", &with(claims(&[], &[]), "admin", true));
    let forged = signed("second", &own);
    for token in [
        None,
        Some(""),
        Some("x"),
        Some(unsigned.as_str()),
        Some(&expired),
        Some(&early),
        Some(&admin),
        Some(&forged),
    ] {
        let ask = Ask::new(gate.hub.url(), token);
        refused(ask.create("key", VERSION).await, 401, "unauthenticated", "");
        let ended = ask.finalize("key", VERSION, 1).await;
        refused(ended, 401, "unauthenticated", "");
        let first = ask.reserve("key", VERSION).await.is(401);
        assert_eq!(first.header("www-authenticate"), "Bearer");
        assert!(first.json()["message"].is_string());
        let chunk = ask.chunk(1, "bytes 0-3/*", "abcd".into()).await.is(401);
        assert!(chunk.json()["message"].is_string());
    }
    let metrics = Metrics::at(gate.hub.metrics_address()).await;
    let bytes = metrics.value("layerd_store_bytes");
    assert!(bytes <= 0.0, "{bytes} bytes were stored");
}

#[tokio::test]
async fn addresses_begin_with_what_an_operator_says() {
    let lab = Lab::new();
    let public = ["--public-url", "https://cache.example.com:8443"];
    let hub = lab.hub("hub").arguments(public).start().await;
    let ask = Ask::new(hub.url(), None);
    let url = ask.reserved("key", VERSION).await;
    let rest = url.strip_prefix("https://cache.example.com:8443").unwrap();
    let here = format!("{}{rest}", hub.url());
    ask.put_whole(&here, "content").await.is(201);
    ask.finalize("key", VERSION, 7).await.is(200);
    let (_, url) = ask.find(&["key"], VERSION).await.unwrap();
    let down = "https://cache.example.com:8443/gha/down/";
    assert!(url.starts_with(down), "{url}");
}

#[tokio::test]
async fn an_address_is_good_for_one_thing_and_no_other() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    ask.save("key", VERSION, "content".into()).await;
    let (_, down) = ask.find(&["key"], VERSION).await.unwrap();
    let up = ask.reserved("other", VERSION).await;
    for (url, put) in [(&down, true), (&up, false)] {
        let swapped = match put {
            true => url.replace("/down/", "/up/"),
            false => url.replace("/up/", "/down/"),
        };
        let answer = match put {
            true => ask.put_whole(&swapped, "evil").await,
            false => ask.get(&swapped, &[]).await,
        };
        let body = answer.is(403);
        assert_eq!(body.header("x-ms-error-code"), "AuthenticationFailed");
        assert_eq!(body.json()["error"]["code"], "AuthenticationFailed");
    }
    let (path, query) = up.split_once('?').unwrap();
    let parameter = |name: &str| {
        let mut parameters = query.split('&');
        let found = parameters.find_map(|parameter| parameter.strip_prefix(name));
        found.unwrap().to_owned()
    };
    let (until, signature) = (parameter("se="), parameter("sig="));
    for query in [
        String::new(),
        format!("se={until}"),
        format!("se={until}&sig="),
        format!("se=9999999999&sig={signature}"),
        format!("se={until}&sig={}", "0".repeat(64)),
        format!("se={until}&sig={signature}&sig={signature}"),
    ] {
        let answer = ask.put_whole(&format!("{path}?{query}"), "evil").await;
        answer.is(403);
    }
    // Its parts may come in any order, with others between them.
    let sorted = format!("{path}?api=1&sig={signature}&se={until}&timeout=7");
    ask.put_whole(&sorted, "fine").await.is(201);
    assert_eq!(
        ask.find(&["other"], VERSION).await,
        None,
        "it is not finished"
    );
    ask.finalize("other", VERSION, 4).await.is(200);
    assert_eq!(ask.restored(&["other"], VERSION).await.unwrap(), "fine");
    let log = hub.log();
    assert!(!log.contains(&signature), "the log has a signature");
}
