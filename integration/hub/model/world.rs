//! What clients were promised, by which what they see is judged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use layerd::cache::Import;
use layerd::digest::Digest;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::hub::ask::noise;

/// All clients' exports and blobs.
pub struct World {
    seed: u64,
    /// Blobs that clients share.
    pub blobs: u64,
    /// Projects that have nothing to do with each other.
    pub projects: u64,
    state: Mutex<State>,
}

/// What has happened.
#[derive(Clone, Default)]
pub struct State {
    /// Uploads that were begun: of a project, and a blob.
    pub begun: HashSet<(u64, Digest)>,
    /// Uploads that were answered, and what they were made of.
    pub stored: BTreeMap<u64, BTreeMap<Digest, u64>>,
    /// Exports, in the order of their beginning.
    pub exports: Vec<Exported>,
}

/// An export that was asked for.
#[derive(Clone)]
pub struct Exported {
    /// The client whose ref it is of.
    pub owner: u64,
    /// Its project.
    pub project: u64,
    /// Its layers, and those of them that no other export has.
    pub layers: Vec<Digest>,
    pub own: Vec<Digest>,
    /// Its number in the log, once that was told.
    pub id: i64,
    pub fate: Fate,
}

/// What may be seen of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All or nothing.
    Asked,
    /// All.
    Published,
    /// All or nothing, and nothing soon.
    Leaving,
    /// Nothing.
    Gone,
}

impl World {
    pub fn new(seed: u64, blobs: u64, projects: u64) -> Self {
        Self {
            seed,
            blobs,
            projects,
            state: Mutex::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The blob of that number: most are small, some are several pieces.
    pub fn content(&self, number: u64) -> Bytes {
        let seed = self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = StdRng::seed_from_u64(seed);
        let bytes = match number % 10 {
            0..8 => random.random_range(1..4000),
            8 => random.random_range(20_000..60_000),
            _ => random.random_range(300_000..900_000),
        };
        noise(seed, bytes)
    }

    /// Judges what a client of `project` found, of every ref or of `owner`'s
    /// alone; `before` is what had happened when it asked.
    #[track_caller]
    pub fn judge(&self, before: &State, project: u64, owner: Option<u64>, found: Option<&Import>) {
        let named: BTreeSet<Digest> = found
            .map(|import| import.layers.keys().copied().collect())
            .unwrap_or_default();
        let after = self.state();
        let mut allowed = BTreeSet::new();
        let ours = |export: &Exported| {
            export.project == project && owner.is_none_or(|owner| owner == export.owner)
        };
        for (at, export) in after.exports.iter().enumerate() {
            if !ours(export) {
                continue;
            }
            let then = before.exports.get(at).map(|export| export.fate);
            let seen = export.own.iter().filter(|own| named.contains(own)).count();
            let told = || {
                format!(
                    "seed {}: of export {at} (number {}) of client {} (then {then:?}, now {:?}), \
                     {seen} layers, seen from {owner:?} up to {:?}",
                    self.seed,
                    export.id,
                    export.owner,
                    export.fate,
                    found.map(|import| (import.exports, import.export)),
                )
            };
            let published = Fate::Published;
            if then == Some(published) && export.fate == published {
                let lost = export.layers.iter().filter(|layer| !named.contains(layer));
                assert_eq!(lost.count(), 0, "lost: {}", told());
            }
            if then == Some(Fate::Gone) {
                assert_eq!(seen, 0, "not gone: {}", told());
                continue;
            }
            assert!(seen == 0 || seen == export.own.len(), "in part: {}", told());
            allowed.extend(&export.layers);
        }
        let early: Vec<_> = named.difference(&allowed).collect();
        assert!(
            early.is_empty(),
            "seed {}: nobody exported {early:?}",
            self.seed
        );
    }
}
