//! How much of anything is taken in. Far above what real builds write (a large
//! monorepo's config has some 10,000 records and 2 MB), far below what would
//! hurt the process.

/// Bytes of a cache config.
pub const MAX_CONFIG_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of a cache manifest.
pub const MAX_MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// Layers of a config, and descriptors of a manifest.
pub(super) const MAX_LAYERS: usize = 200_000;

/// Records of a config.
pub(super) const MAX_RECORDS: usize = 500_000;

/// Inputs of a record: a step has a handful of mounts, a merge some dozens.
/// The record that joins every leaf has one input with a link to each.
pub(super) const MAX_INPUTS: usize = 10_000;

/// Alternatives for one input.
pub(super) const MAX_LINKS: usize = MAX_RECORDS;

/// Results of a record: BuildKit writes one.
pub(super) const MAX_RESULTS: usize = 10_000;

/// Layers of one chain.
pub(super) const MAX_CHAIN: usize = 100_000;

/// Annotations of one descriptor: BuildKit writes two.
pub(super) const MAX_ANNOTATIONS: usize = 64;
