//! Which step of a build made which record.
//!
//! A cache config names no steps, and the progress of a build no records. What
//! they share is time and shape: BuildKit dates a record right after the vertex
//! that made it completed (`solver/edge.go`, `execOp`), and a record's inputs
//! stand in the order of its vertex's. Time alone does not tell steps apart that
//! run side by side: the completion just before a record's date is often that
//! of a neighbour. So a record begins with every step that completed in the
//! moments before it, and loses those that can't be, until nothing changes:
//!
//! - a step whose input was made by a step that can't have made the record that
//!   stands there;
//! - a step that no record on top of it could have had as its input;
//! - a step that began before what the record stands on was there, or made it.
//!
//! A record that is left with one step has its name; any other has none.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::{Config, Record};
use crate::digest::Digest;
use crate::step::{Step, StepName};

/// How long after a step's completion its record may be dated. 7 to 40 ms were
/// seen on a busy machine; a longer time only leaves more records nameless.
const LAG: SignedDuration = SignedDuration::from_secs(2);

/// How far the date of a record may lie after the start of a step that needs
/// it: the two were read at different moments.
const SLACK: SignedDuration = SignedDuration::from_millis(50);

/// A record for which more steps come into question is left without a name.
const MAX_CANDIDATES: usize = 64;

/// How often all records are gone through; a chain needs a few times.
const MAX_ROUNDS: usize = 64;

/// A vertex of a build's progress.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// Its digest, which is another one than its record's.
    pub digest: Digest,
    /// The digests of its inputs, in order.
    pub inputs: Vec<Digest>,
    /// Its name.
    pub name: StepName,
    /// Whether it ran.
    pub run: Run,
}

/// Whether a vertex ran, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It did not, or failed: it made nothing.
    Not,
    /// It began, and may have ended at any time since.
    Since(Timestamp),
    /// From when to when.
    Done(Timestamp, Timestamp),
}

impl Run {
    /// Whether a result of that date can be of this run.
    fn could_give(&self, date: Timestamp) -> bool {
        match self {
            Self::Not => false,
            Self::Since(started) => *started <= date,
            Self::Done(_, completed) => {
                *completed <= date && date.duration_since(*completed) <= LAG
            }
        }
    }

    fn started(&self) -> Option<Timestamp> {
        match self {
            Self::Not => None,
            Self::Since(started) | Self::Done(started, _) => Some(*started),
        }
    }
}

/// The steps among `vertices` that made records of `config`, each known for
/// certain.
pub fn steps(config: &Config, vertices: &[Vertex]) -> Vec<Step> {
    let mut join = Join::new(&config.records, vertices);
    for _ in 0..MAX_ROUNDS {
        if !join.narrow() {
            break;
        }
    }
    join.certain()
}

struct Join<'a> {
    records: &'a [Record],
    vertices: &'a [Vertex],
    by_digest: HashMap<Digest, usize>,
    /// By record: the vertices that may have made it, or `None` where nothing
    /// is known.
    makers: Vec<Option<Vec<usize>>>,
}

impl<'a> Join<'a> {
    fn new(records: &'a [Record], vertices: &'a [Vertex]) -> Self {
        let mut ended: Vec<usize> = Vec::new();
        let mut open = Vec::new();
        for (at, vertex) in vertices.iter().enumerate() {
            match vertex.run {
                Run::Not => {}
                Run::Since(_) => open.push(at),
                Run::Done(..) => ended.push(at),
            }
        }
        let completed = |at: &usize| match vertices[*at].run {
            Run::Done(_, completed) => completed,
            Run::Not | Run::Since(_) => Timestamp::MAX,
        };
        ended.sort_by_key(completed);
        let makers = records.iter().map(|record| {
            let date = record.created_at()?;
            let earliest = date.checked_sub(LAG).unwrap_or(Timestamp::MIN);
            let from = ended.partition_point(|at| completed(at) < earliest);
            let to = ended.partition_point(|at| completed(at) <= date);
            let makers: Vec<usize> = ended[from..to]
                .iter()
                .chain(&open)
                .copied()
                .filter(|at| {
                    let vertex = &vertices[*at];
                    vertex.inputs.len() == record.inputs.len() && vertex.run.could_give(date)
                })
                .take(MAX_CANDIDATES + 1)
                .collect();
            (!makers.is_empty() && makers.len() <= MAX_CANDIDATES).then_some(makers)
        });
        Self {
            records,
            vertices,
            by_digest: vertices
                .iter()
                .enumerate()
                .map(|(at, vertex)| (vertex.digest, at))
                .collect(),
            makers: makers.collect(),
        }
    }

