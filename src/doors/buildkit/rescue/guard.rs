//! Watches the second Solve: it may load what is there, and run nothing.
//!
//! What was just built can be gone again, by garbage collection for one, or be
//! built from files that have changed since, and then BuildKit would build it
//! anew. A user who waits for an error has not asked for that. Steps are not
//! told by their digests here, since BuildKit encodes them anew; and what a
//! build shares with another that goes on shows once more as it ran there.

use std::collections::HashSet;

use hyper::body::Incoming;
use prost::Message as _;

use super::super::grpc::Messages;
use super::super::proto::control;

/// What BuildKit calls a merge, which may run: it moves no byte.
const MERGE: &str = "merge (";
/// Characters of a step's name that a user is told.
const MAX_NAME: usize = 80;

/// A time of the daemon's clock, in nanoseconds since 1970.
pub fn nanoseconds(time: &prost_types::Timestamp) -> i64 {
    let seconds = time.seconds.saturating_mul(1_000_000_000);
    seconds.saturating_add(i64::from(time.nanos))
}

/// Reads a Status stream until a step starts to run later than `since`: gives
/// its name. A stream that ends or breaks says nothing more.
pub async fn ran(mut progress: Messages<Incoming>, since: i64) -> Option<String> {
    let mut loaded = HashSet::new();
    while let Ok(Some(message)) = progress.next().await {
        let said = control::StatusResponse::decode(message.bytes.clone()).ok()?;
        drop(message);
        let found = said.vertexes.iter().find(|v| runs(v, since, &mut loaded));
        if let Some(vertex) = found {
            let name = vertex.name.lines().next().unwrap_or_default();
            return Some(name.chars().take(MAX_NAME).collect());
        }
    }
    None
}

/// Whether an event says that a step is run. One that is loaded starts without
/// the mark afterwards, where its layers are pulled (see `vertices`).
fn runs(vertex: &control::Vertex, since: i64, loaded: &mut HashSet<String>) -> bool {
    // A source is looked at, and that starts and completes it; an export has no
    // inputs either.
    if vertex.inputs.is_empty() || vertex.name.starts_with(MERGE) {
        return false;
    }
    if vertex.cached && vertex.error.is_empty() {
        loaded.insert(vertex.digest.clone());
        return false;
    }
    let started = vertex.started.as_ref().map(nanoseconds);
    !vertex.cached && !loaded.contains(&vertex.digest) && started.is_some_and(|at| at > since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cached: bool, error: &str) -> control::Vertex {
        control::Vertex {
            digest: "step".to_owned(),
            name: "/bin/sh -c true".to_owned(),
            inputs: vec!["parent".to_owned()],
            started: Some(prost_types::Timestamp {
                seconds: 10,
                nanos: 1,
            }),
            cached,
            error: error.to_owned(),
            ..control::Vertex::default()
        }
    }

    fn any_runs(events: &[control::Vertex]) -> bool {
        let (since, mut loaded) = (10_000_000_000, HashSet::new());
        events.iter().any(|event| runs(event, since, &mut loaded))
    }

    #[test]
    fn a_step_that_is_loaded_or_pulled_does_not_run() {
        let source = control::Vertex {
            inputs: Vec::new(),
            ..event(false, "")
        };
        let merge = control::Vertex {
            digest: "merge".to_owned(),
            name: "merge (/bin/sh -c true, copy /a /a)".to_owned(),
            ..event(false, "")
        };
        assert!(!any_runs(&[event(true, ""), event(false, "")]));
        assert!(!any_runs(&[source, merge]));
    }

    #[test]
    fn what_another_build_ran_before_is_no_run() {
        let before = control::Vertex {
            started: Some(prost_types::Timestamp {
                seconds: 9,
                nanos: 999_999_999,
            }),
            ..event(false, "")
        };
        assert!(!any_runs(&[before]));
    }

    #[test]
    fn a_step_that_starts_or_could_not_be_loaded_runs() {
        assert!(any_runs(&[event(false, "")]));
        assert!(any_runs(&[event(true, "not found"), event(false, "")]));
    }
}
