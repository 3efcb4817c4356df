//! The tree of layers: a blob on top of another layer, each once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::Digest as _;

use super::intern::{Interner, NONE};
use crate::digest::Digest;
use crate::graph::written::Annotations;
use crate::graph::{CREATED_AT, DIFF_ID, Descriptor};

/// A name that only content gives: the same in every process.
pub(super) type ContentKey = [u8; 16];

/// Layers and the blobs that they are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    pub(super) blobs: Interner<Digest>,
    described: Vec<Option<Described>>,
    media_types: Interner<Box<str>>,
    /// Blob and the layer below. A layer's number is above its parent's.
    nodes: Interner<(u32, u32)>,
    depths: Vec<u32>,
    keys: Vec<ContentKey>,
}

/// What BuildKit must know of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Described {
    /// The export that says so.
    by: u64,
    media_type: u32,
    size: u64,
    diff_id: Digest,
    created_at: Option<Timestamp>,
}

impl Layers {
    /// The number of a layer.
    pub(super) fn layer(&mut self, blob: Digest, parent: u32) -> u32 {
        let blob = self.blob(blob);
        let (layer, new) = self.nodes.intern((blob, parent));
        if new {
            let below = self.depths.get(parent as usize).copied();
            self.depths.push(below.unwrap_or(0).saturating_add(1));
            let mut hash = sha2::Sha256::new();
            hash.update(self.blobs[blob].as_bytes());
            if let Some(below) = self.keys.get(parent as usize) {
                hash.update(below);
            }
            self.keys.push(content_key(hash));
        }
        layer
    }

    fn blob(&mut self, blob: Digest) -> u32 {
        let (blob, new) = self.blobs.intern(blob);
        if new {
            self.described.push(None);
        }
        blob
    }

    /// Takes in what the manifest of export `by` says of a blob; false where it
    /// says something else than another one. A blob has one size and one
    /// content: the oldest export is believed, so that a later one can't give
    /// what others use another meaning.
    pub(super) fn describe(&mut self, by: u64, descriptor: &Descriptor) -> bool {
        let diff_id = descriptor.annotations.get(DIFF_ID);
        let Some(diff_id) = diff_id.and_then(|text| text.parse().ok()) else {
            return true;
        };
        let blob = self.blob(descriptor.digest);
        let new = Described {
            by,
            media_type: self
                .media_types
                .number(descriptor.media_type.as_str().into()),
            size: descriptor.size,
            diff_id,
            created_at: (descriptor.annotations.get(CREATED_AT)).and_then(|time| time.parse().ok()),
        };
        let order = |it: &Described| {
            let media_type = self.media_types[it.media_type].clone();
            (it.by, it.diff_id, it.size, media_type, it.created_at)
        };
        let known = self.described[blob as usize];
        if known.is_none_or(|known| order(&new) < order(&known)) {
            self.described[blob as usize] = Some(new);
        }
        let said = |it: &Described| (it.diff_id, it.size, it.media_type);
        known.is_none_or(|known| said(&known) == said(&new))
    }

    /// How many layers there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many layers a layer's chain has, itself included.
    pub(super) fn depth(&self, layer: u32) -> u32 {
        self.depths[layer as usize]
    }

    /// A name for the whole chain.
    pub(super) fn key(&self, layer: u32) -> &ContentKey {
        &self.keys[layer as usize]
    }

    /// The layer below, or [`NONE`].
    pub(super) fn parent(&self, layer: u32) -> u32 {
        self.nodes[layer].1
    }

    /// The layer's blob.
    pub(super) fn blob_of(&self, layer: u32) -> u32 {
        self.nodes[layer].0
    }

    /// The layer and all below it, from the top.
    pub(super) fn chain(&self, layer: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(layer), |layer| {
            Some(self.parent(*layer)).filter(|below| *below != NONE)
        })
    }

    /// For each layer, whether it and all below it are there and described.
    pub(super) fn deliverable(&self, present: &dyn Fn(&Digest) -> bool) -> Vec<bool> {
        let blobs: Vec<bool> = (self.blobs.values().iter().zip(&self.described))
            .map(|(blob, described)| described.is_some() && present(blob))
            .collect();
        let mut whole: Vec<bool> = Vec::with_capacity(self.len());
        for &(blob, parent) in self.nodes.values() {
            let below = whole.get(parent as usize).is_none_or(|whole| *whole);
            whole.push(below && blobs[blob as usize]);
        }
        whole
    }

    /// The media type of a layer's blob, if that is known.
    pub(super) fn media_type(&self, layer: u32) -> Option<&str> {
        let described = self.described[self.blob_of(layer) as usize]?;
        Some(&self.media_types[described.media_type])
    }

    /// What a config says of a blob, if that is known.
    pub(super) fn annotations(&self, blob: u32) -> Option<Annotations<'_>> {
        let described = self.described[blob as usize]?;
        Some(Annotations {
            media_type: &self.media_types[described.media_type],
            diff_id: described.diff_id,
            size: described.size,
            created_at: described.created_at,
        })
    }

    /// What a manifest says of a blob, if that is known.
    pub(super) fn descriptor(&self, blob: u32) -> Option<Descriptor> {
        let described = self.described[blob as usize]?;
        let mut annotations = BTreeMap::from([(DIFF_ID.to_owned(), described.diff_id.to_string())]);
        annotations
            .extend((described.created_at).map(|time| (CREATED_AT.to_owned(), time.to_string())));
        Some(Descriptor {
            media_type: self.media_types[described.media_type].to_string(),
            digest: self.blobs[blob],
            size: described.size,
            annotations,
        })
    }
}

/// Enough of a hash that no two contents share it.
pub(super) fn content_key(hash: sha2::Sha256) -> ContentKey {
    let hash: [u8; 32] = hash.finalize().into();
    let mut key = ContentKey::default();
    key.copy_from_slice(&hash[..16]);
    key
}
