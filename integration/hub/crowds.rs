//! More streams and connections than any runner has: bounded, and others are
//! served meanwhile.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::access::{Gate, claims, signed, with};
use super::ask::{described, export, look_up, noise};
use super::blobs::{begin, open};
use super::{place, upload};
use crate::harness::grpc::{Grpc, Sender};
use crate::harness::{Hub, Lab, Metrics, until};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// What a crowd may cost.
const LIMIT: u64 = 256 << 20;

async fn gauge(hub: &Hub, name: &str) -> f64 {
    Metrics::at(hub.metrics_address()).await.sum(name)
}

async fn assert_back_to(hub: &Hub, name: &str, value: f64) {
    until(name, async || {
        (gauge(hub, name).await == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn thousands_of_connections_and_streams_take_little_and_keep_nobody_out() {
    let lab = Lab::new();
    let hub = lab.hub("one");
    let hub = hub.arguments(["--max-connections-per-address", "2100"]);
    let hub = hub.start().await;
    let idle = join_all((0..2000).map(|_| async {
        let mut stream = TcpStream::connect(hub.address()).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        stream
    }))
    .await;
    let streams = silent(&hub, [20, 90], &HeaderMap::new()).await;
    assert!(streams.iter().all(|(_, streams)| refused(streams) == 0));
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    export(&mut client, &main, &[noise(1, 300_000)], "x").await;
    assert!(look_up(&mut client, &main, false).await.unwrap().is_some());
    let peak = hub.peak_memory();
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
    drop((idle, streams));
    assert_back_to(&hub, "layerd_hub_running_calls", 0.0).await;
}

type Streams = Vec<(Sender, Response<Incoming>)>;

/// Calls that have begun and say nothing, so many on each of so many
/// connections.
async fn silent(
    hub: &Hub,
    [connections, each]: [usize; 2],
    headers: &HeaderMap,
) -> Vec<(Grpc, Streams)> {
    let connections = (0..connections).map(|_| async {
        let grpc = Grpc::connect(hub.url()).await;
        let streams = (0..each).map(|_| grpc.stream("/layerd.v1.Cache/WriteBlob", headers));
        let streams = join_all(streams).await;
        (grpc, streams)
    });
    join_all(connections).await
}

/// Those of them that were refused at once.
fn refused(streams: &Streams) -> usize {
    let statuses = streams
        .iter()
        .filter_map(|(_, response)| response.headers().get("grpc-status"));
    statuses.filter(|status| *status == "8").count()
}

#[tokio::test]
async fn one_client_has_so_many_calls_open_and_nobody_else_is_kept_out_by_it() {
    let gate = Gate::new().await;
    let hub = &gate.hub;
    let token = |subject: &str| signed("first", &with(claims(&["**"], &["**"]), "sub", subject));
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", token("crowd"));
    headers.insert("authorization", bearer.parse().unwrap());
    let crowd = silent(hub, [25, 100], &headers).await;
    let turned_away: usize = crowd.iter().map(|(_, streams)| refused(streams)).sum();
    assert!((1..=452).contains(&turned_away), "{turned_away}");
    let mut client = hub.client(Some(&token("honest"))).await;
    let main = place("p", "main");
    export(&mut client, &main, &[noise(1, 300_000)], "x").await;
    assert!(look_up(&mut client, &main, false).await.unwrap().is_some());
    let peak = hub.peak_memory();
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
    let log = hub.log();
    let told = log.matches("too many calls open").count();
    assert!((1..turned_away.max(2)).contains(&told), "{told}");
    // Who says nothing is not waited for.
    assert_back_to(hub, "layerd_hub_running_calls", 0.0).await;
    let (grpc, _) = &crowd[0];
    let (_, response) = grpc.stream("/layerd.v1.Cache/WriteBlob", &headers).await;
    assert_eq!(response.headers().get("grpc-status"), None);
}

#[tokio::test]
async fn whoever_has_no_token_has_a_hub_keep_nothing() {
    let lab = Lab::new();
    let key = lab.path("ci.pem").display().to_string();
    crate::harness::layerd(["token", "key", "-o", &key])
        .await
        .ok();
    let hub = lab.hub("one");
    let hub = hub.arguments(["--token-key-file", &key]).start().await;
    let before = hub.peak_memory();
    // Most of a message of 4 MB each.
    let mut begun = vec![0, 0, 0x3f, 0, 0];
    begun.resize(3 << 20, 0);
    let begun = Bytes::from(begun);
    let mut streams = Vec::new();
    let grpc = Grpc::connect(hub.url()).await;
    for _ in 0..100 {
        let (sender, response) = grpc
            .stream("/layerd.v1.Cache/Steps", &HeaderMap::new())
            .await;
        let status = response.headers().get("grpc-status");
        assert_eq!(status.unwrap(), "16", "{response:?}");
        sender.send(begun.clone());
        streams.push((sender, response));
    }
    let metrics = Metrics::at(hub.metrics_address()).await;
    let refused = "layerd_hub_calls_total{method=\"steps\",outcome=\"unauthenticated\"}";
    assert_eq!(metrics.value(refused), 100.0);
    let grown = hub.peak_memory() - before;
    assert!(grown < 32 << 20, "{} MiB", grown >> 20);
}

#[tokio::test]
async fn calls_that_were_cancelled_wait_for_nothing_and_are_counted() {
    let lab = Lab::new();
    let hub = lab.hub("one").environment("LAYERD_MAX_UPLOADS", "1");
    let hub = hub.start().await;
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    let (first, _) = described(&noise(1, 10));
    let mut holder = begin(&mut client, open(&main, &first)).await.unwrap();
    holder.offset().await.unwrap();
    for seed in 10..310 {
        let (digest, _) = described(&noise(seed, 10));
        let mut waiting = begin(&mut client, open(&main, &digest)).await.unwrap();
        let cut = tokio::time::timeout(Duration::from_millis(1), waiting.offset()).await;
        drop((cut, waiting));
    }
    drop(holder);
    assert_back_to(&hub, "layerd_hub_running_calls", 0.0).await;
    let metrics = Metrics::at(hub.metrics_address()).await;
    let cancelled = "layerd_hub_calls_total{method=\"write_blob\",outcome=\"cancelled\"}";
    assert!(metrics.value(cancelled) >= 300.0, "{metrics:#?}");
    assert_eq!(upload(&mut client, &main, &noise(2, 10)).await.unwrap(), 10);
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_it_may() {
    let lab = Lab::new();
    let hub = lab.hub("one");
    let hub = hub.arguments(["--max-connections-per-address", "3"]);
    let hub = hub.start().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(hub.address()).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        open.push(stream);
    }
    assert_back_to(&hub, "layerd_hub_connections", 3.0).await;
    let mut one_more = TcpStream::connect(hub.address()).await.unwrap();
    let ended = one_more.read(&mut [0]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    open.pop();
    assert_back_to(&hub, "layerd_hub_connections", 2.0).await;
    let main = place("p", "main");
    let mut client = hub.client(None).await;
    assert!(look_up(&mut client, &main, false).await.unwrap().is_none());
}
