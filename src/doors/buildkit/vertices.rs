//! Which steps of a build came from a cache, and which were run.
//!
//! A vertex of the progress counts as a step if it has inputs. That leaves out
//! sources (images, contexts), the frontend's own `[internal]` vertices and
//! what buildkitd does around a build (importing, exporting, resolving names):
//! none of them has any. A vertex may start and complete several times (BuildKit
//! v0.32.2): a layer that can't be loaded shows as cached with an error, and
//! then the step runs; a cached one whose layers are pulled later starts and
//! completes again, without the mark.

use std::collections::{HashMap, HashSet};

use super::metrics::Fate;
use super::proto::control::Vertex;
use crate::digest::Digest;
use crate::telemetry::metrics::CounterBy;

/// Steps of one build that are remembered; beyond that they are not counted.
const MAX_VERTICES: usize = 100_000;

/// The steps of one build, by what became of each so far; counted when the
/// build is forgotten.
#[derive(Debug, Default)]
pub struct Vertices(HashMap<Digest, Fate>);

impl Vertices {
    /// Takes in an event.
    pub fn see(&mut self, vertex: &Vertex) {
        if vertex.inputs.is_empty() || vertex.name.starts_with("[internal]") {
            return;
        }
        let (Some(fate), Ok(digest)) = (fate(vertex), vertex.digest.parse()) else {
            return;
        };
        let before = self.0.get(&digest);
        let pulled = before == Some(&Fate::Cached) && fate == Fate::Ran;
        if !pulled && (before.is_some() || self.0.len() < MAX_VERTICES) {
            self.0.insert(digest, fate);
        }
    }

    /// Those whose result is there, as far as is known.
    pub fn succeeded(&self) -> HashSet<Digest> {
        let there = self.0.iter().filter(|(_, fate)| **fate != Fate::Failed);
        there.map(|(digest, _)| *digest).collect()
    }

    /// All of them.
    pub fn fates(&self) -> impl Iterator<Item = (&Digest, Fate)> {
        self.0.iter().map(|(digest, fate)| (digest, *fate))
    }

    /// Adds all to `counter`, once.
    pub fn count(&mut self, counter: &CounterBy<Fate>) {
        for (_, fate) in self.0.drain() {
            counter.count(fate);
        }
    }
}

/// What an event says; `None` while the vertex is waited for or runs.
fn fate(vertex: &Vertex) -> Option<Fate> {
    if !vertex.error.is_empty() {
        Some(Fate::Failed)
    } else if vertex.cached {
        Some(Fate::Cached)
    } else {
        (vertex.started.is_some() && vertex.completed.is_some()).then_some(Fate::Ran)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(step: &str, cached: bool, error: &str) -> Vertex {
        Vertex {
            digest: Digest::of(step.as_bytes()).to_string(),
            inputs: vec![Digest::of(b"parent").to_string()],
            name: format!("[stage 1/1] {step}"),
            cached,
            started: Some(Default::default()),
            completed: Some(Default::default()),
            error: error.to_owned(),
        }
    }

    fn counted(events: &[Vertex]) -> [u64; 3] {
        let counter = CounterBy::default();
        let mut vertices = Vertices::default();
        events.iter().for_each(|event| vertices.see(event));
        vertices.count(&counter);
        vertices.count(&counter);
        [Fate::Cached, Fate::Ran, Fate::Failed].map(|fate| counter.get(fate))
    }

    #[test]
    fn a_step_is_cached_once_it_is_loaded_and_ran_where_it_could_not_be() {
        let events = [
            event("loaded", true, ""),
            event("lost", true, "content not found"),
            event("lost", false, ""),
            event("broken", false, "exit code 1"),
            event("loaded", true, ""),
            event("loaded", false, ""),
        ];
        assert_eq!(counted(&events), [1, 1, 1]);
    }

    #[test]
    fn sources_and_the_daemons_own_vertices_are_no_steps() {
        let source = Vertex {
            inputs: Vec::new(),
            ..event("FROM alpine", true, "")
        };
        let internal = Vertex {
            name: "[internal] load build context".to_owned(),
            ..event("internal", false, "")
        };
        let waiting = Vertex {
            started: None,
            completed: None,
            ..event("waiting", false, "")
        };
        assert_eq!(counted(&[source, internal, waiting]), [0, 0, 0]);
    }
}
