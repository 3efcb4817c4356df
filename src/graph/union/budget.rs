//! Cutting what is served to what a reader can take.
//!
//! What loading a config costs BuildKit is nearly a sum over its records. One
//! with a result costs as much as [`RESULT`] layers, and each layer of its
//! chain one more; one without a result costs [`BARE`]. (v0.32.2, processor
//! time to load 10,000 records: 0.31 s where the chains have 5 layers, 0.38 s
//! where they have 10, 0.56 s where they have 20.) A budget counts records
//! whose chain has [`ORDINARY_DEPTH`] layers.
//!
//! Exports are gone through by rank, each with its ancestors first, and a
//! record is kept if it fits and for every input one alternative is kept: so
//! what is kept can be reached. One that does not fit is passed over with
//! what needs it; lighter ones may still fit.

use super::Union;
use super::encode;
use super::results::Outcome;
use super::snapshot::Snapshot;

/// What a record with a result weighs, without its layers of 1 each.
const RESULT: u64 = 12;

/// What a record without a result weighs.
const BARE: u64 = 5;

/// Layers in the chain of an ordinary result.
const ORDINARY_DEPTH: u64 = 10;

/// How often one blob may stand in a chain that is walked for a manifest.
const REPEATED: u64 = 4;

/// How much a reader can take. Without a limit: all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Records of ordinary weight.
    pub records: Option<u64>,
    /// Bytes of the config.
    pub config_bytes: Option<u64>,
    /// Bytes of a manifest with each layer once.
    pub manifest_bytes: Option<u64>,
}

/// Upper bounds of what things take in JSON, without the texts in them that
/// have no fixed length.
mod bytes {
    /// The brackets of a config, and the joining record.
    pub(super) const CONFIG: u64 = 256;
    /// A record, its link in the joining record included.
    pub(super) const RECORD: u64 = 80;
    /// An input and one link.
    pub(super) const LINK: u64 = 40;
    /// A result's brackets and time.
    pub(super) const RESULT: u64 = 90;
    /// The number of a layer in a chain.
    pub(super) const NUMBER: u64 = 8;
    /// A layer in a config.
    pub(super) const LAYER: u64 = 110;
    /// Its annotations.
    pub(super) const ANNOTATIONS: u64 = 220;
    /// A manifest without its layers.
    pub(super) const MANIFEST: u64 = 512;
    /// A layer in a manifest.
    pub(super) const DESCRIPTOR: u64 = 320;
}

/// What a set of records takes.
#[derive(Clone, Copy)]
struct Cost {
    weight: u64,
    config: u64,
    manifest: u64,
}

impl Cost {
    fn and(self, other: Self) -> Self {
        Self {
            weight: self.weight.saturating_add(other.weight),
            config: self.config.saturating_add(other.config),
            manifest: self.manifest.saturating_add(other.manifest),
        }
    }

    /// How many layers may fit beside it at most: a layer that is new takes at
    /// least its number in a chain.
    fn layers_left(self, budget: &Budget) -> usize {
        let left = |limit: Option<u64>, cost: u64, each: u64| {
            limit.map_or(u64::MAX, |limit| limit.saturating_sub(cost) / each)
        };
        let config = left(budget.config_bytes, self.config, bytes::NUMBER);
        let manifest = left(budget.manifest_bytes, self.manifest, bytes::DESCRIPTOR);
        // One blob may stand on several layers: the manifest lists it once.
        usize::try_from(config.min(manifest.saturating_mul(REPEATED))).unwrap_or(usize::MAX)
    }

    fn fits(self, budget: &Budget) -> bool {
        let within = |cost: u64, limit: Option<u64>| limit.is_none_or(|limit| cost <= limit);
        let weight = budget
            .records
            .map(|records| records.saturating_mul(RESULT + ORDINARY_DEPTH));
        within(self.weight, weight)
            && within(self.config, budget.config_bytes)
            && within(self.manifest, budget.manifest_bytes)
    }
}

