//! Somebody with a token of their own who knows the names, digests and numbers
//! of another project, and of a ref that they may not read, against every method
//! that there is: what they are told is what a hub would tell that has nothing
//! of those.

mod pages;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use layerd::cache::wire::{self, v1};
use layerd::cache::{Form, Limits};
use layerd::digest::Digest;
use prost_reflect::DescriptorPool;
use serde_json::Value;
use tonic::Status;

use super::access::{Gate, claims, with};
use super::ask::{described, export, look_up, noise, publication};
use super::blobs::{begin, commit, open, piece};
use super::{place, read, upload};
use crate::harness::HubClient;

const MAIN: &str = "refs/heads/main";
const SECRET: &str = "refs/heads/secret";
/// Of which there was something until it was flushed.
const FLUSHED: &str = "refs/heads/flushed";

/// What there is of others, and known to the spy.
struct Others {
    /// Of another project, and of another ref.
    blobs: [Bytes; 2],
    /// Of an upload of the other project that is not finished.
    begun: Bytes,
    /// A lease of the other project.
    lease: i64,
    /// A step of theirs.
    record: String,
}

impl Others {
    fn digests(&self) -> Vec<Digest> {
        let all = self.blobs.iter().chain([&self.begun]);
        all.map(|blob| described(blob).0).collect()
    }
}

/// One that everybody has heard of, though not every hub has it.
fn others() -> Others {
    Others {
        blobs: [noise(71, 200_000), noise(72, 200_000)],
        begun: noise(73, 300_000),
        lease: 0x5eed,
        record: Digest::of(b"theirs/0").to_string(),
    }
}

/// The tokens: of another project, of the secret refs, and the spy's.
fn of_q() -> Value {
    with(claims(&["**"], &["**"]), "project", "q")
}

fn of_secret() -> Value {
    claims(&[SECRET, FLUSHED], &[SECRET, FLUSHED])
}

fn of_spy() -> Value {
    claims(&[MAIN], &[MAIN])
}

/// Brings all of it to a hub; gives the client that holds an upload open.
async fn bring(gate: &Gate, others: &mut Others) -> (HubClient, super::blobs::Begun) {
    let mut q = gate.client(&of_q()).await;
    export(&mut q, &place("q", MAIN), &others.blobs[..1], "theirs").await;
    let mut secret = gate.client(&of_secret()).await;
    let theirs = &others.blobs[1..];
    export(&mut secret, &place("p", SECRET), theirs, "theirs").await;
    export(&mut secret, &place("p", FLUSHED), theirs, "gone").await;
    for (client, project, git_ref) in [(&mut secret, "p", FLUSHED), (&mut q, "q", "x")] {
        let flush = v1::FlushRequest {
            project: project.to_owned(),
            git_ref: Some(git_ref.to_owned()),
            scope: None,
        };
        client.flush(flush).await.unwrap();
    }
    let lease = q.take_lease(v1::TakeLeaseRequest {}).await.unwrap();
    others.lease = lease.into_inner().lease;
    let (digest, _) = described(&others.begun);
    let mut begun = begin(&mut q, open(&place("q", MAIN), &digest))
        .await
        .unwrap();
    assert_eq!(begun.offset().await.unwrap(), Some(0));
    let sent = piece(others.begun.slice(..100_000));
    begun.pieces.send(sent).await.unwrap();
    (q, begun)
}

/// What is said of an answer: all but what differs from one time to another.
fn told<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(status) => format!(
            "{:?} {:?} {:?}",
            status.code(),
            status.message(),
            status.details()
        ),
    }
}

/// The spy at a hub, and all that they know.
struct Spy<'a> {
    client: HubClient,
    others: &'a Others,
}

