//! What no honest client sends: the right gRPC error, nothing stored, no
//! panic, and every other build untouched.

use bytes::Bytes;
use prost::Message as _;

use crate::harness::control::{CacheEntry, CacheOptions, SolveRequest, files};
use crate::harness::grpc::{Grpc, frame};
use crate::harness::session::{self, BytesMessage};
use crate::harness::{Build, Lab, MULTISTAGE_STEPS, Manual, Runner, attributes};

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const GATEWAY_SOLVE: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";
const SESSION: &str = "/moby.buildkit.v1.Control/Session";

const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const INTERNAL: i32 = 13;

struct Bench {
    runner: Runner,
    grpc: Grpc,
    lab: Lab,
}

impl Bench {
    async fn new() -> Self {
        let lab = Lab::new();
        let runner = lab.runner("one", &lab.path("data")).await;
        let grpc = Grpc::connect(runner.address()).await;
        Self { runner, grpc, lab }
    }

    /// The sidecar is well, and has stored nothing so far.
    async fn assert_unharmed(&self) {
        let blobs = std::fs::read_dir(self.lab.path("data/blobs/sha256"))
            .into_iter()
            .flatten()
            .count();
        assert_eq!(blobs, 0, "blobs were stored");
        let build =
            Build::of(&self.lab.context("multistage")).cache_to("type=gha-compatible,mode=max");
        let outcome = self
            .lab
            .buildctl(self.runner.address())
            .build(&build)
            .await
            .ok();
        outcome.assert_no_warning();
        outcome.assert_all_ran(MULTISTAGE_STEPS);
        let log = self.runner.sidecar.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test]
async fn a_message_that_is_no_protobuf_is_refused() {
    let bench = Bench::new().await;
    for method in [SOLVE, GATEWAY_SOLVE] {
        for message in [
            &[0xff; 40][..],
            &[0x0a, 0x7f, 0x01],
            &[0x42, 0x05, 0x2a, 0x7f],
        ] {
            let answer = bench.grpc.call(method, frame(message)).await;
            assert!(
                [INVALID_ARGUMENT, INTERNAL].contains(&answer.code),
                "{method} {message:?}: {answer:?}"
            );
        }
    }
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn a_broken_frame_is_refused() {
    let bench = Bench::new().await;
    // Cut short, compressed without saying how, and more than was announced.
    for body in [
        &[0, 0, 0, 0, 9, 1][..],
        &[1, 0, 0, 0, 1, 0],
        &[0, 0],
        &[7, 0, 0, 0, 0],
    ] {
        for method in [SOLVE, GATEWAY_SOLVE] {
            let answer = bench.grpc.call(method, Bytes::copy_from_slice(body)).await;
            assert_ne!(answer.code, 0, "{method} {body:?}: {answer:?}");
        }
    }
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn a_message_past_the_limit_is_refused_and_one_below_it_is_not() {
    let bench = Bench::new().await;
    let padded = |bytes: usize| SolveRequest {
        frontend: "no.such.frontend".to_owned(),
        frontend_attributes: attributes([("padding", &"x".repeat(bytes))]),
        ..SolveRequest::default()
    };
    let answer = bench
        .grpc
        .call(SOLVE, frame(&padded(15 << 20).encode_to_vec()))
        .await;
    assert!(
        ![0, RESOURCE_EXHAUSTED].contains(&answer.code),
        "{answer:?}"
    );
    let answer = bench
        .grpc
        .call(SOLVE, frame(&padded(40 << 20).encode_to_vec()))
        .await;
    assert_eq!(answer.code, RESOURCE_EXHAUSTED, "{answer:?}");
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn a_length_that_never_comes_takes_no_memory() {
    let bench = Bench::new().await;
    let before = bench.runner.sidecar.peak_memory();
    let answer = bench
        .grpc
        .call(
            SOLVE,
            Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        )
        .await;
    assert_ne!(answer.code, 0, "{answer:?}");
    let grown = bench.runner.sidecar.peak_memory() - before;
    assert!(grown < 32 << 20, "{grown} bytes for nothing");
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn an_unknown_method_has_the_answer_that_it_has_without_us() {
    let bench = Bench::new().await;
    let direct = Grpc::connect(&bench.runner.buildkitd.address).await;
    for method in ["/moby.buildkit.v1.Control/Nothing", "/no.such.Service/Call"] {
        let through = bench.grpc.call(method, frame(b"")).await;
        let without = direct.call(method, frame(b"")).await;
        assert_eq!(
            (through.code, through.message),
            (without.code, without.message)
        );
    }
}

#[tokio::test]
async fn garbage_in_a_session_ends_that_session_only() {
    let bench = Bench::new().await;
    let garbage = [
        frame(&[0xff; 64]),
        frame(
            &BytesMessage {
                data: Bytes::from(vec![0x55; 100_000]),
            }
            .encode_to_vec(),
        ),
        Bytes::from_static(&[9; 64]),
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let id = format!("garbage-{number}");
        let (sender, response) = bench.grpc.stream(SESSION, &session::headers(&id)).await;
        sender.send(bytes);
        let ended = http_body_util::BodyExt::collect(response.into_body());
        // It ends by itself, in whichever way.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(60), ended)
            .await
            .expect("it ends");
    }
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn a_build_without_a_session_runs_without_a_cache_and_says_so() {
    let bench = Bench::new().await;
    let ours = || vec![CacheEntry::ours()];
    for session in ["", "a-session-that-never-comes"] {
        let request = SolveRequest {
            reference: format!("build-with-{session}"),
            session: session.to_owned(),
            definition: Some(files(&[("/a", "1"), ("/b", session)])),
            cache: Some(CacheOptions {
                exports: ours(),
                imports: ours(),
            }),
            ..SolveRequest::default()
        };
        let manual = Manual::build(&bench.grpc, &request).await;
        assert_eq!(manual.answer.code, 0, "{manual:#?}");
        let warnings = manual.progress.warnings();
        // An import by pull needs none.
        assert!(
            matches!(warnings[..], [warning] if warning.contains("not exported")),
            "{warnings:?}"
        );
    }
    bench.assert_unharmed().await;
}

#[tokio::test]
async fn names_that_climb_are_refused() {
    let bench = Bench::new().await;
    for name in [
        "..",
        "../../etc",
        "a/../b",
        "/etc",
        "a\0b",
        "x".repeat(5000).as_str(),
    ] {
        for key in ["project", "ref", "fallback"] {
            let entry = CacheEntry {
                kind: "gha-compatible".to_owned(),
                attributes: attributes([(key, name)]),
            };
            let request = SolveRequest {
                reference: format!("climbing-{key}-{}", name.len()),
                definition: Some(files(&[("/a", "1")])),
                cache: Some(CacheOptions {
                    exports: vec![entry.clone()],
                    imports: vec![entry],
                }),
                ..SolveRequest::default()
            };
            let answer = bench
                .grpc
                .call(SOLVE, frame(&request.encode_to_vec()))
                .await;
            assert_eq!(answer.code, INVALID_ARGUMENT, "{key}={name:?}: {answer:?}");
            assert!(answer.message.contains(key), "{key}: {answer:?}");
        }
    }
    bench.assert_unharmed().await;
}