    /// Goes through all records once; whether anything changed.
    fn narrow(&mut self) -> bool {
        let mut changed = false;
        for record in 0..self.records.len() {
            let Some(makers) = &self.makers[record] else {
                continue;
            };
            let kept: Vec<usize> = makers
                .iter()
                .copied()
                .filter(|maker| self.is_possible(record, *maker))
                .collect();
            changed |= kept.len() < makers.len();
            self.makers[record] = Some(kept);
            changed |= self.narrow_inputs(record);
        }
        changed
    }

    /// Whether every input of the vertex can have been the one of the record.
    fn is_possible(&self, record: usize, maker: usize) -> bool {
        let vertex = &self.vertices[maker];
        let inputs = self.records[record].inputs.iter().zip(&vertex.inputs);
        inputs.enumerate().all(|(input, (links, below))| {
            let Some(only) = self.only_result(record, input) else {
                // Content alone, or alternatives: any of them will do.
                return links.iter().all(|link| !self.is(link.record, maker));
            };
            let date = self.records[only].created_at();
            let began_too_early = vertex
                .run
                .started()
                .zip(date)
                .is_some_and(|(started, date)| date.duration_since(started) > SLACK);
            if began_too_early || self.is(only, maker) {
                return false;
            }
            match (&self.makers[only], self.ran(below)) {
                (Some(makers), Some(below)) => makers.contains(&below),
                _ => true,
            }
        })
    }

    /// Whether that vertex made the record, for certain.
    fn is(&self, record: usize, maker: usize) -> bool {
        self.makers[record].as_deref() == Some(&[maker])
    }

    /// What stands below a record was made by an input of what may have made
    /// the record.
    fn narrow_inputs(&mut self, record: usize) -> bool {
        let mut changed = false;
        for input in 0..self.records[record].inputs.len() {
            let (Some(makers), Some(only)) =
                (&self.makers[record], self.only_result(record, input))
            else {
                continue;
            };
            let below: Option<Vec<usize>> = makers
                .iter()
                .map(|maker| self.ran(&self.vertices[*maker].inputs[input]))
                .collect();
            let Some(below) = below.filter(|below| !below.is_empty()) else {
                continue;
            };
            if let Some(makers) = &mut self.makers[only] {
                let before = makers.len();
                makers.retain(|maker| below.contains(maker));
                changed |= makers.len() < before;
            }
        }
        changed
    }

    /// The one record with a result that stands at an input.
    fn only_result(&self, record: usize, input: usize) -> Option<usize> {
        let links = &self.records[record].inputs[input];
        let mut results = links
            .iter()
            .map(|link| link.record)
            .filter(|linked| self.records[*linked].made().next().is_some());
        let first = results.next()?;
        results.all(|other| other == first).then_some(first)
    }

    fn ran(&self, vertex: &Digest) -> Option<usize> {
        let at = *self.by_digest.get(vertex)?;
        (self.vertices[at].run != Run::Not).then_some(at)
    }

    fn certain(&self) -> Vec<Step> {
        let mut named = vec![0_u32; self.vertices.len()];
        let only = |makers: &Option<Vec<usize>>| match makers.as_deref() {
            Some([maker]) => Some(*maker),
            _ => None,
        };
        for maker in self.makers.iter().filter_map(only) {
            named[maker] += 1;
        }
        let records = self.records.iter().zip(&self.makers);
        records
            .filter_map(|(record, makers)| {
                // One vertex makes one record: two mean a mistake in both.
                let maker = only(makers).filter(|maker| named[*maker] == 1)?;
                let vertex = &self.vertices[maker];
                let Run::Done(started, completed) = vertex.run else {
                    return None;
                };
                Some(Step {
                    record: record.digest.clone(),
                    created_at: record.created_at()?,
                    name: vertex.name.clone(),
                    duration: completed.duration_since(started).try_into().ok()?,
                    origin: None,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
