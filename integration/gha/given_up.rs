//! Uploads whose client goes away, or loses its right, before they are done.

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::ask::{Ask, VERSION};
use crate::harness::{Hub, HubSpec, Lab, Metrics, layerd, layerd_with, objects, until};
use crate::hub::{Gate, claims, noise, signed, with};

async fn outcomes(hub: &Hub, outcome: &str) -> f64 {
    let metrics = Metrics::at(hub.metrics_address()).await;
    let series = format!("layerd_gha_requests_total{{operation=\"upload\",outcome=\"{outcome}\"}}");
    metrics.value(&series)
}

/// Begins a request with `head`, sends `body`, and goes away.
async fn leaves(hub: &Hub, head: &str, body: &[u8]) {
    let before = outcomes(hub, "cancelled").await;
    let mut stream = TcpStream::connect(hub.address()).await.unwrap();
    let head = format!("{head}\r\nHost: {}\r\n\r\n", hub.address());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    drop(stream);
    until("the hub has given it up", async || {
        (outcomes(hub, "cancelled").await > before).then_some(())
    })
    .await;
}

/// With a quota that has room for one of them.
async fn counts_for_nothing(spec: HubSpec, size: usize) -> Hub {
    let quota = format!("default={}", size * 5 / 4);
    let hub = spec.arguments(["--quota", &quota]).start().await;
    let ask = Ask::new(hub.url(), None);
    let url = ask.reserved("key", VERSION).await;
    let path = url.strip_prefix(hub.url()).unwrap();
    let reserved = ask.reserve("first", VERSION).await.is(201).json();
    let id = reserved["cacheId"].as_i64().unwrap();
    let half = noise(1, size / 2);
    let chunk = [format!("{:x}\r\n", half.len()).as_bytes(), &half].concat();
    for _ in 0..3 {
        let whole = format!("PUT {path} HTTP/1.1\r\nContent-Length: {size}");
        leaves(&hub, &whole, &half).await;
        let block =
            format!("PUT {path}&comp=block&blockid=YWJj HTTP/1.1\r\nContent-Length: {size}");
        leaves(&hub, &block, &half).await;
        let first = format!(
            "PATCH /_apis/artifactcache/caches/{id} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\
             Content-Range: bytes 0-{}/*",
            size - 1
        );
        leaves(&hub, &first, &chunk).await;
    }
    assert_eq!(ask.find(&["key", "first", "k"], VERSION).await, None);
    ask.finalize("key", VERSION, size / 2).await.is(400);
    ask.commit(id, size / 2).await.is(400);
    let content = noise(2, size);
    ask.put_whole(&url, content.clone()).await.is(201);
    ask.finalize("key", VERSION, size).await.is(200);
    assert!(ask.restored(&["key"], VERSION).await.unwrap() == content);
    hub
}

#[tokio::test]
async fn what_was_cancelled_counts_for_nothing_and_the_key_can_be_saved() {
    let lab = Lab::new();
    let hub = counts_for_nothing(lab.hub("hub"), 800_000).await;
    let bytes = walk(&hub.data_dir().join("ingest"));
    assert_eq!(bytes, 0, "are left of what was cancelled");
    let dir = hub.data_dir().display().to_string();
    layerd(["cache", "fsck", "--data-dir", &dir]).await.ok();
}

/// In parts, of which some were there already.
#[tokio::test]
async fn what_was_cancelled_on_its_way_to_a_bucket_counts_for_nothing() {
    let lab = Lab::new();
    let store = objects::s3().await.s3_store("gha-cancelled");
    let arguments = ["--blobs", &store, "--gha-redirect", "off"];
    let spec = lab.hub("hub").arguments(arguments);
    counts_for_nothing(spec, 40_000_000).await;
}

/// Bytes of all files below a folder.
fn walk(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => walk(&entry.path()),
        _ => entry.metadata().map_or(0, |file| file.len()),
    });
    sizes.sum()
}

/// What has come may stay for a while; it becomes nothing.
#[tokio::test]
async fn an_upload_whose_token_is_revoked_is_finished_by_nobody() {
    let gate = Gate::new().await;
    let jti = "00112233445566778899aabbccddeeff";
    let token = signed("first", &with(claims(&["**"], &["main"]), "jti", jti));
    let leaked = Ask::new(gate.hub.url(), Some(&token));
    let url = leaked.reserved("key", VERSION).await;
    leaked.put_block(&url, "1", "first ").await.is(201);
    let reserved = leaked.reserve("first", VERSION).await.is(201).json();
    let id = reserved["cacheId"].as_i64().unwrap();
    let chunk = |text: &'static str| Bytes::from_static(text.as_bytes());
    leaked
        .chunk(id, "bytes 0-4/*", chunk("first"))
        .await
        .is(204);

    let dir = gate.hub.data_dir().display().to_string();
    let revoke = ["token", "revoke", "--data-dir", &dir, "-"];
    layerd_with(revoke, &[], &token).await.ok();
    let revoked = until("it is revoked", async || {
        let answer = leaked.create("another", "v").await;
        (answer.status == 401).then_some(answer)
    })
    .await
    .json();
    assert_eq!(revoked["code"], "unauthenticated", "{revoked}");
    assert_eq!(revoked["msg"], "the token was revoked: get a new one");
    leaked.finalize("key", VERSION, 6).await.is(401).json();
    let more = leaked.chunk(id, "bytes 5-10/*", chunk("second"));
    more.await.is(401).json();
    leaked.commit(id, 5).await.is(401).json();

    let claims = with(
        claims(&["**"], &["main"]),
        "jti",
        "ffeeddccbbaa99887766554433221100",
    );
    let other = Ask::new(gate.hub.url(), Some(&signed("first", &claims)));
    assert_eq!(
        other.find(&["key", "first", "another"], VERSION).await,
        None
    );
    other.save("beside", VERSION, "fine".into()).await;
}
