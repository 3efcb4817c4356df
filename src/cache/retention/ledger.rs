//! How many exports name each blob, of all projects and of each.

use std::collections::{BTreeMap, HashMap};

use super::Totals;
use crate::digest::Digest;
use crate::place::ProjectId;

/// What exports name. Blobs and projects go by numbers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By the whole digest: somebody can make two blobs that share some bytes of
    /// it.
    numbers: HashMap<Digest, u32>,
    blobs: Vec<Blob>,
    names: BTreeMap<ProjectId, usize>,
    projects: Vec<Project>,
    totals: Totals,
}

#[derive(Clone, Copy, Debug)]
struct Blob {
    size: u64,
    exports: u32,
}

#[derive(Debug, Default)]
struct Project {
    exports: HashMap<u32, u32>,
    bytes: u64,
}

impl Ledger {
    /// The number of a project.
    pub(super) fn project(&mut self, name: &ProjectId) -> usize {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        self.projects.push(Project::default());
        let number = self.projects.len() - 1;
        self.names.insert(name.clone(), number);
        number
    }

    /// How many projects there are.
    pub(super) fn projects(&self) -> usize {
        self.projects.len()
    }

    /// Projects by name, and their numbers.
    pub(super) fn by_name(&self) -> Vec<(ProjectId, usize)> {
        let names = self.names.iter();
        names
            .map(|(name, number)| (name.clone(), *number))
            .collect()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn bytes_of(&self, project: usize) -> u64 {
        self.projects[project].bytes
    }

    /// An export of the project names those.
    pub(super) fn name(&mut self, project: usize, blobs: &[(Digest, u64)]) -> Box<[u32]> {
        self.totals.exports += 1;
        let mut numbers: Vec<u32> = blobs.iter().map(|blob| self.number(blob)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in &numbers {
            let blob = &mut self.blobs[*number as usize];
            blob.exports += 1;
            if blob.exports == 1 {
                self.totals.blobs += 1;
                self.totals.bytes += blob.size;
            }
            let owner = &mut self.projects[project];
            let naming = owner.exports.entry(*number).or_default();
            *naming += 1;
            if *naming == 1 {
                owner.bytes += blob.size;
            }
        }
        numbers.into()
    }

    /// It does no more; gives the bytes that nothing names then.
    pub(super) fn release(&mut self, project: usize, numbers: &[u32]) -> u64 {
        self.totals.exports -= 1;
        let mut freed = 0;
        for number in numbers {
            let blob = &mut self.blobs[*number as usize];
            blob.exports -= 1;
            if blob.exports == 0 {
                freed += blob.size;
                self.totals.blobs -= 1;
            }
            let owner = &mut self.projects[project];
            if let Some(naming) = owner.exports.get_mut(number) {
                *naming -= 1;
                if *naming == 0 {
                    owner.exports.remove(number);
                    owner.bytes -= blob.size;
                }
            }
        }
        self.totals.bytes -= freed;
        freed
    }

    fn number(&mut self, (digest, size): &(Digest, u64)) -> u32 {
        let next = u32::try_from(self.blobs.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(*digest).or_insert_with(|| {
            self.blobs.push(Blob {
                size: *size,
                exports: 0,
            });
            next
        })
    }
}
