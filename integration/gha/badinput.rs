//! What no client should send. Whoever sends it is told in its own terms, and
//! nothing is kept of it.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ask::{Ask, BUILDKIT, VERSION};
use crate::harness::{Hub, Lab, Metrics, layerd, until};

/// A hub, and a client of it.
async fn start(lab: &Lab) -> (Hub, Ask) {
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    (hub, ask)
}

/// There is nothing in the log of the hub.
async fn assert_nothing_listed(hub: &Hub) {
    let dir = hub.data_dir().display().to_string();
    let listed = layerd(["cache", "ls", "--json", "--data-dir", &dir]).await;
    let listed: Value = serde_json::from_str(&listed.ok().stdout).unwrap();
    assert!(!listed.to_string().contains("refs/heads"), "{listed}");
}

#[tokio::test]
async fn json_of_other_types_and_names_that_cannot_be_are_invalid() {
    let lab = Lab::new();
    let (hub, ask) = start(&lab).await;
    let long = "x".repeat(513);
    for body in [
        json!({}),
        json!([]),
        json!({"key": 1, "version": "v"}),
        json!({"key": "k", "version": null}),
        json!({"key": "", "version": "v"}),
        json!({"key": "a,b", "version": "v"}),
        json!({"key": "a\u{0}", "version": "v"}),
        json!({"key": long, "version": "v"}),
        json!({"key": "k", "version": long}),
    ] {
        for method in [
            "CreateCacheEntry",
            "FinalizeCacheEntryUpload",
            "GetCacheEntryDownloadURL",
        ] {
            let refused = ask.twirp(method, &body).await.is(400).json();
            assert_eq!(refused["code"], "invalid_argument", "{method} {body}");
            assert!(refused["msg"].is_string());
        }
        let refused = ask
            .first(Method::POST, "caches", Some(&body))
            .await
            .is(400)
            .json();
        assert!(refused["message"].is_string(), "{body}");
    }
    for size in [json!(-1), json!("x"), json!(1.5), json!([1])] {
        let body = json!({"key": "k", "version": "v", "size_bytes": size});
        ask.twirp("FinalizeCacheEntryUpload", &body).await.is(400);
        ask.first(Method::POST, "caches/7", Some(&json!({"size": size})))
            .await
            .is(400);
    }
    let many: Vec<String> = (0..40).map(|key| key.to_string()).collect();
    let body = json!({"key": "k", "restore_keys": many, "version": "v"});
    ask.twirp("GetCacheEntryDownloadURL", &body).await.is(400);
    let large = json!({"key": "k", "version": "v", "more": "x".repeat(70_000)});
    ask.twirp("CreateCacheEntry", &large).await.is(413).json();
    ask.twirp("ListCacheEntries", &json!({}))
        .await
        .is(404)
        .json();
    for query in ["", "?keys=a", "?version=v", "?keys=,&version=v"] {
        ask.first(Method::GET, &format!("cache{query}"), None)
            .await
            .is(400)
            .json();
    }
    // At most the key's 512 characters, of any length in bytes.
    ask.save(&"é".repeat(512), VERSION, "content".into()).await;
    let metrics = Metrics::at(hub.metrics_address()).await;
    assert_eq!(
        metrics.value("layerd_gha_entries_total{kind=\"entry\"}"),
        1.0
    );
}

#[tokio::test]
async fn chunks_that_do_not_fit_together_become_nothing() {
    let lab = Lab::new();
    let (hub, ask) = start(&lab).await;
    let reserve = async |key: &str| {
        let reserved = ask.reserve(key, VERSION).await.is(201).json();
        reserved["cacheId"].as_i64().unwrap()
    };
    let ten = || Bytes::from_static(b"0123456789");
    let id = reserve("ranges").await;
    for range in [
        "",
        "bytes 0-9",
        "bytes=0-9/*",
        "bytes 9-0/*",
        "bytes x-9/*",
        "bytes 0-18446744073709551615/*",
        "bytes 0-9/9",
    ] {
        ask.chunk(id, range, ten()).await.is(400).json();
    }
    ask.chunk(id, "bytes 99999999999-99999999999/*", "x".into())
        .await
        .is(413)
        .json();
    // More and fewer bytes than the range has.
    ask.chunk(id, "bytes 0-8/*", ten()).await.is(400).json();
    ask.chunk(id, "bytes 0-10/*", ten()).await.is(400).json();
    ask.commit(id, 10).await.is(400).json();
    for unknown in [1, 0, 1 << 60] {
        ask.chunk(unknown, "bytes 0-9/*", ten())
            .await
            .is(404)
            .json();
        ask.commit(unknown, 10).await.is(404).json();
    }
    ask.first(Method::POST, "caches/x", Some(&json!({"size": 1})))
        .await
        .is(404)
        .json();
    ask.first(Method::POST, "caches/-1", Some(&json!({"size": 1})))
        .await
        .is(404)
        .json();

    for (key, ranges, size) in [
        ("gap", &["bytes 0-9/*", "bytes 20-29/*"][..], 20),
        ("gap and size", &["bytes 0-9/*", "bytes 20-29/*"], 30),
        ("overlap", &["bytes 0-9/*", "bytes 5-14/*"], 15),
        (
            "overlap and gap",
            &["bytes 0-9/*", "bytes 5-14/*", "bytes 20-29/*"],
            30,
        ),
        ("not from the start", &["bytes 10-19/*"], 10),
        ("short", &["bytes 0-9/*"], 11),
        ("long", &["bytes 0-9/*"], 9),
        ("nothing", &[], 10),
    ] {
        let id = reserve(key).await;
        for range in ranges {
            ask.chunk(id, range, ten()).await.is(204);
        }
        ask.commit(id, size).await.is(400).json();
        assert_eq!(ask.find(&[key], VERSION).await, None, "{key}");
    }
    assert_nothing_listed(&hub).await;
    let id = reserve("in any order").await;
    for (range, bytes) in [
        ("bytes 10-19/*", "abcdefghij"),
        ("bytes 0-9/*", "0123456789"),
    ] {
        ask.chunk(id, range, bytes.into()).await.is(204);
    }
    ask.commit(id, 20).await.is(204);
    let restored = ask.restored(&["in any order"], VERSION).await.unwrap();
    assert_eq!(restored, "0123456789abcdefghij");
    ask.chunk(id, "bytes 0-9/*", ten()).await.is(409).json();
}

