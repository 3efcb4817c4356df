//! Whether an export adds nothing to a newer one.
//!
//! Put beside the newer one, it must bring no record, make no two records one,
//! and bring no link by which a build could find a record: then no union gains
//! anything by it, since all that it says follows from what the newer one says.
//! Its results may differ, as those of a step that ran again do: each must be
//! one that no reader is served while the newer export is there. So what a
//! union serves is the same with the older export and without it.

use std::collections::HashSet;

use super::results::Ranked;
use super::snapshot::Snapshot;
use super::{ExportSource, Union};

/// An export whose every layer is there, and that older ones are held against.
#[derive(Clone, Debug)]
pub struct Newer {
    alone: Union,
}

impl Newer {
    /// Takes time about the export's size, as each comparison does.
    pub fn new(export: &ExportSource<'_>) -> Self {
        let mut alone = Union::default();
        alone.add(export);
        Self { alone }
    }

    /// Whether `older` can go without a loss to any reader.
    pub fn subsumes(&self, older: &ExportSource<'_>) -> bool {
        let mut both = self.alone.clone();
        both.add(older);
        let (before, after) = (Snapshot::of(&self.alone), Snapshot::of(&both));
        if before.len() != after.len() || before.links_count() != after.links_count() {
            return false;
        }
        let now = |id: &u32| both.records.find(*id);
        let distinct: HashSet<u32> = before.ids.iter().map(now).collect();
        if distinct.len() != before.len() {
            return false;
        }
        // Every record is one that was there, and so is every link.
        let described = |union: &Union| union.layers.deliverable(&|_| true);
        let (known, all) = (described(&self.alone), described(&both));
        before.ids.iter().all(|id| {
            both.results.ranked(now(id), &both.layers).all(|result| {
                let stands_in = |other: Ranked| {
                    let deliverable = known[other.outcome.0 as usize];
                    // Nobody was ever served this one, and it stays.
                    let idle = !all[result.outcome.0 as usize] && other.outcome == result.outcome;
                    other.rank >= result.rank
                        && other.packed == result.packed
                        && (deliverable || idle)
                };
                let mut of_newer = self.alone.results.ranked(*id, &self.alone.layers);
                of_newer.any(stands_in)
            })
        })
    }
}
