//! The write protocol against its model: the bytes that should be there.

use proptest::prelude::*;
use proptest::test_runner::{Config as Runner, TestRunner};
use tonic::Code;

use super::super::super::proto::content as api;
use super::{Fixture, code, message, send};
use crate::digest::Digest;

/// One step of a client that does what it likes with one ref.
#[derive(Clone, Debug)]
enum Step {
    Stat,
    /// Data at the offset where it belongs, or off by some bytes.
    Write {
        data: Vec<u8>,
        off_by: i64,
    },
    /// From the start.
    Restart(Vec<u8>),
    /// Hang up and open again.
    Reopen,
    Commit {
        honest: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let data = proptest::collection::vec(any::<u8>(), 1..20);
    prop_oneof![
        Just(Step::Stat),
        (data.clone(), prop_oneof![4 => Just(0i64), 1 => 1i64..5])
            .prop_map(|(data, off_by)| Step::Write { data, off_by }),
        data.prop_map(Step::Restart),
        Just(Step::Reopen),
        any::<bool>().prop_map(|honest| Step::Commit { honest }),
    ]
}

#[test]
fn any_sequence_of_steps_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Runner::with_cases(64));
    let steps = proptest::collection::vec(step(), 1..12);
    runner
        .run(&steps, |steps| runtime.block_on(follow(steps)))
        .unwrap();
}

async fn follow(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let fixture = Fixture::new();
    let mut export = fixture.export();
    let mut bytes: Vec<u8> = Vec::new();
    let mut committed = Vec::new();
    for step in steps {
        let at = bytes.len() as i64;
        let stat = message(api::WriteAction::Stat, "layer-1");
        match step {
            Step::Stat => {
                let answers = send(&mut export, vec![stat]).await.unwrap();
                prop_assert_eq!(answers[0].offset, at);
                prop_assert_eq!(&answers[0].digest, &Digest::of(&bytes).to_string());
            }
            Step::Write { data, off_by } => {
                let write = api::WriteContentRequest {
                    data: data.clone().into(),
                    offset: at + off_by,
                    ..message(api::WriteAction::Write, "layer-1")
                };
                let sent = send(&mut export, vec![stat, write]).await;
                if off_by == 0 {
                    bytes.extend(data);
                    prop_assert_eq!(sent.unwrap()[1].offset, bytes.len() as i64);
                } else {
                    prop_assert_eq!(sent.unwrap_err().code(), Code::OutOfRange);
                }
            }
            Step::Restart(data) => {
                let write = api::WriteContentRequest {
                    data: data.clone().into(),
                    ..message(api::WriteAction::Write, "layer-1")
                };
                send(&mut export, vec![write]).await.unwrap();
                bytes = data;
            }
            Step::Reopen => export = fixture.export(),
            Step::Commit { honest } => {
                let expected = if honest {
                    Digest::of(&bytes)
                } else {
                    Digest::of(b"never written")
                };
                let commit = api::WriteContentRequest {
                    expected: expected.to_string(),
                    offset: at,
                    ..message(api::WriteAction::Commit, "layer-1")
                };
                let got = code(&mut export, vec![stat, commit]).await;
                if honest {
                    prop_assert!(matches!(got, Code::Ok | Code::AlreadyExists), "{:?}", got);
                    committed.push(Digest::of(&bytes));
                } else {
                    prop_assert_eq!(got, Code::FailedPrecondition);
                }
                bytes.clear();
            }
        }
    }
    committed.sort_unstable();
    committed.dedup();
    let mut stored = fixture.blobs().await;
    stored.sort_unstable();
    prop_assert_eq!(stored, committed);
    Ok(())
}
