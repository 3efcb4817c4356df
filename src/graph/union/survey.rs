//! A union as a person looks at it: which records there are, what they stand
//! on, who gave them, and where two exports part.

use jiff::Timestamp;

use super::Union;
use super::arrange::arrange;
use super::intern::NONE;
use super::snapshot::Snapshot;
use crate::graph::RecordDigest;

/// Every record of a union, ancestors first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The records; always in the same order.
    pub records: Vec<SurveyedRecord>,
    /// Links that were dropped because they made a record its own ancestor.
    pub loops: u64,
}

/// A record of a union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedRecord {
    /// The step without its inputs.
    pub digest: RecordDigest,
    /// The positions of the records that it stands on: of each input, the
    /// alternatives.
    pub inputs: Vec<Vec<usize>>,
    /// Records on the longest way down to a root; a root has 0.
    pub depth: u32,
    /// How many results are known.
    pub results: usize,
    /// When those were made, as far as they say; each date once.
    pub made: Vec<Timestamp>,
    /// The exports that hold it, by number.
    pub exports: Vec<u64>,
}

/// Two exports side by side. Positions are those of the [`Survey`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The records that both hold.
    pub shared: Vec<usize>,
    /// Those that only the first holds.
    pub first: Vec<usize>,
    /// Those that only the second holds.
    pub second: Vec<usize>,
    /// Where they part: of the records that only one holds, those that stand
    /// on nothing that only this one holds.
    pub parting: Vec<usize>,
}

impl Union {
    /// All records.
    pub fn survey(&self) -> Survey {
        let snapshot = Snapshot::of(self);
        let arranged = arrange(self, &snapshot, &vec![true; snapshot.len()]);
        let mut positions = vec![NONE; snapshot.len()];
        for (position, &record) in arranged.records.iter().enumerate() {
            positions[record as usize] = position as u32;
        }
        let mut records: Vec<SurveyedRecord> = Vec::with_capacity(arranged.records.len());
        for (&record, links) in arranged.records.iter().zip(&arranged.links) {
            let id = snapshot.ids[record as usize];
            let above = links
                .iter()
                .map(|link| records[link.parent as usize].depth + 1);
            records.push(SurveyedRecord {
                digest: self.records.digest(id).clone(),
                depth: above.max().unwrap_or(0),
                inputs: (links.chunk_by(|a, b| a.input == b.input))
                    .map(|input| input.iter().map(|link| link.parent as usize).collect())
                    .collect(),
                results: self.results.count(id),
                made: self.results.dates(id),
                exports: Vec::new(),
            });
        }
        for (number, source) in self.exports.iter().enumerate() {
            for record in snapshot.of_export(self, number as u32) {
                if let Some(record) = records.get_mut(positions[record as usize] as usize)
                    && record.exports.last() != Some(&source.id)
                {
                    record.exports.push(source.id);
                }
            }
        }
        for record in &mut records {
            record.exports.sort_unstable();
        }
        Survey {
            records,
            loops: arranged.loops,
        }
    }
}

impl Survey {
    /// What two exports share, and where they part.
    pub fn compare(&self, first: u64, second: u64) -> Comparison {
        let holds = |record: &SurveyedRecord, id: u64| record.exports.binary_search(&id).is_ok();
        let mut comparison = Comparison::default();
        let mut own = vec![false; self.records.len()];
        for (position, record) in self.records.iter().enumerate() {
            let list = match (holds(record, first), holds(record, second)) {
                (true, true) => {
                    comparison.shared.push(position);
                    continue;
                }
                (true, false) => &mut comparison.first,
                (false, true) => &mut comparison.second,
                (false, false) => continue,
            };
            list.push(position);
            own[position] = true;
            // An input may be met by a record of either, or of neither.
            let on_shared = |input: &Vec<usize>| input.iter().any(|parent| !own[*parent]);
            if record.inputs.iter().all(on_shared) {
                comparison.parting.push(position);
            }
        }
        comparison
    }
}
