//! What no honest sidecar sends: the right status, nothing stored, counted, and
//! every other call untouched.

use bytes::Bytes;
use layerd::cache::wire::v1::write_blob_request::{Commit, Part, Piece};
use layerd::cache::wire::{checksum, v1};
use layerd::digest::Digest;
use tonic::{Code, Status};

use super::ask::{described, export, held, look_up, missing, noise, publication, publish, suspect};
use super::blobs::{Begun, begin, commit, open, piece};
use super::{place, read, upload};
use crate::harness::grpc::{Grpc, frame};
use crate::harness::{Hub, HubClient, Lab, Metrics};

const UNIMPLEMENTED: i32 = 12;
const INVALID_ARGUMENT: i32 = 3;
const OUT_OF_RANGE: i32 = 11;

struct Bench {
    hub: Hub,
    client: HubClient,
    _lab: Lab,
}

impl Bench {
    async fn new() -> Self {
        let lab = Lab::new();
        let hub = lab.hub("one").start().await;
        Self {
            client: hub.client(None).await,
            hub,
            _lab: lab,
        }
    }

    /// The hub has stored nothing so far, did not panic, and is well.
    async fn assert_unharmed(mut self) {
        let blobs = std::fs::read_dir(self.hub.data_dir().join("blobs/sha256"));
        assert_eq!(blobs.into_iter().flatten().count(), 0, "blobs were stored");
        let layer = noise(1, 100_000);
        let main = place("p", "main");
        export(&mut self.client, &main, std::slice::from_ref(&layer), "x").await;
        let import = look_up(&mut self.client, &main, false).await.unwrap();
        assert_eq!(import.unwrap().layers.len(), 1);
        let log = self.hub.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    async fn counted(&self, method: &str, outcome: &str) -> f64 {
        let metrics = Metrics::at(self.hub.metrics_address()).await;
        let labels = format!("method=\"{method}\",outcome=\"{outcome}\"");
        metrics.value(&format!("layerd_hub_calls_total{{{labels}}}"))
    }
}

#[tokio::test]
async fn what_is_no_method_and_no_message_is_refused_and_counted() {
    let bench = Bench::new().await;
    let grpc = Grpc::connect(bench.hub.url()).await;
    for method in [
        "/layerd.v1.Cache/Nothing",
        "/layerd.v2.Cache/LookUp",
        "/layerd.v1.Cache/lookup",
        "/x",
        "/",
        "/moby.buildkit.v1.Control/Solve",
    ] {
        let answer = grpc.call(method, frame(b"")).await;
        assert_eq!(answer.code, UNIMPLEMENTED, "{method}: {answer:?}");
    }
    assert_eq!(bench.counted("unknown", "invalid").await, 6.0);

    let garbage: [Bytes; 4] = [
        frame(&[0xff; 40]),
        frame(&[0x0a, 0x7f, 1]),
        // Cut short, and compressed without saying how.
        Bytes::from_static(&[0, 0, 0, 0, 9, 1]),
        Bytes::from_static(&[1, 0, 0, 0, 1, 0]),
    ];
    let methods = [
        ("LookUp", "look_up"),
        ("FindMissing", "find_missing"),
        ("ReadBlob", "read_blob"),
        ("WriteBlob", "write_blob"),
        ("Publish", "publish"),
        ("Steps", "steps"),
    ];
    for (method, name) in methods {
        for body in &garbage {
            let method = format!("/layerd.v1.Cache/{method}");
            let answer = grpc.call(&method, body.clone()).await;
            assert!(
                [INVALID_ARGUMENT, UNIMPLEMENTED].contains(&answer.code),
                "{method}: {answer:?}"
            );
        }
        assert_eq!(bench.counted(name, "invalid").await, 4.0, "{method}");
    }
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn a_message_past_the_limit_takes_no_memory() {
    let bench = Bench::new().await;
    let grpc = Grpc::connect(bench.hub.url()).await;
    let before = bench.hub.peak_memory();
    for method in ["LookUp", "WriteBlob", "Publish", "FindMissing"] {
        let method = format!("/layerd.v1.Cache/{method}");
        let answer = grpc.call(&method, frame(&vec![0; 5 << 20])).await;
        assert_eq!(answer.code, OUT_OF_RANGE, "{method}: {answer:?}");
        let announced = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        let answer = grpc.call(&method, announced).await;
        assert_eq!(answer.code, OUT_OF_RANGE, "{method}: {answer:?}");
    }
    let grown = bench.hub.peak_memory() - before;
    assert!(grown < 48 << 20, "{grown} bytes for nothing");
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn a_name_that_could_be_a_trick_is_refused_everywhere() {
    let mut bench = Bench::new().await;
    let long = "x".repeat(10 << 10);
    let bad = [
        "",
        "..",
        "../../etc",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        "a\0b",
        "a\nb",
        "a\u{7f}b",
        "a b",
        "a.lock",
        "\\a",
        &long,
    ];
    let client = &mut bench.client;
    let digest = Digest::of(b"x");
    for name in bad {
        for at in [place(name, "main"), place("p", name)] {
            let mut answers = vec![
                look_up(client, &at, true).await.map(drop),
                held(client, &at, &[digest]).await.map(drop),
                upload(client, &at, &noise(1, 10)).await.map(drop),
                publish(client, &at, &[], "x").await.map(drop),
            ];
            let place = Some(at.clone());
            let writable = client.writable(v1::WritableRequest { place });
            answers.push(writable.await.map(drop));
            if at.project == name {
                answers.push(read(client, name, &digest, 0).await.map(drop));
                answers.push(suspect(client, name, &digest).await.map(drop));
            }
            for answer in answers {
                let status = answer.unwrap_err();
                assert_eq!(status.code(), Code::InvalidArgument, "{name:?}: {status:?}");
                let text = status.message();
                assert!(
                    text.len() < 300 && !text.contains(char::is_control),
                    "{text}"
                );
            }
        }
    }
    bench.assert_unharmed().await;
}

/// The end of an upload that was sent so.
async fn ended(begun: &mut Begun, last: v1::WriteBlobRequest) -> Status {
    begun.pieces.send(last).await.unwrap();
    begun.stored().await.unwrap_err()
}

#[tokio::test]
async fn a_blob_is_what_its_client_says_or_it_is_not_stored() {
    let mut bench = Bench::new().await;
    let content = noise(2, 1000);
    let (digest, size) = described(&content);
    let other = Digest::of(b"other");
    let damaged = v1::WriteBlobRequest {
        part: Some(Part::Piece(Piece {
            crc32c: checksum(&content) ^ 1,
            bytes: content.clone(),
        })),
    };
    let no_digest = v1::WriteBlobRequest {
        part: Some(Part::Commit(Commit {
            digest: Bytes::from_static(b"short"),
            size,
        })),
    };
    for (pieces, last, code) in [
        (true, commit(&other, size), Code::InvalidArgument),
        (true, commit(&digest, size + 1), Code::InvalidArgument),
        (true, commit(&digest, 1 << 40), Code::InvalidArgument),
        (true, no_digest, Code::InvalidArgument),
        (false, commit(&digest, size), Code::InvalidArgument),
        (false, commit(&digest, 0), Code::InvalidArgument),
        (false, damaged, Code::Aborted),
        (
            true,
            open(&place("p", "main"), &digest),
            Code::InvalidArgument,
        ),
    ] {
        let mut first = open(&place("p", "main"), &Digest::of(&rand::random::<[u8; 8]>()));
        if let Some(Part::Open(open)) = &mut first.part {
            open.digest = Bytes::new();
        }
        let mut begun = begin(&mut bench.client, first).await.unwrap();
        assert_eq!(begun.offset().await.unwrap(), Some(0));
        if pieces {
            begun.pieces.send(piece(content.clone())).await.unwrap();
        }
        let status = ended(&mut begun, last).await;
        assert_eq!(status.code(), code, "{status:?}");
    }
    // Other bytes than the digest that was told at first.
    let first = open(&place("p", "main"), &other);
    let mut begun = begin(&mut bench.client, first).await.unwrap();
    assert_eq!(begun.offset().await.unwrap(), Some(0));
    begun.pieces.send(piece(content.clone())).await.unwrap();
    let status = ended(&mut begun, commit(&digest, size)).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    for first in [piece(content.clone()), commit(&digest, size)] {
        let mut begun = begin(&mut bench.client, first).await.unwrap();
        let status = begun.offset().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let sizes = held(&mut bench.client, &place("p", "main"), &[other, digest]).await;
    assert_eq!(sizes.unwrap(), [None, None]);
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn an_export_is_what_it_announces_or_it_is_not_published() {
    let mut bench = Bench::new().await;
    let main = place("p", "main");
    let layer = (Digest::of(b"never sent"), 10);
    let refused = publish(&mut bench.client, &main, &[layer], "x").await;
    assert_eq!(missing(&refused.unwrap_err()), [layer.0]);

    let good = || publication(&main, &[], "x");
    let sized = |bytes: u64| {
        let mut messages = good();
        if let Some(v1::publish_request::Part::Export(export)) = &mut messages[0].part {
            export.config_bytes = bytes;
        }
        messages
    };
    let mut any_scope = main.clone();
    any_scope.scope = "*".to_owned();
    let swapped = good().into_iter().rev().collect();
    let short = good().into_iter().take(1).collect();
    let manifest_of_another = [
        publication(&main, &[layer], "x").swap_remove(0),
        good().swap_remove(1),
        good().swap_remove(2),
    ];
    let mut named = good();
    if let Some(v1::publish_request::Part::Export(export)) = &mut named[0].part {
        export.builder = "a\nb".to_owned();
    }
    for messages in [
        sized(1 << 40),
        sized(65 << 20),
        sized(1),
        sized(1 << 20),
        sized(u64::MAX),
        swapped,
        short,
        publication(&any_scope, &[], "x"),
        manifest_of_another.to_vec(),
        named,
        Vec::new(),
    ] {
        let answer = bench.client.publish(tokio_stream::iter(messages)).await;
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    assert!(
        look_up(&mut bench.client, &main, false)
            .await
            .unwrap()
            .is_none()
    );
    assert!(bench.counted("publish", "invalid").await >= 11.0);
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn ranges_and_lists_past_any_limit_are_answered() {
    let mut bench = Bench::new().await;
    let main = place("p", "main");
    let many = vec![Digest::of(b"x"); 10_001];
    let status = held(&mut bench.client, &main, &many).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let request = v1::FindMissingRequest {
        project: "p".to_owned(),
        git_ref: "main".to_owned(),
        digests: vec![0; 33].into(),
    };
    let status = bench.client.find_missing(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let wants = vec![v1::Want::default(); 65];
    let request = v1::LookUpRequest {
        wants,
        ..v1::LookUpRequest::default()
    };
    let status = bench.client.look_up(request).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let layer = noise(1, 100_000);
    let client = &mut bench.client;
    export(client, &main, std::slice::from_ref(&layer), "y").await;
    let digest = Digest::of(&layer);
    for offset in [100_000, 100_001, u64::MAX] {
        match read(client, "p", &digest, offset).await {
            Ok(bytes) => assert!(bytes.is_empty(), "{offset}"),
            Err(status) => assert_eq!(status.code(), Code::OutOfRange, "{status:?}"),
        }
    }
    let mut request = v1::ReadBlobRequest {
        projects: vec!["p".to_owned()],
        digest: digest.as_bytes().to_vec().into(),
        offset: 99_999,
        length: u64::MAX,
        takes_url: true,
    };
    let mut answers = client
        .read_blob(request.clone())
        .await
        .unwrap()
        .into_inner();
    let last = answers.message().await.unwrap().unwrap();
    assert_eq!(last.bytes, layer.slice(99_999..));
    request.projects = vec!["p".to_owned(); 65];
    let status = client.read_blob(request).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let log = bench.hub.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_message_that_unpacks_to_too_much_is_too_long() {
    let bench = Bench::new().await;
    let grpc = Grpc::connect(bench.hub.url()).await;
    let packed = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
    assert!(packed.len() < 64 << 10);
    let mut bomb = frame(&packed).to_vec();
    bomb[0] = 1;
    let mut headers = http::HeaderMap::new();
    headers.insert("grpc-encoding", "zstd".parse().unwrap());
    for (method, name) in [("WriteBlob", "write_blob"), ("Steps", "steps")] {
        let path = format!("/layerd.v1.Cache/{method}");
        let answer = grpc.call_with(&path, &headers, bomb.clone().into()).await;
        assert_eq!(answer.code, OUT_OF_RANGE, "{method}: {answer:?}");
        assert_eq!(bench.counted(name, "invalid").await, 1.0, "{method}");
    }
    bench.assert_unharmed().await;
}
