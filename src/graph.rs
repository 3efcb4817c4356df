//! The cache-record graph as BuildKit writes it: parsed, checked, served.
//!
//! Pure functions of bytes: no I/O, no async. What comes in was written by
//! somebody else's build, so every count is bounded while it is read, every
//! index is checked, and nothing here recurses or takes more than linear time.
//! The formats are BuildKit's own (`cache/remotecache/v1/types/spec.go`) and
//! the image specification's.

mod acyclic;
mod config;
mod limits;
mod makers;
mod manifest;
mod shape;
mod steps;
mod union;
mod whole;
mod wire;
mod written;

pub use self::config::{Chain, Config, Layer, Link, Record};
pub use self::limits::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
pub use self::makers::blobs;
use self::manifest::{CREATED_AT, DIFF_ID};
pub use self::manifest::{Descriptor, Manifest};
pub use self::steps::{Run, Vertex, steps};
pub use self::union::{
    Budget, Comparison, Compression, ExportSource, LeftOut, Newer, Parsed, Part, Reason, Refused,
    Served, Serving, Survey, SurveyedRecord, Union,
};
use crate::digest::Digest;
pub use crate::digest::RecordDigest;

/// The media type of a cache config (`CacheConfigMediaTypeV0`).
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Why a document is no cache manifest or cache config, or why the two do not
/// belong together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// More bytes than any build needs.
    #[error("the {what} has {size} bytes; more than {limit} are not taken")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// No JSON, or a wrong type, a bad digest, too many elements.
    #[error("malformed {what}: {source}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// JSON, but with no cache config in it.
    #[error("not a cache manifest: it names no config of type {CONFIG_MEDIA_TYPE}")]
    NotACacheManifest,
    /// A manifest that can be read in two ways.
    #[error("ambiguous cache manifest: {0}")]
    Ambiguous(&'static str),
    /// One blob with two sizes.
    #[error("the cache manifest gives two sizes for {0}")]
    TwoSizes(Digest),
    /// The config is not the one that the manifest names.
    #[error(
        "the cache config is {actual} ({actual_size} bytes), the manifest names {expected} ({expected_size} bytes)"
    )]
    WrongConfig {
        /// The digest that the manifest names.
        expected: Digest,
        /// The size that the manifest names, in bytes.
        expected_size: u64,
        /// The digest of what is there.
        actual: Digest,
        /// The size of what is there, in bytes.
        actual_size: u64,
    },
    /// The config has a layer that its manifest does not name.
    #[error("the cache config has layer {0}, which the manifest does not name")]
    UnlistedLayer(Digest),
    /// A layer of a config that is to say all of its layers does not.
    #[error("the cache config does not say media type, size and diffID of layer {0}")]
    UndescribedLayer(Digest),
    /// An export without a single layer: nothing could ever be served of it.
    #[error("the cache config has no layers")]
    Empty,
    /// An index that points nowhere.
    #[error("{what} {from} refers to {to_what} {index}, of {count}")]
    OutOfRange {
        /// What refers.
        what: &'static str,
        /// Its own index.
        from: usize,
        /// What it refers to.
        to_what: &'static str,
        /// The index that it gives.
        index: i64,
        /// How many there are.
        count: usize,
    },
    /// An input of a record that nothing can satisfy.
    #[error("record {record} has no link for its input {input}")]
    EmptyInput {
        /// The record's index.
        record: usize,
        /// The input's index.
        input: usize,
    },
    /// Something is its own ancestor.
    #[error("{what} {index} is its own ancestor")]
    Cycle {
        /// What it is.
        what: &'static str,
        /// The index of one in the cycle.
        index: usize,
    },
}

#[cfg(test)]
mod tests;