impl Spy<'_> {
    /// Every way to ask a method about what is not theirs.
    async fn tries(&mut self, method: &str) -> Vec<String> {
        match method {
            "LookUp" => self.look_ups().await,
            "FindMissing" => self.find_missing().await,
            "ReadBlob" => self.reads().await,
            "WriteBlob" => self.writes().await,
            "Publish" => self.publishes().await,
            "Writable" => {
                let mut told = Vec::new();
                for at in places() {
                    let place = Some(at);
                    let answer = self.client.writable(v1::WritableRequest { place }).await;
                    told.push(self::told(answer.map(tonic::Response::into_inner)));
                }
                told
            }
            "Steps" => self.steps().await,
            "Report" => {
                let mut told = Vec::new();
                for at in places() {
                    let request = v1::ReportRequest {
                        project: at.project,
                        git_ref: at.git_ref,
                        ..v1::ReportRequest::default()
                    };
                    let answer = self.client.report(request).await;
                    told.push(self::told(answer.map(tonic::Response::into_inner)));
                }
                told
            }
            "TakeLease" => {
                let answer = self.client.take_lease(v1::TakeLeaseRequest {}).await;
                let lease = answer.unwrap().into_inner().lease;
                let theirs = lease == self.others.lease;
                vec![format!("positive {}, theirs {theirs}", lease > 0)]
            }
            "RenewLease" => {
                let mut told = Vec::new();
                for lease in [self.others.lease, 0, -1, 1] {
                    let renewed = self.client.renew_lease(v1::RenewLeaseRequest { lease });
                    told.push(self::told(renewed.await.map(tonic::Response::into_inner)));
                }
                told
            }
            "Suspect" => {
                let mut told = Vec::new();
                for projects in projects() {
                    for digest in self.others.digests() {
                        let request = v1::SuspectRequest {
                            projects: projects.clone(),
                            digest: digest.as_bytes().to_vec().into(),
                        };
                        let answer = self.client.suspect(request).await;
                        told.push(self::told(answer.map(tonic::Response::into_inner)));
                    }
                }
                told
            }
            "Flush" => {
                let mut told = Vec::new();
                let mut asked: Vec<_> = places()
                    .into_iter()
                    .map(|at| (at.project, Some(at.git_ref)))
                    .collect();
                asked.extend(["p", "q"].map(|project| (project.to_owned(), None)));
                for (project, git_ref) in asked {
                    let request = v1::FlushRequest {
                        project,
                        git_ref,
                        scope: None,
                    };
                    let answer = self.client.flush(request).await;
                    told.push(self::told(answer.map(tonic::Response::into_inner)));
                }
                told
            }
            unknown => panic!("{unknown} is new: what would somebody try there?"),
        }
    }

    async fn look_ups(&mut self) -> Vec<String> {
        let limits = Limits {
            records: 1_000_000,
            form: Form::Whole,
        };
        let mut told = Vec::new();
        let mut at = places();
        at.push(place("p", MAIN));
        at.push(v1::Place {
            scope: "*".to_owned(),
            ..place("p", SECRET)
        });
        for (at, narrowed) in at
            .into_iter()
            .flat_map(|at| [(at.clone(), true), (at, false)])
        {
            let mut request = wire::look_up_request(&[], &limits);
            request.wants.push(v1::Want {
                place: Some(at),
                fallbacks: vec![SECRET.to_owned(), FLUSHED.to_owned()],
                narrowed,
                ..v1::Want::default()
            });
            let mut parts = match self.client.look_up(request).await {
                Ok(parts) => parts.into_inner(),
                Err(status) => {
                    told.push(self::told::<()>(Err(status)));
                    continue;
                }
            };
            while let Some(mut part) = parts.message().await.unwrap() {
                if let Some(v1::look_up_response::Part::Found(found)) = &mut part.part {
                    assert!(found.lease != self.others.lease);
                    (found.exported_at_ns, found.lease) = (0, 0);
                }
                told.push(format!("{part:?}"));
            }
        }
        told
    }

    async fn find_missing(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for at in all_places() {
            let request = v1::FindMissingRequest {
                project: at.project,
                git_ref: at.git_ref,
                digests: wire::joined(&self.others.digests()),
            };
            let answer = self.client.find_missing(request).await;
            told.push(self::told(answer.map(tonic::Response::into_inner)));
        }
        told
    }

    async fn reads(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for projects in projects() {
            for digest in self.others.digests() {
                for takes_url in [false, true] {
                    let request = v1::ReadBlobRequest {
                        projects: projects.clone(),
                        digest: digest.as_bytes().to_vec().into(),
                        offset: u64::from(takes_url),
                        takes_url,
                        ..v1::ReadBlobRequest::default()
                    };
                    let answer = self.client.read_blob(request).await;
                    told.push(self::told(answer.map(drop)));
                }
            }
        }
        told
    }

    /// Each is opened, and ended at once as if all had been sent.
    async fn writes(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        let all = [
            &self.others.blobs[0],
            &self.others.blobs[1],
            &self.others.begun,
        ];
        for at in all_places() {
            for blob in all {
                let (digest, size) = described(blob);
                let mut begun = match begin(&mut self.client, open(&at, &digest)).await {
                    Ok(begun) => begun,
                    Err(status) => {
                        told.push(self::told::<()>(Err(status)));
                        continue;
                    }
                };
                let offset = begun.offset().await;
                let is_open = offset.is_ok();
                told.push(self::told(offset));
                if is_open {
                    begun.pieces.send(commit(&digest, size)).await.unwrap();
                    told.push(self::told(begun.stored().await));
                }
            }
        }
        told
    }

    async fn publishes(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for at in all_places() {
            for blob in &self.others.blobs {
                let messages = publication(&at, &[described(blob)], "theirs");
                let answer = self.client.publish(tokio_stream::iter(messages)).await;
                told.push(self::told(answer.map(tonic::Response::into_inner)));
            }
        }
        told
    }

    async fn steps(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for project in ["p", "q"] {
            let result = v1::steps_request::Result {
                record: self.others.record.clone(),
                created_at_ns: 1_767_323_045_500_000_000,
            };
            let request = v1::StepsRequest {
                project: project.to_owned(),
                results: vec![result],
            };
            let answer = self.client.steps(request).await;
            told.push(self::told(answer.map(tonic::Response::into_inner)));
        }
        told
    }
}

