//! One timed build, and what it says that it did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::harness::{Build, Client};
use crate::peers::Kind;

/// A build that has succeeded.
pub struct Timed {
    /// From the start of the client to its end.
    pub took: Duration,
    /// All that it printed, for messages.
    printed: String,
    /// What layerd had to say.
    told: Vec<String>,
    /// The names of all that completed, without an error.
    done: BTreeSet<String>,
    /// The steps of the Dockerfile, and whether each came from a cache.
    steps: BTreeMap<String, bool>,
    /// The most that any transfer of a build context reached.
    sent: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    vertexes: Vec<Vertex>,
    statuses: Vec<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Vertex {
    name: String,
    cached: bool,
    completed: Option<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    id: String,
    current: u64,
    completed: Option<String>,
}

/// Builds, with nothing of earlier builds left to be written to the disk.
pub async fn timed(client: &Client, build: &Build) -> Timed {
    rustix::fs::sync();
    let begin = Instant::now();
    let outcome = client.build(build).await;
    let took = begin.elapsed();
    let outcome = outcome.ok();
    let mut timed = Timed {
        took,
        told: outcome
            .progress
            .messages()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        printed: outcome.stderr,
        done: BTreeSet::new(),
        steps: BTreeMap::new(),
        sent: 0,
    };
    timed.read();
    timed
}

impl Timed {
    /// A vertex may start and complete several times: layers that are pulled
    /// once it is known to be cached count as it, without saying so again.
    fn read(&mut self) {
        let lines = self.printed.lines();
        for event in lines.filter_map(|line| serde_json::from_str::<Event>(line).ok()) {
            let ended = |v: &Vertex| v.completed.is_some() || v.cached;
            for vertex in event.vertexes.into_iter().filter(ended) {
                if vertex.error.is_empty() {
                    self.done.insert(vertex.name.clone());
                }
                if is_step(&vertex.name) {
                    let cached = self.steps.entry(vertex.name).or_default();
                    *cached = vertex.error.is_empty() && (vertex.cached || *cached);
                }
            }
            for status in event.statuses {
                if status.id.starts_with("transferring context") {
                    self.sent = self.sent.max(status.current);
                }
                if status.completed.is_some() {
                    self.done.insert(status.id);
                }
            }
        }
    }

    /// This, which must have taken all of `steps` from the cache.
    #[track_caller]
    pub fn all_cached(self, steps: usize) -> Self {
        self.assert_cached(steps, steps);
        self
    }

    /// This, which must have run all of `steps`.
    #[track_caller]
    pub fn all_ran(self, steps: usize) -> Self {
        self.assert_cached(0, steps);
        self
    }

    /// This, which must have sent at least `bytes` of a build context.
    #[track_caller]
    pub fn sent(self, bytes: u64) -> Self {
        assert!(self.sent >= bytes, "{} sent\n{}", self.sent, self.printed);
        self
    }

    /// This, which must have exported its cache if this kind has one: BuildKit
    /// goes on without, where it could not.
    #[track_caller]
    pub fn exported(self, kind: Kind) -> Self {
        let exported = match kind {
            Kind::None => true,
            Kind::Inline => self.done.contains("preparing layers for inline cache"),
            Kind::Gha => self.done.contains("exporting to GitHub Actions Cache"),
            Kind::Session | Kind::Pull | Kind::Hub => self.any_told("layerd: exported "),
            _ => self
                .done
                .iter()
                .any(|name| name.starts_with("exporting cache ")),
        };
        assert!(exported, "no cache was exported\n{}", self.printed);
        self
    }

    /// This, of which layerd must have said something with `part` in it.
    #[track_caller]
    pub fn told(self, part: &str) -> Self {
        let told = self.told.iter().any(|line| line.contains(part));
        assert!(told, "no {part:?}\n{}", self.printed);
        self
    }

    fn any_told(&self, start: &str) -> bool {
        self.told.iter().any(|line| line.starts_with(start))
    }

    #[track_caller]
    fn assert_cached(&self, expected: usize, of: usize) {
        let cached = self.steps.values().filter(|cached| **cached).count();
        assert!(
            cached == expected && self.steps.len() == of,
            "{}\n{cached} of {} steps came from the cache, not {expected} of {of}: {:#?}",
            self.printed,
            self.steps.len(),
            self.steps
        );
    }
}

/// Whether a vertex is a step of a Dockerfile: `[stage 1/2] RUN …`.
fn is_step(name: &str) -> bool {
    let bracket = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let number = bracket.and_then(|(inside, _)| inside.rsplit(' ').next()?.split_once('/'));
    number.is_some_and(|(step, of)| step.parse::<u32>().is_ok() && of.parse::<u32>().is_ok())
}