#[tokio::test]
async fn lists_of_what_never_came_and_blocks_without_a_name_are_refused() {
    let lab = Lab::new();
    let (hub, ask) = start(&lab).await;
    let url = ask.reserved("key", VERSION).await;
    ask.put_block(&url, "a", "content").await.is(201);
    ask.put_list(&url, &["a", "b"]).await.is(400).json();
    for list in [
        "",
        "<BlockList>",
        "{}",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><BlockList><Latest>&b;</Latest></BlockList>",
        "<BlockList><Other>YQ==</Other></BlockList>",
    ] {
        let url = format!("{url}&comp=blocklist");
        let refused = ask.request(Method::PUT, &url, &[], list).await.is(400);
        assert_eq!(refused.header("x-ms-error-code"), "InvalidInput");
        refused.json();
    }
    for more in [
        "&comp=block",
        "&comp=block&blockid=",
        "&comp=block&blockid=a%20b",
        "&comp=page",
    ] {
        ask.put_whole(&format!("{url}{more}"), "content")
            .await
            .is(400)
            .json();
    }
    let kind = [("x-ms-blob-type", "PageBlob")];
    ask.request(Method::PUT, &url, &kind, "content")
        .await
        .is(400)
        .json();
    let list = format!("{url}&comp=blocklist");
    let large = ask.request(Method::PUT, &list, &[], vec![b' '; 9 << 20]);
    large.await.is(413).json();
    // Neither what is not there, nor another size.
    ask.finalize("key", VERSION, 8).await.is(400).json();
    ask.finalize("other", VERSION, 7).await.is(404).json();
    ask.finalize("key", "another", 7).await.is(404).json();
    assert_eq!(ask.find(&["key"], VERSION).await, None);
    assert_nothing_listed(&hub).await;
}

#[tokio::test]
async fn an_upload_of_nothing_becomes_nothing_and_an_empty_file_an_entry() {
    let lab = Lab::new();
    let (hub, ask) = start(&lab).await;
    let name = json!({"key": "key", "version": VERSION});
    let url = ask.reserved("key", VERSION).await;
    let nothing = ask.twirp("FinalizeCacheEntryUpload", &name).await;
    nothing.is(400).json();
    ask.finalize("key", VERSION, 0).await.is(400).json();
    assert_nothing_listed(&hub).await;
    ask.put_list(&url, &[]).await.is(201);
    ask.twirp("FinalizeCacheEntryUpload", &name).await.is(200);
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "");
    // A client of the first version sends no chunk of it.
    let reserved = ask.reserve("first", VERSION).await.is(201).json();
    let id = reserved["cacheId"].as_i64().unwrap();
    ask.commit(id, 0).await.is(204);
    assert_eq!(ask.restored(&["first"], VERSION).await.unwrap(), "");
}

#[tokio::test]
async fn parameters_that_come_twice_are_refused_and_destroy_nothing() {
    let lab = Lab::new();
    let (_hub, ask) = start(&lab).await;
    let url = ask.reserved("key", VERSION).await;
    ask.put_block(&url, "a", "content").await.is(201);
    for more in [
        "&comp=block&comp=blocklist",
        "&comp=blocklist&comp=blocklist",
        "&comp=block&blockid=YQ%3D%3D&blockid=YQ%3D%3D",
    ] {
        let refused = ask.put_whole(&format!("{url}{more}"), "other").await;
        refused.is(400).json();
    }
    ask.put_list(&url, &["a"]).await.is(201);
    ask.finalize("key", VERSION, 7).await.is(200);
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "content");
}

