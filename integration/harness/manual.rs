//! Builds that no client would ask for: `Control/Solve` by hand.

use std::collections::HashMap;

use bytes::{Buf as _, Bytes};
use prost::Message as _;

use super::control::SolveRequest;
use super::grpc::{Answer, Grpc, frame};
use super::progress::{Progress, Vertex};

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const STATUS: &str = "/moby.buildkit.v1.Control/Status";

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(string, tag = "1")]
    reference: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, repeated, tag = "1")]
    vertexes: Vec<StatusVertex>,
    #[prost(message, repeated, tag = "4")]
    warnings: Vec<StatusWarning>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusVertex {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bool, tag = "4")]
    cached: bool,
    #[prost(message, optional, tag = "5")]
    started: Option<Moment>,
    #[prost(message, optional, tag = "6")]
    completed: Option<Moment>,
    #[prost(string, tag = "7")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusWarning {
    #[prost(bytes = "vec", tag = "3")]
    short: Vec<u8>,
}

/// A `google.protobuf.Timestamp`, of which only the presence counts.
#[derive(Clone, PartialEq, prost::Message)]
struct Moment {}

/// How a build by hand ended.
#[derive(Debug)]
pub struct Manual {
    /// What `Control/Solve` answered.
    pub answer: Answer,
    /// What `Control/Status` reported.
    pub progress: Progress,
}

impl Manual {
    /// Asks for a build, and follows it to its end.
    pub async fn build(grpc: &Grpc, request: &SolveRequest) -> Self {
        let status = StatusRequest {
            reference: request.reference.clone(),
        }
        .encode_to_vec();
        let (answer, status) = tokio::join!(
            grpc.call(SOLVE, frame(&request.encode_to_vec())),
            grpc.call(STATUS, frame(&status)),
        );
        Self {
            answer,
            progress: read(status.body),
        }
    }
}

fn read(mut body: Bytes) -> Progress {
    let mut progress = Progress::default();
    while body.len() >= 5 {
        body.advance(1);
        let length = body.get_u32() as usize;
        let status = StatusResponse::decode(body.split_to(length)).expect("a StatusResponse");
        for vertex in status.vertexes {
            progress.see(Vertex {
                digest: vertex.digest,
                name: vertex.name,
                started: vertex.started.map(|_| "then".to_owned()),
                completed: vertex.completed.map(|_| "then".to_owned()),
                cached: vertex.cached,
                error: vertex.error,
            });
        }
        for warning in status.warnings {
            progress.warn(String::from_utf8_lossy(&warning.short).into_owned());
        }
    }
    progress
}

/// A map of attributes.
pub fn attributes<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
