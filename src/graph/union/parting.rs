//! Why two exports part: the steps that only one of them has though all that
//! they stand on is in both, and what the other has in their place.
//!
//! A step that copies or mounts files stands on their contents, which are
//! records with no inputs and no result of their own: where only those differ,
//! it is the same command on other files.

use std::collections::HashMap;

use super::{Comparison, Survey, SurveyedRecord};
use crate::graph::RecordDigest;

/// How many records of the other export are looked at for one.
const CANDIDATES: usize = 64;

/// A step where two exports part. Positions are those of the [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The record.
    pub record: usize,
    /// Whether the first export has it, and not the second.
    pub of_first: bool,
    /// Why the other export does not have it.
    pub reason: Reason,
    /// What the other export has in its place: none for [`Reason::Alone`].
    pub siblings: Vec<usize>,
}

/// Why an export does not have a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It ran the same command on other contents at these inputs, the first of
    /// which is 0.
    Contents(Vec<usize>),
    /// It ran another command on the same input.
    Command,
    /// It began with another image or source.
    Source,
    /// It has nothing like it.
    Alone,
}

/// The parts of one side, to be found by what they have in common with those of
/// the other.
#[derive(Default)]
struct Side<'a> {
    /// With the inputs that only contents set apart.
    parts: Vec<(usize, Vec<usize>)>,
    by_kind: HashMap<(&'a RecordDigest, usize), Vec<usize>>,
    by_parent: HashMap<usize, Vec<usize>>,
    sources: Vec<usize>,
}

impl SurveyedRecord {
    /// Whether it names contents, and no step.
    pub fn is_content(&self) -> bool {
        self.inputs.is_empty() && self.results == 0
    }
}

impl Survey {
    /// Where the two exports of `comparison` part: those of the first, then
    /// those of the second.
    pub fn parts(&self, comparison: &Comparison) -> Vec<Part> {
        let first = self.side(&comparison.first);
        let second = self.side(&comparison.second);
        let of = |own: &Side<'_>, other: &Side<'_>, of_first| {
            let part = |(record, contents): &(usize, Vec<usize>)| {
                let (reason, siblings) = self.reason(*record, contents, other);
                Part {
                    record: *record,
                    of_first,
                    reason,
                    siblings,
                }
            };
            own.parts.iter().map(part).collect::<Vec<_>>()
        };
        let mut parts = of(&first, &second, true);
        parts.extend(of(&second, &first, false));
        parts
    }

