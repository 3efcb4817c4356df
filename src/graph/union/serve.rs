//! What a reader gets of a union.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::arrange::arrange;
use super::budget::{Budget, cut};
use super::encode::encode;
use super::results::{Choice, Compression, Outcome, Wanted};
use super::snapshot::Snapshot;
use super::{Union, arrange};
use crate::digest::Digest;
use crate::graph::Descriptor;

/// Who asks for what.
#[derive(Clone, Copy)]
pub struct Serving<'a> {
    /// The exports by rank: the reader's own, the fallbacks, the others. Those
    /// of the union that are not listed come last, the newest first. Ranks
    /// matter only where the budget cuts.
    pub order: &'a [u64],
    /// Whether a blob can be delivered; asked once for each.
    pub present: &'a dyn Fn(&Digest) -> bool,
    /// Results that are older are left out.
    pub not_before: Option<Timestamp>,
    /// Which of a record's results is preferred.
    pub compression: Option<Compression>,
    /// How much the reader can take.
    pub budget: Budget,
    /// Whether the config describes its layers, and so needs no manifest.
    pub annotated: bool,
}

impl<'a> Serving<'a> {
    /// All that can be delivered, in a config that needs no manifest.
    pub fn of(present: &'a dyn Fn(&Digest) -> bool) -> Self {
        Self {
            order: &[],
            present,
            not_before: None,
            compression: None,
            budget: Budget::default(),
            annotated: true,
        }
    }
}

/// A config for a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The cache config; the same bytes for the same union and request.
    pub json: Vec<u8>,
    /// The layers that it names, each blob once, by digest: what a manifest
    /// lists.
    pub layers: Vec<Descriptor>,
    /// Records in it, without the one that joins the others.
    pub records: usize,
    /// Those of them with a result.
    pub results: usize,
    /// The exports that hold any of them, by rank.
    pub exports: Vec<u64>,
    /// What is not in it.
    pub left_out: LeftOut,
}

/// What of a union was not served, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Results with a layer that is not there or not described.
    pub absent: u64,
    /// Results that are too old.
    pub old: u64,
    /// Records that lead to no result, once those are left out.
    pub fruitless: u64,
    /// Records that the budget cut.
    pub cut: u64,
    /// Those of them with a result.
    pub cut_results: u64,
    /// Links that would have made a record its own ancestor.
    pub loops: u64,
}

impl Union {
    /// A config of what is in the union, in time linear in its size.
    pub fn serve(&self, serving: &Serving<'_>) -> Served {
        let snapshot = Snapshot::of(self);
        let wanted = Wanted {
            deliverable: &self.layers.deliverable(serving.present),
            not_before: serving.not_before,
            compression: serving.compression,
        };
        let choices = snapshot.choose(self, &wanted);
        let outcomes: Vec<Option<Outcome>> = choices.iter().map(|choice| choice.outcome).collect();
        let order = self.ranked(serving.order);
        let useful = snapshot.leading(&outcomes, &vec![true; snapshot.len()]);
        let fits = cut(
            self,
            &snapshot,
            (&outcomes, &useful),
            &order,
            (&serving.budget, serving.annotated),
        );
        let kept = snapshot.leading(&outcomes, &fits);
        let arranged = arrange(self, &snapshot, &kept);
        // Writing to memory fails for nothing that is in there.
        let encoded = encode(self, &snapshot, &arranged, &outcomes, serving.annotated);
        let Ok(encoded) = encoded else {
            return Served::default();
        };
        let left_out = leave_out(&choices, &useful, &arranged);
        Served {
            json: encoded.json,
            layers: encoded.layers,
            records: arranged.records.len(),
            results: with_result(&arranged.records, &outcomes),
            exports: (order.iter())
                .filter(|export| {
                    let mut records = snapshot.of_export(self, **export);
                    records.any(|record| kept[record as usize])
                })
                .map(|export| self.exports[*export as usize].id)
                .collect(),
            left_out,
        }
    }

    /// All exports of the union, each once: the given ones, then the others,
    /// the newest first.
    fn ranked(&self, order: &[u64]) -> Vec<u32> {
        let mut listed = vec![false; self.exports.len()];
        let mut ranked: Vec<u32> = (order.iter())
            .filter_map(|id| self.by_id.get(id).copied())
            .filter(|export| !std::mem::replace(&mut listed[*export as usize], true))
            .collect();
        let mut others: Vec<u32> = (0..self.exports.len() as u32)
            .filter(|export| !listed[*export as usize])
            .collect();
        others.sort_by_key(|export| {
            let source = &self.exports[*export as usize];
            Reverse((source.time, source.id))
        });
        ranked.extend(others);
        ranked
    }
}

fn with_result(records: &[u32], outcomes: &[Option<Outcome>]) -> usize {
    let with = |record: &&u32| outcomes[**record as usize].is_some();
    records.iter().filter(with).count()
}

fn leave_out(choices: &[Choice], useful: &[bool], arranged: &arrange::Arranged) -> LeftOut {
    let useful_results = (choices.iter().zip(useful))
        .filter(|(choice, useful)| choice.outcome.is_some() && **useful)
        .count();
    let useful = useful.iter().filter(|useful| **useful).count();
    let served_results = arranged.records.iter();
    let served_results =
        served_results.filter(|record| choices[**record as usize].outcome.is_some());
    LeftOut {
        absent: choices.iter().map(|choice| choice.absent).sum(),
        old: choices.iter().map(|choice| choice.old).sum(),
        fruitless: (choices.len() - useful) as u64,
        cut: (useful - arranged.records.len()) as u64,
        cut_results: (useful_results - served_results.count()) as u64,
        loops: arranged.loops,
    }
}
