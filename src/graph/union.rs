//! Many exports as one: every record that any of them holds, with every
//! result.
//!
//! A union takes in one export after another, in time about the export's own
//! size, and serves what is asked for: the records that lead to a result that
//! can be delivered, cut to a budget, as a config that BuildKit loads. What
//! is served depends on which exports are in the union and on nothing else,
//! the order of their arrival included. All that is in a union is visible to
//! whoever it is served to.
//!
//! ```
//! use layerd::graph::{ExportSource, Parsed, Serving, Union};
//!
//! let step = format!("sha256:{:064}", 1);
//! let config = format!(r#"{{"records":[{{"digest":"{step}"}}]}}"#);
//! let mut union = Union::default();
//! union.add(&ExportSource {
//!     id: 1,
//!     time: Some("2026-01-01T00:00:00Z".parse()?),
//!     config: &Parsed::read(config.as_bytes())?,
//!     layers: &[],
//! });
//! let served = union.serve(&Serving::of(&|_| true));
//! assert_eq!((union.records(), served.records), (1, 0), "it leads to no result");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`identity`] says which records are one, [`intake`] what is taken of a bad
//! config, [`results`] which result of a record is served, [`budget`] what is
//! cut, [`arrange`] how loops are broken and records sorted, [`subsume`] when
//! an export adds nothing to a newer one, [`parting`] why two exports part.

mod arrange;
mod budget;
mod encode;
#[cfg(test)]
mod generate;
mod identity;
mod intake;
mod intern;
mod layers;
mod parting;
mod results;
mod serve;
mod snapshot;
mod subsume;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::Timestamp;

pub use self::budget::Budget;
use self::identity::{Alternative, Records};
pub use self::intake::Parsed;
use self::layers::Layers;
pub use self::parting::{Part, Reason};
pub use self::results::Compression;
use self::results::Results;
pub use self::serve::{LeftOut, Served, Serving};
pub use self::subsume::Newer;
pub use self::survey::{Comparison, Survey, SurveyedRecord};
use super::Descriptor;

/// The digest of the record that joins every leaf of what is served, as a
/// workaround for links that BuildKit drops (see [`encode`]). No export's
/// record may have it, so that it is never in use.
const JOINING: &str = "sha256:fed4b60f79df31fb6cd2eb9ffb153f43a9606635c1bdd096ddf7d17cdff165cd";

/// The union of any number of exports.
#[derive(Clone, Debug, Default)]
pub struct Union {
    records: Records,
    layers: Layers,
    results: Results,
    exports: Vec<Source>,
    by_id: HashMap<u64, u32>,
}

/// An export that is in the union.
#[derive(Clone, Debug)]
struct Source {
    id: u64,
    time: Option<Timestamp>,
    /// Its records, ancestors first. Some may have moved since.
    records: Box<[u32]>,
}

/// An export to be taken in.
#[derive(Clone, Copy, Debug)]
pub struct ExportSource<'a> {
    /// Its number in the log: each stands in the union once.
    pub id: u64,
    /// When it was written, where that is known.
    pub time: Option<Timestamp>,
    /// Its config.
    pub config: &'a Parsed,
    /// What its manifest says of its layers.
    pub layers: &'a [Descriptor],
}

/// What of an export was not taken in, by reason. Records, unless it says
/// otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// Not to be read as a record.
    pub malformed: u64,
    /// With a digest that never comes again.
    pub random: u64,
    /// The joining record of something that was served.
    pub joining: u64,
    /// With an input that nothing satisfies: empty, in a loop, or on top of
    /// what was refused.
    pub unfounded: u64,
    /// Links that point to no record.
    pub dangling: u64,
    /// Results whose layers are not there, in a loop, or none at all.
    pub results: u64,
    /// Layers that another export describes otherwise.
    pub contradicting: u64,
}

impl Refused {
    /// All of it.
    pub fn count(&self) -> u64 {
        let records = self.malformed + self.random + self.joining + self.unfounded;
        records + self.dangling + self.results + self.contradicting
    }
}

impl std::ops::AddAssign for Refused {
    fn add_assign(&mut self, other: Self) {
        self.malformed += other.malformed;
        self.random += other.random;
        self.joining += other.joining;
        self.unfounded += other.unfounded;
        self.dangling += other.dangling;
        self.results += other.results;
        self.contradicting += other.contradicting;
    }
}

impl Union {
    /// How many records there are.
    pub fn records(&self) -> usize {
        let all = 0..self.records.len() as u32;
        all.filter(|record| self.records.find(*record) == *record)
            .count()
    }

    /// Whether the export with this number is in the union.
    pub fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Takes in an export; one that is there already changes nothing. What is
    /// wrong with a record costs that record and what can't stand without it.
    pub fn add(&mut self, export: &ExportSource<'_>) -> Refused {
        let mut refused = Refused::default();
        if self.contains(export.id) {
            return refused;
        }
        self.records.begin();
        for descriptor in export.layers {
            if !self.layers.describe(export.id, descriptor) {
                refused.contradicting += 1;
            }
        }
        let layers = &mut self.layers;
        let tree = export
            .config
            .tree(|blob, parent| layers.layer(blob, parent));
        let standing = export.config.standing(&mut refused);
        let mut numbers: HashMap<usize, u32> = HashMap::with_capacity(standing.len());
        let mut late = Vec::new();
        let mut taken = Vec::with_capacity(standing.len());
        for record in standing {
            let mut alternatives = Vec::with_capacity(record.links.len());
            for (input, selector, parent) in record.links {
                let selector = self.records.selectors.number(selector.into());
                match numbers.get(&parent) {
                    Some(&parent) => alternatives.push(Alternative {
                        input,
                        selector,
                        parent,
                    }),
                    None => late.push((record.index, input, selector, parent)),
                }
            }
            alternatives.sort_unstable();
            let digest = record.digest.clone();
            let number = self.records.insert(digest, record.inputs, &alternatives);
            numbers.insert(record.index, number);
            taken.push(number);
            let layer = |blob, parent| self.layers.layer(blob, parent);
            let results = export
                .config
                .results(record.index, &tree, layer, &mut refused);
            for outcome in results {
                self.results.add(number, outcome, export.time);
            }
        }
        for (record, input, selector, parent) in late {
            if let (Some(&record), Some(&parent)) = (numbers.get(&record), numbers.get(&parent)) {
                self.records.extend(
                    record,
                    Alternative {
                        input,
                        selector,
                        parent,
                    },
                );
            }
        }
        for (to, from) in self.records.take_moved() {
            self.results.unite(to, from);
        }
        self.by_id.insert(export.id, self.exports.len() as u32);
        self.exports.push(Source {
            id: export.id,
            time: export.time,
            records: taken.into(),
        });
        refused
    }
}