#[tokio::test]
async fn a_layer_that_is_another_and_an_index_that_is_none_are_not_kept() {
    let lab = Lab::new();
    let (hub, ask) = start(&lab).await;
    let layer = layerd::digest::Digest::of(b"layer");
    let key = format!("buildkit-blob-1-{layer}");
    let url = ask.reserved(&key, BUILDKIT).await;
    ask.put_whole(&url, "other").await.is(201);
    ask.finalize(&key, BUILDKIT, 5).await.is(400).json();
    assert_eq!(ask.find(&[&key], BUILDKIT).await, None);
    let hash = &layerd::digest::Digest::of(b"refs/heads/main").to_string()["sha256:".len()..][..8];
    let index = format!("index-buildkit-1-{hash}#1");
    for document in [
        "",
        "{",
        "[]",
        "{\"layers\":[{\"blob\":\"x\"}],\"records\":[]}",
        &format!(
            "{{\"layers\":[{{\"blob\":\"{layer}\",\"parent\":-1,\"annotations\":{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"diffID\":\"{layer}\",\"size\":5}}}}],\"records\":[{{\"digest\":\"{layer}\",\"layers\":[{{\"layer\":0}}]}}]}}"
        ),
    ] {
        let url = ask.reserved(&index, BUILDKIT).await;
        ask.put_whole(&url, document.to_owned()).await.is(201);
        let refused = ask.finalize(&index, BUILDKIT, document.len()).await;
        assert!(
            (400..500).contains(&refused.status),
            "{document}: {refused:?}"
        );
        refused.json();
    }
    let index = format!("index-buildkit-1-{hash}");
    assert_eq!(ask.find(&[&index], BUILDKIT).await, None);
    assert_nothing_listed(&hub).await;
}

#[tokio::test]
async fn ranges_that_there_are_not_are_told_and_what_is_sent_is_never_compressed() {
    let lab = Lab::new();
    let (_hub, ask) = start(&lab).await;
    ask.save("key", VERSION, Bytes::from(vec![b'a'; 100_000]))
        .await;
    let (_, url) = ask.find(&["key"], VERSION).await.unwrap();
    let all = ask
        .get(&url, &[("accept-encoding", "gzip, br, zstd")])
        .await
        .is(200);
    assert_eq!(all.body.len(), 100_000);
    assert_eq!(all.header("content-length"), "100000");
    assert!(all.headers.get("content-encoding").is_none());
    let etag = all.header("etag").to_owned();
    for (name, range) in [
        ("range", "bytes=100000-"),
        ("x-ms-range", "bytes=100000-"),
        ("x-ms-range", "bytes=9-1"),
        ("x-ms-range", "pages=0-1"),
    ] {
        let refused = ask.get(&url, &[(name, range)]).await.is(416);
        assert_eq!(refused.header("x-ms-error-code"), "InvalidRange");
    }
    let part = ask
        .get(&url, &[("x-ms-range", "bytes=99990-")])
        .await
        .is(206);
    assert_eq!(part.header("content-range"), "bytes 99990-99999/100000");
    assert_eq!(part.header("content-length"), "10");
    ask.get(&url, &[("if-match", &etag), ("range", "bytes=0-0")])
        .await
        .is(206);
    ask.get(&url, &[("if-match", "\"other\"")])
        .await
        .is(412)
        .json();
    ask.save("empty", VERSION, Bytes::new()).await;
    let (_, url) = ask.find(&["empty"], VERSION).await.unwrap();
    let empty = ask.get(&url, &[]).await.is(200);
    assert_eq!(empty.header("content-length"), "0");
    ask.get(&url, &[("range", "bytes=0-")]).await.is(416);
}

/// One that says more than it sends, and one that stops in the middle.
#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let lab = Lab::new();
    let (hub, ask) = start(&lab).await;
    let url = ask.reserved("key", VERSION).await;
    let path = url.strip_prefix(hub.url()).unwrap();
    let mut stream = TcpStream::connect(hub.address()).await.unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 100000\r\n\r\n",
        hub.address()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 5000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    drop(stream);
    let broken = "layerd_gha_requests_total{operation=\"upload\",outcome=\"cancelled\"}";
    until("the hub has given it up", async || {
        let metrics = Metrics::at(hub.metrics_address()).await;
        (metrics.value(broken) > 0.0).then_some(())
    })
    .await;
    ask.finalize("key", VERSION, 5000).await.is(400).json();
    ask.put_whole(&url, "content").await.is(201);
    ask.finalize("key", VERSION, 7).await.is(200);
    assert_eq!(ask.restored(&["key"], VERSION).await.unwrap(), "content");
}