/// Where others are.
fn places() -> Vec<v1::Place> {
    vec![
        place("q", MAIN),
        place("q", "x"),
        place("p", SECRET),
        place("p", FLUSHED),
    ]
}

/// And the spy's own.
fn all_places() -> Vec<v1::Place> {
    places().into_iter().chain([place("p", MAIN)]).collect()
}

fn projects() -> Vec<Vec<String>> {
    let [p, q] = ["p", "q"].map(str::to_owned);
    vec![vec![p.clone()], vec![q.clone()], vec![p, q]]
}

/// The methods of the hub, as `proto/` declares them.
fn methods() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let set = protox::compile([Path::new(root).join("layerd/v1/cache.proto")], [root]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let ours = pool
        .services()
        .filter(|service| service.package_name() == "layerd.v1");
    let methods = ours.flat_map(|service| {
        let methods = service.methods().map(|method| method.name().to_owned());
        methods.collect::<Vec<_>>()
    });
    methods.collect()
}

/// A hub at which the spy has something of their own.
async fn hub_of_spy() -> Gate {
    let gate = Gate::new().await;
    let mut spy = gate.client(&of_spy()).await;
    let own = [noise(70, 50_000)];
    export(&mut spy, &place("p", MAIN), &own, "own").await;
    gate
}

#[tokio::test]
async fn nothing_is_told_that_an_empty_hub_would_not_tell() {
    let (full, empty) = (hub_of_spy().await, hub_of_spy().await);
    let mut others = others();
    let _held = bring(&full, &mut others).await;
    let methods = methods();
    assert!(methods.len() >= 12, "{methods:?}");
    for method in &methods {
        let mut answers = Vec::new();
        for gate in [&full, &empty] {
            let client = gate.client(&of_spy()).await;
            let mut spy = Spy {
                client,
                others: &others,
            };
            answers.push(spy.tries(method).await);
        }
        let of_empty = answers.pop().unwrap();
        assert_eq!(answers.pop().unwrap(), of_empty, "{method}");
        assert!(!of_empty.is_empty(), "{method}");
    }
    // And nothing of it has changed.
    let mut q = full.client(&of_q()).await;
    let mut secret = full.client(&of_secret()).await;
    for (client, at, blob) in [
        (&mut q, place("q", MAIN), &others.blobs[0]),
        (&mut secret, place("p", SECRET), &others.blobs[1]),
    ] {
        let import = look_up(client, &at, true).await.unwrap().unwrap();
        let (digest, size) = described(blob);
        assert_eq!(import.layers.get(&digest), Some(&size));
        let bytes = read(client, &at.project, &digest, 0).await.unwrap();
        assert_eq!(bytes, *blob);
    }
    let lease = others.lease;
    let renewed = q.renew_lease(v1::RenewLeaseRequest { lease }).await;
    assert!(renewed.unwrap().into_inner().renewed, "it is theirs");
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_write_that_is_not_granted_is_refused_before_a_byte_is_stored() {
    let gate = hub_of_spy().await;
    let stored = || {
        let folders = ["blobs", "ingest"].map(|name| gate.hub.data_dir().join(name));
        folders.map(|folder| files(&folder))
    };
    let before = stored();
    let mut spy = gate.client(&of_spy()).await;
    let new = noise(74, 2_000_000);
    let (digest, _) = described(&new);
    for at in places() {
        let refused = upload(&mut spy, &at, &new).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
        // One that does not wait for the answer.
        if let Ok(mut begun) = begin(&mut spy, open(&at, &digest)).await {
            let _ = begun.pieces.send(piece(new.slice(..200_000))).await;
            begun.stored().await.unwrap_err();
        }
        assert_eq!(stored(), before, "{at:?}");
    }
}
