//! Watches the second Solve: it may load what is there, and run nothing.
//!
//! What was just built can be gone again, by garbage collection for one, and
//! then BuildKit would build it anew. A user who waits for an error has not
//! asked for that.

use std::collections::HashSet;

use hyper::body::Incoming;
use prost::Message as _;

use super::super::grpc::Messages;
use super::super::proto::control;
use crate::digest::Digest;

/// Reads a Status stream until one of `kept`, the steps that must not run, does
/// so: gives its name. A stream that ends or breaks says nothing more.
pub async fn ran(mut progress: Messages<Incoming>, kept: &HashSet<Digest>) -> Option<String> {
    let mut loaded = HashSet::new();
    while let Ok(Some(message)) = progress.next().await {
        let said = control::StatusResponse::decode(message.bytes.clone()).ok()?;
        drop(message);
        let found = said.vertexes.iter().find(|v| runs(v, kept, &mut loaded));
        if let Some(vertex) = found {
            return Some(vertex.name.clone());
        }
    }
    None
}

/// Whether an event says that a step is run. One that is loaded starts without
/// the mark afterwards, where its layers are pulled (see `vertices`).
fn runs(vertex: &control::Vertex, kept: &HashSet<Digest>, loaded: &mut HashSet<Digest>) -> bool {
    let Ok(digest) = vertex.digest.parse::<Digest>() else {
        return false;
    };
    // A source is looked at, and that starts and completes it.
    if vertex.inputs.is_empty() || !kept.contains(&digest) {
        return false;
    }
    if vertex.cached && vertex.error.is_empty() {
        loaded.insert(digest);
        return false;
    }
    vertex.started.is_some() && !vertex.cached && !loaded.contains(&digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cached: bool, error: &str) -> control::Vertex {
        control::Vertex {
            digest: Digest::of(b"step").to_string(),
            inputs: vec![Digest::of(b"parent").to_string()],
            started: Some(Default::default()),
            cached,
            error: error.to_owned(),
            ..control::Vertex::default()
        }
    }

    fn any_runs(events: &[control::Vertex]) -> bool {
        let (kept, mut loaded) = ([Digest::of(b"step")].into(), HashSet::new());
        events.iter().any(|event| runs(event, &kept, &mut loaded))
    }

    #[test]
    fn a_step_that_is_loaded_or_pulled_does_not_run() {
        let source = control::Vertex {
            inputs: Vec::new(),
            ..event(false, "")
        };
        let other = control::Vertex {
            digest: Digest::of(b"merge").to_string(),
            ..event(false, "")
        };
        assert!(!any_runs(&[event(true, ""), event(false, "")]));
        assert!(!any_runs(&[source, other]));
    }

    #[test]
    fn a_step_that_starts_or_could_not_be_loaded_runs() {
        assert!(any_runs(&[event(false, "")]));
        assert!(any_runs(&[event(true, "not found"), event(false, "")]));
    }
}
