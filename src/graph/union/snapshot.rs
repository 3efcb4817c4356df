//! The records of a union at one moment, numbered densely, with what leads
//! where.

use super::Union;
use super::identity::Alternative;
use super::intern::NONE;
use super::results::{Choice, Outcome, Wanted};

/// The records and their alternatives.
pub(super) struct Snapshot {
    /// A record's number in the union.
    pub(super) ids: Vec<u32>,
    /// The other way round; [`NONE`] for those that moved.
    numbers: Vec<u32>,
    /// Record `n` has `links[starts[n]..starts[n + 1]]`.
    starts: Vec<usize>,
    links: Vec<Alternative>,
}

impl Snapshot {
    pub(super) fn of(union: &Union) -> Self {
        let records = &union.records;
        let mut numbers = vec![NONE; records.len()];
        let mut ids = Vec::new();
        for id in 0..records.len() as u32 {
            if records.find(id) == id {
                numbers[id as usize] = ids.len() as u32;
                ids.push(id);
            }
        }
        let (mut starts, mut links) = (vec![0], Vec::new());
        for &id in &ids {
            let mut own: Vec<Alternative> = (records.alternatives(id))
                .map(|link| Alternative {
                    parent: numbers[link.parent as usize],
                    ..link
                })
                .collect();
            own.sort_unstable();
            own.dedup();
            links.extend(own);
            starts.push(links.len());
        }
        Self {
            ids,
            numbers,
            starts,
            links,
        }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many links there are.
    pub(super) fn links_count(&self) -> usize {
        self.links.len()
    }

    /// A record's alternatives, by input.
    pub(super) fn links(&self, record: u32) -> &[Alternative] {
        &self.links[self.starts[record as usize]..self.starts[record as usize + 1]]
    }

    /// The records of an export, ancestors first; one may come twice.
    pub(super) fn of_export(&self, union: &Union, export: u32) -> impl Iterator<Item = u32> {
        let records = union.exports[export as usize].records.iter();
        records.map(|&id| self.numbers[union.records.find(id) as usize])
    }

    /// What is served of each record.
    pub(super) fn choose(&self, union: &Union, wanted: &Wanted<'_>) -> Vec<Choice> {
        let choose = |&id: &u32| union.results.choose(id, &union.layers, wanted);
        self.ids.iter().map(choose).collect()
    }

    /// Marks the records that lead to an outcome, among those that `within`
    /// has.
    pub(super) fn leading(&self, outcomes: &[Option<Outcome>], within: &[bool]) -> Vec<bool> {
        let mut leads = vec![false; self.len()];
        let mut found: Vec<u32> = Vec::new();
        for (record, outcome) in outcomes.iter().enumerate() {
            if outcome.is_some() && within[record] {
                leads[record] = true;
                found.push(record as u32);
            }
        }
        while let Some(record) = found.pop() {
            for link in self.links(record) {
                let parent = link.parent as usize;
                if within[parent] && !std::mem::replace(&mut leads[parent], true) {
                    found.push(link.parent);
                }
            }
        }
        leads
    }
}
