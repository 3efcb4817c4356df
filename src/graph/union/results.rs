//! What records gave: every chain of layers that any run of a step left, and
//! the one that a reader gets.

use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::Timestamp;

use super::intern::{Interner, Lists, NONE};
use super::layers::{ContentKey, Layers};

/// A result: the top layer, and when the step ran.
pub(super) type Outcome = (u32, Option<Timestamp>);

/// How layers are packed, as far as their media type tells. An `estargz`
/// layer is a gzip layer to whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    Uncompressed,
    /// `+gzip`, or Docker's `.tar.gzip`.
    Gzip,
    /// `+zstd`, or `.tar.zstd`.
    Zstd,
}

impl Compression {
    fn of(media_type: &str) -> Option<Self> {
        let ends = |suffix: &str| media_type.ends_with(suffix);
        if ends("+gzip") || ends(".tar.gzip") {
            Some(Self::Gzip)
        } else if ends("+zstd") || ends(".tar.zstd") {
            Some(Self::Zstd)
        } else {
            ends(".tar").then_some(Self::Uncompressed)
        }
    }
}

/// The results of all records.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    outcomes: Interner<Outcome>,
    heads: Vec<u32>,
    held: Lists<Held>,
    /// Where a record's outcome stands in its list.
    places: HashMap<(u32, u32), u32>,
}

/// A result that a record has.
#[derive(Clone, Copy, Debug)]
struct Held {
    outcome: u32,
    /// When the newest export was written that has it so.
    seen: Timestamp,
}

/// Which of a record's results may be served.
pub(super) struct Wanted<'a> {
    pub(super) deliverable: &'a [bool],
    pub(super) not_before: Option<Timestamp>,
    pub(super) compression: Option<Compression>,
}

/// A result, and what decides whether a reader gets it.
pub(super) struct Ranked {
    pub(super) outcome: Outcome,
    /// Of two that may be served and are packed alike, the greater one is.
    pub(super) rank: (Timestamp, Option<Timestamp>, Reverse<ContentKey>),
    pub(super) packed: Option<Compression>,
}

/// The result that is served of a record, and why others can't be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Choice {
    pub(super) outcome: Option<Outcome>,
    pub(super) absent: u64,
    pub(super) old: u64,
}

impl Results {
    /// Gives a record a result of an export that was `written` then. What it says
    /// of a time after that is cut: it would win over every later result, and so
    /// would whatever took it over. Without a time of its own it is as old as the
    /// export, and of an export without one older than any.
    pub(super) fn add(&mut self, record: u32, (layer, said): Outcome, written: Option<Timestamp>) {
        let latest = written.unwrap_or(Timestamp::MAX);
        let created_at = said.map(|said| said.min(latest));
        let outcome = self.outcomes.number((layer, created_at));
        let seen = written.unwrap_or(Timestamp::UNIX_EPOCH);
        self.hold(record, Held { outcome, seen });
    }

    fn hold(&mut self, record: u32, held: Held) {
        let at = record as usize;
        if self.heads.len() <= at {
            self.heads.resize(at + 1, NONE);
        }
        if let Some(&place) = self.places.get(&(record, held.outcome)) {
            let known = self.held.at(place);
            known.seen = known.seen.max(held.seen);
            return;
        }
        let place = self.held.push(&mut self.heads[at], held);
        self.places.insert((record, held.outcome), place);
    }

    /// Moves all results of one record to another.
    pub(super) fn unite(&mut self, to: u32, from: u32) {
        let Some(head) = self.heads.get_mut(from as usize) else {
            return;
        };
        let head = std::mem::replace(head, NONE);
        let all: Vec<Held> = self.held.iter(head).collect();
        for held in all {
            self.places.remove(&(from, held.outcome));
            self.hold(to, held);
        }
    }

    /// How many results a record has.
    pub(super) fn count(&self, record: u32) -> usize {
        let head = self.heads.get(record as usize).copied();
        head.map_or(0, |head| self.held.iter(head).count())
    }

    /// When its results were made, as far as they say; each date once.
    pub(super) fn dates(&self, record: u32) -> Vec<Timestamp> {
        let head = self.heads.get(record as usize).copied().unwrap_or(NONE);
        let held = self.held.iter(head);
        let mut dates: Vec<Timestamp> = held
            .filter_map(|held| self.outcomes[held.outcome].1)
            .collect();
        dates.sort_unstable();
        dates.dedup();
        dates
    }

    /// All results of a record.
    pub(super) fn ranked(&self, record: u32, layers: &Layers) -> impl Iterator<Item = Ranked> {
        let head = self.heads.get(record as usize).copied().unwrap_or(NONE);
        self.held.iter(head).map(move |held| {
            let outcome @ (layer, created_at) = self.outcomes[held.outcome];
            let time = created_at.unwrap_or(held.seen);
            Ranked {
                outcome,
                rank: (time, created_at, Reverse(*layers.key(layer))),
                packed: layers.media_type(layer).and_then(Compression::of),
            }
        })
    }

    /// The result of a record that a reader gets: in the wanted compression
    /// if there is one, else the newest.
    pub(super) fn choose(&self, record: u32, layers: &Layers, wanted: &Wanted<'_>) -> Choice {
        let mut choice = Choice::default();
        let mut best = None;
        for result in self.ranked(record, layers) {
            let time = result.rank.0;
            if !wanted.deliverable[result.outcome.0 as usize] {
                choice.absent += 1;
            } else if wanted
                .not_before
                .is_some_and(|not_before| time < not_before)
            {
                choice.old += 1;
            } else {
                let fits = wanted.compression.is_some() && wanted.compression == result.packed;
                let rank = (fits, result.rank);
                if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                    best = Some((rank, result.outcome));
                }
            }
        }
        choice.outcome = best.map(|(_, outcome)| outcome);
        choice
    }
}