    fn side(&self, only: &[usize]) -> Side<'_> {
        let mut own = vec![false; self.records.len()];
        for &record in only {
            own[record] = true;
        }
        let mut side = Side::default();
        for &at in only {
            let record = &self.records[at];
            if record.is_content() {
                continue;
            }
            let Some(contents) = self.contents_apart(record, &own) else {
                continue;
            };
            let kind = (&record.digest, record.inputs.len());
            side.by_kind.entry(kind).or_default().push(at);
            let shared = record.inputs.iter().flatten().filter(|at| !own[**at]);
            for parent in shared {
                let at_parent = side.by_parent.entry(*parent).or_default();
                if at_parent.last() != Some(&at) {
                    at_parent.push(at);
                }
            }
            if record.inputs.is_empty() {
                side.sources.push(at);
            }
            side.parts.push((at, contents));
        }
        side
    }

    /// The inputs at which the record stands on contents that only this side
    /// has; none where it stands on a step that only this side has.
    fn contents_apart(&self, record: &SurveyedRecord, own: &[bool]) -> Option<Vec<usize>> {
        let mut apart = Vec::new();
        for (number, input) in record.inputs.iter().enumerate() {
            if input.iter().any(|parent| !own[*parent]) {
                continue;
            }
            if input
                .iter()
                .any(|parent| !self.records[*parent].is_content())
            {
                return None;
            }
            apart.push(number);
        }
        Some(apart)
    }

    fn reason(&self, at: usize, contents: &[usize], other: &Side<'_>) -> (Reason, Vec<usize>) {
        let record = &self.records[at];
        if record.inputs.is_empty() {
            return match other.sources.as_slice() {
                [] => (Reason::Alone, Vec::new()),
                sources => (
                    Reason::Source,
                    sources.iter().copied().take(CANDIDATES).collect(),
                ),
            };
        }
        let kind = (&record.digest, record.inputs.len());
        let same: Vec<usize> = (other.by_kind.get(&kind).into_iter().flatten())
            .copied()
            .take(CANDIDATES)
            .filter(|sibling| self.differ_in(at, *sibling, contents))
            .collect();
        if !same.is_empty() {
            return (Reason::Contents(contents.to_vec()), same);
        }
        let mut on_the_same: Vec<usize> = (record.inputs.iter().flatten())
            .filter_map(|parent| other.by_parent.get(parent))
            .flatten()
            .copied()
            .take(CANDIDATES)
            .collect();
        on_the_same.sort_unstable();
        on_the_same.dedup();
        match on_the_same.as_slice() {
            [] => (Reason::Alone, Vec::new()),
            _ => (Reason::Command, on_the_same),
        }
    }

    /// Whether two records of one kind have all inputs in common but these.
    fn differ_in(&self, one: usize, other: usize, contents: &[usize]) -> bool {
        let pairs = (self.records[one].inputs.iter()).zip(&self.records[other].inputs);
        pairs.enumerate().all(|(number, (one, other))| {
            contents.contains(&number) || one.iter().any(|parent| other.contains(parent))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, inputs: &[&[usize]], results: usize, exports: &[u64]) -> SurveyedRecord {
        SurveyedRecord {
            digest: format!("sha256:{name}").parse().unwrap(),
            inputs: inputs.iter().map(|input| input.to_vec()).collect(),
            depth: 0,
            results,
            made: Vec::new(),
            exports: exports.to_vec(),
        }
    }

    fn parts(records: Vec<SurveyedRecord>) -> Vec<(usize, Reason, Vec<usize>)> {
        let survey = Survey { records, loops: 0 };
        let parts = survey.parts(&survey.compare(1, 2)).into_iter();
        parts
            .map(|part| (part.record, part.reason, part.siblings))
            .collect()
    }

    #[test]
    fn a_changed_file_parts_at_the_step_that_copies_it_and_not_above() {
        let found = parts(vec![
            record("base", &[], 1, &[1, 2]),
            record("old", &[], 0, &[1]),
            record("new", &[], 0, &[2]),
            record("copy", &[&[0], &[1]], 1, &[1]),
            record("copy", &[&[0], &[2]], 1, &[2]),
            record("run", &[&[3]], 1, &[1]),
            record("run", &[&[4]], 1, &[2]),
        ]);
        let contents = || Reason::Contents(vec![1]);
        assert_eq!(found, [(3, contents(), vec![4]), (4, contents(), vec![3])]);
    }

    #[test]
    fn a_changed_command_stands_beside_the_one_on_the_same_input() {
        let found = parts(vec![
            record("base", &[], 1, &[1, 2]),
            record("make", &[&[0]], 1, &[1]),
            record("make-j", &[&[0]], 1, &[2]),
            record("install", &[&[1]], 1, &[1]),
            record("install", &[&[2]], 1, &[2]),
        ]);
        let expected = [(1, Reason::Command, vec![2]), (2, Reason::Command, vec![1])];
        assert_eq!(found, expected);
    }

    #[test]
    fn another_base_is_another_source_and_a_step_more_stands_alone() {
        let found = parts(vec![
            record("alpine", &[], 1, &[1]),
            record("debian", &[], 1, &[2]),
            record("run", &[&[0]], 1, &[1]),
            record("run", &[&[1]], 1, &[2]),
        ]);
        let expected = [(0, Reason::Source, vec![1]), (1, Reason::Source, vec![0])];
        assert_eq!(found, expected);
        let found = parts(vec![
            record("base", &[], 1, &[1, 2]),
            record("more", &[&[0]], 1, &[2]),
        ]);
        assert_eq!(found, [(1, Reason::Alone, Vec::new())]);
    }

    #[test]
    fn an_input_that_is_met_by_a_shared_record_is_no_difference() {
        let found = parts(vec![
            record("base", &[], 1, &[1, 2]),
            record("run", &[&[0]], 1, &[1, 2]),
            record("given", &[], 0, &[1]),
            record("copy", &[&[0], &[1, 2]], 1, &[1]),
            record("chown", &[&[0], &[1]], 1, &[2]),
        ]);
        let expected = [(3, Reason::Command, vec![4]), (4, Reason::Command, vec![3])];
        assert_eq!(found, expected);
    }
}
