//! What a token is good for, and what it is not.

use serde_json::json;

use super::ask::{Answer, Ask, VERSION};
use crate::harness::{Hub, Lab, layerd, runtime_token};

/// A hub that asks for tokens.
struct Gate {
    hub: Hub,
    keys: String,
    _lab: Lab,
}

impl Gate {
    async fn new() -> Self {
        let lab = Lab::new();
        let keys = lab.path("ci.pem").display().to_string();
        layerd(["token", "key", "-o", &keys]).await.ok();
        let arguments = ["--auth", "token", "--token-key-file", &keys];
        let hub = lab.hub("hub").arguments(arguments).start().await;
        Self {
            hub,
            keys,
            _lab: lab,
        }
    }

    async fn ask(&self, arguments: &[&str]) -> Ask {
        let mint = ["token", "mint", "--token-key-file", &self.keys];
        let minted = layerd(mint.iter().chain(arguments)).await.ok();
        Ask::new(self.hub.url(), Some(minted.stdout.trim()))
    }
}

/// A refusal of the second version, which says why.
#[track_caller]
fn refused(answer: Answer, status: u16, code: &str, why: &str) {
    let body = answer.is(status).json();
    assert_eq!(body["code"], code, "{body}");
    assert!(body["msg"].as_str().unwrap().contains(why), "{body}");
}

const OWN: [&str; 4] = ["--project=p", "--read=main", "--write=main", "--ttl=1h"];

#[tokio::test]
async fn a_token_of_another_project_sees_nothing_and_takes_nothing() {
    let gate = Gate::new().await;
    let own = gate.ask(&OWN).await;
    let other = gate
        .ask(&["--project=q", "--read=main", "--write=main"])
        .await;
    own.save("key", VERSION, "content".into()).await;
    assert_eq!(own.restored(&["key"], VERSION).await.unwrap(), "content");
    assert_eq!(other.find(&["key", "k"], VERSION).await, None);
    // The same key is free there.
    other.save("key", VERSION, "other".into()).await;
    assert_eq!(own.restored(&["key"], VERSION).await.unwrap(), "content");
    // An upload is known to nobody else, by its number or by its name.
    let id = own.reserve("first", VERSION).await.is(201).json()["cacheId"]
        .as_i64()
        .unwrap();
    let unknown = other.chunk(id, "bytes 0-3/*", "abcd".into()).await.is(404);
    assert_eq!(unknown.json()["message"], "there is no such upload");
    other.commit(id, 0).await.is(404);
    refused(
        other.finalize("first", VERSION, 0).await,
        404,
        "not_found",
        "no such upload",
    );
    own.chunk(id, "bytes 0-3/*", "abcd".into()).await.is(204);
    own.commit(id, 4).await.is(204);
    assert_eq!(own.restored(&["first"], VERSION).await.unwrap(), "abcd");
}

#[tokio::test]
async fn refs_are_read_in_the_tokens_order_and_only_the_own_one_is_written() {
    let gate = Gate::new().await;
    let main = gate.ask(&OWN).await;
    let pull = [
        "--project=p",
        "--read=refs/pull/7/merge",
        "--read=main",
        "--write=refs/pull/7/merge",
    ];
    let pull = gate.ask(&pull).await;
    main.save("deps-1", VERSION, "of main".into()).await;
    assert_eq!(
        pull.restored(&["deps-1"], VERSION).await.unwrap(),
        "of main"
    );
    // A key of the base is free in the own ref, and comes first from then on.
    pull.save("deps-1", VERSION, "of the request".into()).await;
    assert_eq!(
        pull.restored(&["deps-1"], VERSION).await.unwrap(),
        "of the request"
    );
    assert_eq!(
        main.restored(&["deps-1"], VERSION).await.unwrap(),
        "of main"
    );
    // The first ref counts more than the first key.
    main.save("deps-2", VERSION, "newer".into()).await;
    let found = pull.restored(&["deps-2", "deps-"], VERSION).await.unwrap();
    assert_eq!(found, "of the request");
    let other = gate.ask(&["--project=p", "--read=refs/pull/8/merge"]).await;
    assert_eq!(other.find(&["deps-1"], VERSION).await, None);
    refused(
        other.create("deps-3", VERSION).await,
        403,
        "permission_denied",
        "cache write denied: ",
    );
    let writer = gate.ask(&["--project=p", "--write=main"]).await;
    let look = json!({"key": "deps-1", "version": VERSION});
    let denied = writer.twirp("GetCacheEntryDownloadURL", &look).await;
    refused(denied, 403, "permission_denied", "cache read denied: ");
    let first = writer
        .first(http::Method::GET, "cache?keys=a&version=b", None)
        .await
        .is(403);
    assert!(
        first.json()["message"]
            .as_str()
            .unwrap()
            .starts_with("cache read denied: ")
    );
}

#[tokio::test]
async fn without_a_token_that_counts_every_answer_is_a_refusal_in_json() {
    let gate = Gate::new().await;
    let unsigned = runtime_token("p", &[("refs/heads/main", 3)]);
    let mint = ["token", "mint", "--token-key-file", &gate.keys, "--ttl=1s"];
    let expired = layerd(mint.iter().chain(&OWN[..3])).await.ok().stdout;
    let admin = ["token", "mint", "--admin", "--token-key-file", &gate.keys];
    let admin = layerd(admin).await.ok().stdout;
    // Clocks may differ by a minute: until then it counts.
    let expired = (expired.trim(), false);
    for (token, is_refused) in [
        (None, true),
        (Some(""), true),
        (Some("x"), true),
        (Some(unsigned.as_str()), true),
        (Some(admin.trim()), true),
        (Some(expired.0), expired.1),
    ] {
        let ask = Ask::new(gate.hub.url(), token);
        let asked = ask.create("key", VERSION).await;
        if !is_refused {
            continue;
        }
        refused(asked, 401, "unauthenticated", "");
        let first = ask.reserve("key", VERSION).await.is(401);
        assert_eq!(first.header("www-authenticate"), "Bearer");
        assert!(first.json()["message"].is_string());
        let chunk = ask.chunk(1, "bytes 0-3/*", "abcd".into()).await.is(401);
        assert!(chunk.json()["message"].is_string());
    }
    let metrics = crate::harness::Metrics::at(gate.hub.metrics_address()).await;
    let bytes = metrics.value("layerd_store_bytes");
    assert!(bytes <= 0.0, "{bytes} bytes were stored");
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
