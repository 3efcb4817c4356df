//! Clients that are slow, or silent, hold nothing up.

use std::time::Duration;

use bytes::Bytes;
use layerd::cache::wire::v1;
use layerd::cache::wire::v1::publish_request::Part;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;

use super::ask::{described, export, look_up, noise, publication, publish};
use super::blobs::{begin, commit, open, piece};
use super::{place, upload};
use crate::harness::{Build, Hub, Lab, Metrics, Runner, until};

/// What a client of HTTP/2 says first: the preface, and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A gauge of a hub.
async fn gauge(hub: &Hub, name: &str) -> f64 {
    Metrics::at(hub.metrics_address()).await.sum(name)
}

/// Sends bytes one by one, so slowly, until the hub hangs up.
async fn dribble(address: String, bytes: Bytes, pause: Duration) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = async {
        for byte in bytes.chunks(1).cycle() {
            if writing.write_all(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    };
    let ended = async {
        let mut answer = Vec::new();
        // How the hub hangs up is its own affair.
        let _ = reading.read_to_end(&mut answer).await;
    };
    tokio::select! {
        () = sending => {}
        () = ended => {}
    }
}

#[tokio::test]
async fn connections_that_never_say_hello_are_ended() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let mut slow = JoinSet::new();
    for bytes in [&HELLO[..1], HELLO] {
        for _ in 0..20 {
            let bytes = Bytes::from_static(bytes);
            let pause = Duration::from_secs(1);
            slow.spawn(dribble(hub.address().to_owned(), bytes, pause));
        }
    }
    for _ in 0..20 {
        let address = hub.address().to_owned();
        slow.spawn(async move {
            let mut silent = TcpStream::connect(address).await.unwrap();
            let _ = silent.read_to_end(&mut Vec::new()).await;
        });
    }
    let mut client = hub.client(None).await;
    export(&mut client, &place("p", "main"), &[noise(1, 1000)], "x").await;
    // The hub's own limit ends them all.
    let all = tokio::time::timeout(crate::harness::DEADLINE, async {
        while slow.join_next().await.is_some() {}
    });
    all.await.expect("they are ended");
    until("one connection is left", async || {
        (gauge(&hub, "layerd_hub_connections").await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn silent_uploads_give_their_places_up_and_go_on() {
    // Of which one client has half.
    let lab = Lab::new();
    let hub = lab
        .hub("one")
        .arguments(["--max-uploads", "8"])
        .start()
        .await;
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    let mut silent = Vec::new();
    for seed in 0..4 {
        let content = noise(seed, 700_000);
        let (digest, _) = described(&content);
        let mut begun = begin(&mut client, open(&main, &digest)).await.unwrap();
        assert_eq!(begun.offset().await.unwrap(), Some(0));
        begun
            .pieces
            .send(piece(content.slice(..300_000)))
            .await
            .unwrap();
        silent.push((begun, content));
    }
    assert_eq!(gauge(&hub, "layerd_hub_uploads").await, 4.0);
    let mut other = hub.client(None).await;
    let layer = noise(9, 100_000);
    let sent = upload(&mut other, &main, &layer).await.unwrap();
    assert_eq!(sent, 100_000);
    for (mut begun, content) in silent {
        let (digest, size) = described(&content);
        begun
            .pieces
            .send(piece(content.slice(300_000..)))
            .await
            .unwrap();
        begun.pieces.send(commit(&digest, size)).await.unwrap();
        assert_eq!(begun.stored().await.unwrap(), size);
    }
}

#[tokio::test]
async fn uploads_that_crawl_let_the_others_pass_and_come_to_their_end() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let main = place("p", "main");
    let (done, passed) = tokio::sync::watch::channel(false);
    let mut crawling = JoinSet::new();
    // All places that one client can have.
    for seed in 0..4 {
        let (mut client, main, passed) = (hub.client(None).await, main.clone(), passed.clone());
        crawling.spawn(async move {
            let content = noise(seed, 40_000_000);
            let (digest, size) = described(&content);
            let mut begun = begin(&mut client, open(&main, &digest)).await.unwrap();
            assert_eq!(begun.offset().await.unwrap(), Some(0));
            for at in (0..content.len()).step_by(100_000) {
                let next = content.slice(at..content.len().min(at + 100_000));
                begun.pieces.send(piece(next)).await.unwrap();
                if !*passed.borrow() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            begun.pieces.send(commit(&digest, size)).await.unwrap();
            assert_eq!(begun.stored().await.unwrap(), size);
        });
    }
    until("they have all places", async || {
        (gauge(&hub, "layerd_hub_uploads").await == 4.0).then_some(())
    })
    .await;
    // A sidecar, that would take a hub which says nothing for a sick one.
    let sidecar = lab
        .sidecar("one")
        .arguments(["--hub", hub.url(), "--project", "p"]);
    let runner = Runner::start(lab.buildkitd("one"), sidecar).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_to("type=gha-compatible,ref=main,mode=max,ignore-error=false");
    let outcome = lab.buildctl(runner.address()).build(&build).await.ok();
    outcome.assert_no_warning();
    done.send(true).unwrap();
    while let Some(ended) = crawling.join_next().await {
        ended.expect("it came to its end");
    }
}

#[tokio::test]
async fn an_export_that_stays_silent_lets_the_others_in() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    let mut silent = JoinSet::new();
    for _ in 0..8 {
        let mut first = publication(&main, &[], "x").swap_remove(0);
        if let Some(Part::Export(export)) = &mut first.part {
            export.config_bytes = 60 << 20;
        }
        let messages = tokio_stream::StreamExt::chain(
            tokio_stream::iter([first]),
            tokio_stream::pending::<v1::PublishRequest>(),
        );
        let mut client = client.clone();
        silent.spawn(async move { client.publish(messages).await.map(drop) });
    }
    until("they run", async || {
        (gauge(&hub, "layerd_hub_running_calls").await >= 8.0).then_some(())
    })
    .await;
    let layer = noise(1, 1000);
    upload(&mut client, &main, &layer).await.unwrap();
    let layers = [described(&layer)];
    publish(&mut client, &main, &layers, "y").await.unwrap();
    assert!(look_up(&mut client, &main, true).await.unwrap().is_some());
    silent.abort_all();
    while let Some(ended) = silent.join_next().await {
        if let Ok(answer) = ended {
            // It said nothing, or found no room.
            let code = answer.unwrap_err().code();
            let refused = matches!(code, Code::DeadlineExceeded | Code::ResourceExhausted);
            assert!(refused, "{code:?}");
        }
    }
}
