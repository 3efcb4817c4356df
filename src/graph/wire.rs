//! JSON as BuildKit writes and reads it: Go's, where `null` and an absent field
//! both mean the zero value.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::limits;
use super::shape::{Annotations, Bounded, Object, Objects};
use crate::digest::{Digest, RecordDigest};

/// A cache config (`CacheConfig`).
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) layers: Objects<Layer, { limits::MAX_LAYERS }>,
    #[serde(default)]
    pub(super) records: Objects<Record, { limits::MAX_RECORDS }>,
}

/// A blob on top of another layer (`CacheLayer`).
#[derive(Debug, Deserialize)]
pub(super) struct Layer {
    pub(super) blob: Digest,
    /// -1 is the root; absent is 0, which Go omits.
    pub(super) parent: Option<i64>,
    pub(super) annotations: Option<Object<LayerAnnotations>>,
}

/// What the object-store exporters add (`LayerAnnotations`): where there is a
/// manifest, layerd serves what that says instead.
#[derive(Debug, Deserialize)]
pub(super) struct LayerAnnotations {
    #[serde(rename = "mediaType")]
    pub(super) media_type: Option<Box<str>>,
    #[serde(rename = "diffID")]
    pub(super) diff_id: Option<Digest>,
    pub(super) size: Option<u64>,
    #[serde(rename = "createdAt")]
    pub(super) created_at: Option<Timestamp>,
}

/// A step (`CacheRecord`).
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) digest: RecordDigest,
    #[serde(default)]
    pub(super) inputs: Bounded<Objects<Link, { limits::MAX_LINKS }>, { limits::MAX_INPUTS }>,
    #[serde(default)]
    pub(super) layers: Objects<LayerResult, { limits::MAX_RESULTS }>,
    #[serde(default)]
    pub(super) chains: Objects<ChainResult, { limits::MAX_RESULTS }>,
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
    pub(super) config: Option<Object<Descriptor>>,
    pub(super) layers: Option<Objects<Descriptor, { limits::MAX_LAYERS }>>,
    pub(super) manifests: Option<Objects<Descriptor, { limits::MAX_LAYERS }>>,
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
