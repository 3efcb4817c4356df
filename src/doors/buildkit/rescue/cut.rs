//! Cuts the graph of a build to what succeeded.
//!
//! Kept are the steps whose result is there and all that they stand on, each as
//! the very bytes that it came in but for what [`anew`] says. Where several of them have nothing above
//! them, a merge is put there, of which BuildKit makes a reference to their
//! layers and no more: one definition has one result, and a cache config with
//! several ends loses links when BuildKit v0.32.2 loads it.
//!
//! A step that ran without an input can't be told from a source that was only
//! looked at (BuildKit: `sharedOp.CacheMap`), so that none of these is an end.
//! Neither is a step of which several outputs are asked for: only those that
//! were needed are in BuildKit's cache, and which they are nobody says.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use prost::Message as _;

use super::super::proto::pb;
use super::anew;
use super::definitions::{Definitions, Edge, Operation, inputs};
use crate::digest::Digest;

/// Ends beyond these are left out, with what only they stand on.
const MAX_ENDS: usize = 256;

/// What is left of a graph.
pub struct Cut {
    /// A `pb.Definition`.
    pub definition: Vec<u8>,
    /// How many steps in it succeeded.
    pub steps: usize,
    /// How many of those have nothing above them.
    pub ends: usize,
}

/// What is left of `definitions` where only `succeeded` did; `None` where that
/// is no step. No file of a client matches `pattern`.
pub fn cut(definitions: &Definitions, succeeded: &HashSet<Digest>, pattern: &str) -> Option<Cut> {
    let graph = Graph::new(&definitions.operations, &definitions.results);
    let ends = graph.ends(succeeded);
    if ends.is_empty() {
        return None;
    }
    let mut needed = vec![false; graph.names.len()];
    ends.iter().for_each(|&end| needed[end] = true);
    for &at in graph.sorted.iter().rev() {
        if needed[at] {
            graph.below(at).for_each(|below| needed[below] = true);
        }
    }
    let kept = graph.sorted.iter().filter(|&&at| needed[at]);
    let kept: Vec<&Digest> = kept.map(|&at| graph.names[at]).collect();
    let is_step = |at: usize| needed[at] && !graph.inputs[at].is_empty();
    let steps = (0..needed.len()).filter(|&at| is_step(at) && succeeded.contains(graph.names[at]));
    let mut encoder = Encoder::default();
    for name in kept {
        // All of them come from there.
        if let Some(operation) = definitions.operations.get(name) {
            encoder.add(name, operation, pattern);
        }
    }
    Some(Cut {
        steps: steps.count(),
        ends: ends.len(),
        definition: encoder.finish(&graph.edges(&ends)),
    })
}

/// Which output of an operation is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Never,
    One(i64),
    Several,
}