/// Chooses among the records that `useful` has. `order` lists the exports.
pub(super) fn cut(
    union: &Union,
    snapshot: &Snapshot,
    (outcomes, useful): (&[Option<Outcome>], &[bool]),
    order: &[u32],
    (budget, annotated): (&Budget, bool),
) -> Vec<bool> {
    let mut kept = vec![false; snapshot.len()];
    let mut seen = vec![false; snapshot.len()];
    let mut charged = Charged::new(union, annotated);
    let mut total = Cost {
        weight: 0,
        config: bytes::CONFIG,
        manifest: bytes::MANIFEST,
    };
    for &export in order {
        for record in snapshot.of_export(union, export) {
            let at = record as usize;
            if !useful[at] || seen[at] {
                continue;
            }
            let links = snapshot.links(record);
            let mut inputs = links.chunk_by(|a, b| a.input == b.input);
            if !inputs.all(|input| input.iter().any(|link| kept[link.parent as usize])) {
                // Another export may reach it another way.
                continue;
            }
            seen[at] = true;
            let with = total.and(charged.record(union, snapshot, record, outcomes[at]));
            if !with.fits(budget) {
                continue;
            }
            let Some(new) = charged.missing(union, outcomes[at], with.layers_left(budget)) else {
                continue;
            };
            let with = with.and(charged.layers(union, &new));
            if with.fits(budget) {
                total = with;
                kept[at] = true;
                charged.mark(union, &new);
            }
        }
    }
    kept
}

/// The layers that are paid for.
struct Charged {
    /// Listed one by one, or in the tree.
    listed: Vec<bool>,
    in_tree: Vec<bool>,
    blobs: Vec<bool>,
    /// Tops of chains that did not fit.
    heavy: Vec<bool>,
    annotated: bool,
}

/// Layers to be paid for.
struct Missing {
    in_tree: bool,
    layers: Vec<u32>,
}

impl Charged {
    fn new(union: &Union, annotated: bool) -> Self {
        Self {
            listed: vec![false; union.layers.len()],
            in_tree: vec![false; union.layers.len()],
            heavy: vec![false; union.layers.len()],
            blobs: vec![false; union.layers.blobs.values().len()],
            annotated,
        }
    }

    /// What a record costs without the layers themselves.
    fn record(
        &self,
        union: &Union,
        snapshot: &Snapshot,
        record: u32,
        outcome: Option<Outcome>,
    ) -> Cost {
        let digest = union.records.digest(snapshot.ids[record as usize]);
        let mut config = bytes::RECORD + digest.as_str().len() as u64;
        for link in snapshot.links(record) {
            config += bytes::LINK + written(&union.records.selectors[link.selector]);
        }
        let mut weight = BARE;
        if let Some((layer, _)) = outcome {
            let depth = u64::from(union.layers.depth(layer));
            weight = RESULT + depth;
            config += bytes::RESULT;
            if !encode::in_tree(&union.layers, layer) {
                config += depth * bytes::NUMBER;
            }
        }
        Cost {
            weight,
            config,
            manifest: 0,
        }
    }

    /// The layers of a result that are not paid for yet, unless they are more
    /// than `left`. Where one is paid for, all below it are.
    fn missing(&mut self, union: &Union, outcome: Option<Outcome>, left: usize) -> Option<Missing> {
        let Some((layer, _)) = outcome else {
            return Some(Missing {
                in_tree: false,
                layers: Vec::new(),
            });
        };
        if self.heavy[layer as usize] {
            return None;
        }
        let in_tree = encode::in_tree(&union.layers, layer);
        let paid = if in_tree { &self.in_tree } else { &self.listed };
        let chain = union.layers.chain(layer);
        let unpaid = chain.take_while(|layer| !paid[*layer as usize]);
        let layers: Vec<u32> = unpaid.take(left.saturating_add(1)).collect();
        if layers.len() > left {
            // Walked once: many records may share one chain that is too long.
            self.heavy[layer as usize] = true;
            return None;
        }
        Some(Missing { in_tree, layers })
    }

    fn layers(&self, union: &Union, missing: &Missing) -> Cost {
        let mut cost = Cost {
            weight: 0,
            config: 0,
            manifest: 0,
        };
        for &layer in &missing.layers {
            let media_type = union.layers.media_type(layer).map_or(0, written);
            let new = !self.blobs[union.layers.blob_of(layer) as usize];
            if new || missing.in_tree {
                cost.config += bytes::LAYER;
                cost.config += u64::from(self.annotated) * (bytes::ANNOTATIONS + media_type);
            }
            if new {
                cost.manifest += bytes::DESCRIPTOR + media_type;
            }
        }
        cost
    }

    fn mark(&mut self, union: &Union, missing: &Missing) {
        for &layer in &missing.layers {
            let paid = if missing.in_tree {
                &mut self.in_tree
            } else {
                &mut self.listed
            };
            paid[layer as usize] = true;
            self.blobs[union.layers.blob_of(layer) as usize] = true;
        }
    }
}

/// An upper bound of what a text takes in JSON, in bytes.
fn written(text: &str) -> u64 {
    let plain = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    text.bytes()
        .map(|byte| if plain(byte) { 1 } else { 6 })
        .sum()
}
