//! JSON as BuildKit writes and reads it: Go's, where `null` and an absent field
//! both mean the zero value. Every list is bounded while it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::digests::RecordDigest;
use super::limits;
use crate::digest::Digest;

/// A list of at most `MAX` elements; `null` is an empty one.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize>(pub(super) Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(BoundedVisitor::<T, MAX>(PhantomData))
            .map(Self)
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut taken = Vec::new();
        while let Some(element) = elements.next_element()? {
            if taken.len() == MAX {
                return Err(A::Error::custom(format_args!(
                    "a list has more than {MAX} elements"
                )));
            }
            taken.push(element);
        }
        Ok(taken)
    }
}

/// Annotations: a bounded map of text; `null` is an empty one.
#[derive(Debug, Default)]
pub(super) struct Annotations(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnnotationsVisitor).map(Self)
    }
}

struct AnnotationsVisitor;

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a map of at most {} annotations",
            limits::MAX_ANNOTATIONS
        )
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut taken = BTreeMap::new();
        while let Some((name, text)) = entries.next_entry()? {
            taken.insert(name, text);
            if taken.len() > limits::MAX_ANNOTATIONS {
                return Err(A::Error::custom(format_args!(
                    "more than {} annotations",
                    limits::MAX_ANNOTATIONS
                )));
            }
        }
        Ok(taken)
    }
}

/// A cache config (`CacheConfig`).
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) layers: Bounded<Layer, { limits::MAX_LAYERS }>,
    #[serde(default)]
    pub(super) records: Bounded<Record, { limits::MAX_RECORDS }>,
}

/// A blob on top of another layer (`CacheLayer`).
#[derive(Debug, Deserialize)]
pub(super) struct Layer {
    pub(super) blob: Digest,
    /// -1 is the root; absent is 0, which Go omits.
    pub(super) parent: Option<i64>,
    #[serde(rename = "annotations")]
    _annotations: Option<LayerAnnotations>,
}

/// What the object-store exporters add (`LayerAnnotations`), checked for its
/// types: layerd serves what the manifest says instead.
#[derive(Debug, Deserialize)]
pub(super) struct LayerAnnotations {
    #[serde(rename = "mediaType")]
    _media_type: Option<String>,
    #[serde(rename = "diffID")]
    _diff_id: Option<Digest>,
    #[serde(rename = "size")]
    _size: Option<u64>,
    #[serde(rename = "createdAt")]
    _created_at: Option<Timestamp>,
}

/// A step (`CacheRecord`).
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) digest: RecordDigest,
    #[serde(default)]
    pub(super) inputs: Bounded<Bounded<Link, { limits::MAX_LINKS }>, { limits::MAX_INPUTS }>,
    #[serde(default)]
    pub(super) layers: Bounded<LayerResult, { limits::MAX_RESULTS }>,
    #[serde(default)]
    pub(super) chains: Bounded<ChainResult, { limits::MAX_RESULTS }>,
}

/// One alternative for an input (`CacheInput`).
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    pub(super) selector: Option<Box<str>>,
    pub(super) link: Option<i64>,
}

/// A result that is a layer with all its parents (`CacheResult`).
#[derive(Debug, Deserialize)]
pub(super) struct LayerResult {
    pub(super) layer: Option<i64>,
    #[serde(rename = "createdAt")]
    pub(super) created_at: Option<Timestamp>,
}

/// A result that lists its layers (`ChainedResult`).
#[derive(Debug, Deserialize)]
pub(super) struct ChainResult {
    #[serde(default)]
    pub(super) layers: Bounded<i64, { limits::MAX_CHAIN }>,
    #[serde(rename = "createdAt")]
    pub(super) created_at: Option<Timestamp>,
}

/// An image manifest, or an index: whichever fields are there tell.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Bounded<Descriptor, { limits::MAX_LAYERS }>>,
    pub(super) manifests: Option<Bounded<Descriptor, { limits::MAX_LAYERS }>>,
    /// Docker's schema 1, which is no cache manifest but looks like one.
    #[serde(rename = "fsLayers")]
    pub(super) fs_layers: Option<IgnoredAny>,
}

/// A content descriptor of the image specification.
#[derive(Debug, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) annotations: Annotations,
}
