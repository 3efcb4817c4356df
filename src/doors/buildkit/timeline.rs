//! When each vertex of a build ran, by what the progress said of it last.
//!
//! That is how the records of an export get the names of their steps. A build
//! that nobody watches has an empty timeline: nothing is asked of buildkitd for
//! it.

use std::collections::HashMap;

use jiff::Timestamp;

use super::proto::control;
use crate::digest::Digest;
use crate::graph::{Run, Vertex};
use crate::step::StepName;

/// Vertices of one build that are remembered. One that has more is not named
/// at all, since a name needs all of its neighbours.
const MAX_VERTICES: usize = 10_000;

/// The vertices of one build.
#[derive(Debug, Default)]
pub struct Timeline {
    vertices: HashMap<Digest, Vertex>,
    overflown: bool,
    over: bool,
}

impl Timeline {
    /// Takes in an event.
    pub fn see(&mut self, event: &control::Vertex) {
        let Ok(digest) = event.digest.parse::<Digest>() else {
            return;
        };
        if self.overflown {
            return;
        }
        let full = self.vertices.len() >= MAX_VERTICES;
        if full && !self.vertices.contains_key(&digest) {
            self.vertices = HashMap::new();
            self.overflown = true;
            return;
        }
        let inputs: Result<_, _> = event.inputs.iter().map(|input| input.parse()).collect();
        let Ok(inputs) = inputs else { return };
        let vertex = Vertex {
            digest,
            inputs,
            name: StepName::of(&event.name),
            run: run(event),
        };
        self.vertices.insert(digest, vertex);
    }

    /// Whether nobody watches the build, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// No more events will come.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Whether all is known of what came before `vertex`: it has begun, or
    /// nothing begins any more.
    pub fn has_begun(&self, vertex: &Digest) -> bool {
        let found = self.vertices.get(vertex);
        self.over || found.is_some_and(|vertex| vertex.run != Run::Not)
    }

    /// What a vertex is called.
    pub fn name(&self, vertex: &Digest) -> Option<&StepName> {
        self.vertices.get(vertex).map(|vertex| &vertex.name)
    }

    /// All of them.
    pub fn vertices(&self) -> Vec<Vertex> {
        self.vertices.values().cloned().collect()
    }
}

fn run(event: &control::Vertex) -> Run {
    let time = |time: &Option<prost_types::Timestamp>| {
        let time = time.as_ref()?;
        Timestamp::new(time.seconds, time.nanos).ok()
    };
    if event.cached || !event.error.is_empty() {
        return Run::Not;
    }
    match (time(&event.started), time(&event.completed)) {
        (Some(started), Some(completed)) => Run::Done(started, completed),
        (Some(started), None) => Run::Since(started),
        (None, _) => Run::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, started: Option<i64>, completed: Option<i64>) -> control::Vertex {
        let time = |seconds| prost_types::Timestamp { seconds, nanos: 7 };
        control::Vertex {
            digest: Digest::of(name.as_bytes()).to_string(),
            name: name.to_owned(),
            started: started.map(time),
            completed: completed.map(time),
            ..control::Vertex::default()
        }
    }

    #[test]
    fn the_last_event_says_whether_a_vertex_ran_and_when() {
        let mut timeline = Timeline::default();
        let time = |second| Timestamp::new(second, 7).unwrap();
        let failed = control::Vertex {
            error: "exit code 1".to_owned(),
            ..event("a", Some(1), Some(2))
        };
        let hit = control::Vertex {
            cached: true,
            ..event("a", Some(1), Some(2))
        };
        for (event, expected) in [
            (event("a", None, None), Run::Not),
            (event("a", Some(1), None), Run::Since(time(1))),
            (failed, Run::Not),
            (event("a", Some(3), Some(5)), Run::Done(time(3), time(5))),
            (hit, Run::Not),
        ] {
            timeline.see(&event);
            assert_eq!(timeline.vertices()[0].run, expected);
            assert_eq!(timeline.has_begun(&Digest::of(b"a")), expected != Run::Not);
        }
    }

    #[test]
    fn a_build_with_too_many_vertices_has_no_names() {
        let mut timeline = Timeline::default();
        for at in 0..=MAX_VERTICES {
            assert_eq!(timeline.vertices.len(), at);
            timeline.see(&event(&at.to_string(), Some(1), Some(2)));
        }
        timeline.see(&event("one more", Some(1), Some(2)));
        assert!(timeline.is_empty());
    }
}