impl Asked {
    fn and(self, index: i64) -> Self {
        match self {
            Self::Never => Self::One(index),
            Self::One(asked) if asked == index => self,
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

struct Graph<'a> {
    /// In the order of the digests, so that the same graph is cut the same way.
    names: Vec<&'a Digest>,
    inputs: Vec<Vec<Edge>>,
    index: HashMap<&'a Digest, usize>,
    asked: Vec<Asked>,
    /// Every operation that stands on something whole, after what it stands on.
    sorted: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn new(operations: &'a HashMap<Digest, Operation>, results: &BTreeSet<Edge>) -> Self {
        let mut names: Vec<&Digest> = operations.keys().collect();
        names.sort_unstable();
        let index: HashMap<&Digest, usize> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (*name, at))
            .collect();
        let mut asked = vec![Asked::Never; names.len()];
        let mut ask = |(digest, output): &Edge| {
            if let Some(&at) = index.get(digest) {
                asked[at] = asked[at].and(*output);
            }
        };
        results.iter().for_each(&mut ask);

        let mut edges = Vec::with_capacity(names.len());
        let mut above: Vec<Vec<usize>> = vec![Vec::new(); names.len()];
        let mut missing = vec![0_usize; names.len()];
        for (at, name) in names.iter().enumerate() {
            let inputs = operations.get(name).map(|op| inputs(&op.bytes));
            let Some(Ok(inputs)) = inputs else {
                // Nothing can stand on what can't be read.
                missing[at] = usize::MAX;
                edges.push(Vec::new());
                continue;
            };
            inputs.iter().for_each(&mut ask);
            missing[at] = inputs.len();
            for (digest, _) in inputs.iter().filter(|(_, output)| *output >= 0) {
                // What isn't there leaves this one waiting for ever.
                if let Some(&below) = index.get(digest) {
                    above[below].push(at);
                }
            }
            edges.push(inputs);
        }

        let mut ready: VecDeque<usize> = (0..names.len()).filter(|&at| missing[at] == 0).collect();
        let mut sorted = Vec::with_capacity(names.len());
        while let Some(at) = ready.pop_front() {
            sorted.push(at);
            for &above in &above[at] {
                missing[above] -= 1;
                if missing[above] == 0 {
                    ready.push_back(above);
                }
            }
        }
        Self {
            names,
            inputs: edges,
            index,
            asked,
            sorted,
        }
    }

    /// What an operation stands on.
    fn below(&self, at: usize) -> impl Iterator<Item = usize> {
        let inputs = self.inputs[at].iter();
        inputs.filter_map(|(digest, _)| self.index.get(digest).copied())
    }

    /// Steps that succeeded, below no other such.
    fn ends(&self, succeeded: &HashSet<Digest>) -> Vec<usize> {
        let mut covered = vec![false; self.names.len()];
        let mut ends = Vec::new();
        for &at in self.sorted.iter().rev() {
            let is_end = matches!(self.asked[at], Asked::One(0..))
                && !self.inputs[at].is_empty()
                && succeeded.contains(self.names[at]);
            if is_end && !covered[at] {
                ends.push(at);
            }
            if is_end || covered[at] {
                self.below(at).for_each(|below| covered[below] = true);
            }
        }
        ends.sort_unstable();
        ends.truncate(MAX_ENDS);
        ends
    }

    fn edges(&self, ends: &[usize]) -> Vec<Edge> {
        let edge = |&end: &usize| match self.asked[end] {
            Asked::One(output) => Some((*self.names[end], output)),
            Asked::Never | Asked::Several => None,
        };
        ends.iter().filter_map(edge).collect()
    }
}

/// A definition that is being written, from the sources up.
#[derive(Default)]
struct Encoder {
    definition: pb::Definition,
    /// Operations that are not what they were, and what they are now.
    renamed: HashMap<Digest, Digest>,
}

impl Encoder {
    fn add(&mut self, name: &Digest, operation: &Operation, pattern: &str) {
        let edited = match anew::source(&operation.bytes, pattern) {
            Ok(None) => anew::above(&operation.bytes, &self.renamed),
            edited => edited,
        };
        // One that can't be edited stays: BuildKit says what it thinks of it.
        let edited = edited.ok().flatten().map(Bytes::from);
        let bytes = edited.unwrap_or_else(|| operation.bytes.clone());
        let now = Digest::of(&bytes);
        if now != *name {
            self.renamed.insert(*name, now);
        }
        if let Some(value) = operation.export_cache {
            let export_cache = Some(pb::ExportCache { value });
            let metadata = pb::OpMetadata { export_cache };
            self.definition.metadata.insert(now.to_string(), metadata);
        }
        self.definition.def.push(bytes);
    }

    /// Ends it with `ends` as its result.
    fn finish(mut self, ends: &[Edge]) -> Vec<u8> {
        let ends = ends.iter().map(|(name, output)| pb::Input {
            digest: self.renamed.get(name).unwrap_or(name).to_string(),
            index: *output,
        });
        let mut ends: Vec<pb::Input> = ends.collect();
        if ends.len() > 1 {
            let inputs = (0..ends.len() as i64).map(|input| pb::MergeInput { input });
            let merge = pb::Op {
                op: Some(pb::op::Op::Merge(pb::MergeOp {
                    inputs: inputs.collect(),
                })),
                inputs: ends,
            };
            let merge = merge.encode_to_vec();
            ends = vec![pb::Input {
                digest: Digest::of(&merge).to_string(),
                index: 0,
            }];
            self.definition.def.push(merge.into());
        }
        let result = pb::Op {
            inputs: ends,
            op: None,
        };
        self.definition.def.push(result.encode_to_vec().into());
        self.definition.encode_to_vec()
    }
}

#[cfg(test)]
mod tests;
