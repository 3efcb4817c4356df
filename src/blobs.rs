//! Layer blobs: bytes named by their sha256, immutable, stored once.
//!
//! [`BlobStore`] is the seam; its contract is written on the trait and held by
//! one conformance suite that every implementation runs. A blob comes into
//! being through an [`Ingest`], which hashes the bytes as they pass and shows
//! nothing until they are whole, verified and durable.

mod committing;
#[cfg(test)]
mod conformance;
mod disk;
mod generation;
mod location;
mod metered;
mod object;
mod patient;
#[cfg(test)]
mod recorded;
mod store_id;
mod tier;
mod version;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::committing::Committing;
pub use self::disk::{DiskStore, UnfinishedIngest};
pub use self::generation::Generation;
pub use self::location::Location;
pub use self::metered::{MeteredBlobs, StoreMetrics};
pub use self::object::{InvalidStore, ObjectBlobs, ObjectOptions};
#[cfg(test)]
pub(crate) use self::recorded::{Journal, Recorded};
pub use self::store_id::{InvalidStoreId, StoreId, Taken};
pub use self::tier::{Origin, Pin, StoreOrigin, Tier, TierMetrics, TierOptions, TieredBlobs};
pub use self::version::Version;
use crate::digest::Digest;

/// The bytes of a blob, in order. An error ends the stream.
pub type BlobStream = BoxStream<'static, Result<Bytes, BlobError>>;

/// Where blobs live.
///
/// - A blob is visible whole and verified, or not at all, whatever crashes.
/// - A committed blob survives a crash of the process; after [`persist`] it
///   survives a crash of the machine too, name and bytes.
/// - Any number of processes may share one store.
/// - Nothing here buffers more than a few chunks of a blob.
///
/// [`persist`]: BlobStore::persist
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// The size of a blob in bytes, or `None` where it is absent. Cheap: no
    /// byte of the blob is read.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// [`size`](BlobStore::size) of many, in their order, at the cost of few.
    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError>;

    /// Which bytes are there under that name, or `None` where the blob is absent.
    /// As cheap as [`size`](BlobStore::size), and never of a copy.
    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError>;

    /// Streams `length` bytes from `offset` on, fewer where the blob ends
    /// first. [`BlobError::NotFound`] comes from here, not from the stream.
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError>;

    /// Opens the ingest of that name, or resumes it where an earlier one was
    /// dropped before its commit. While another writer, in this process or
    /// another, has that name open, a private ingest that starts at 0 and
    /// cannot be resumed (a drop forgets it) is given instead, so that no writer waits for another.
    ///
    /// `expected` is the digest that the commit will be asked to verify, where
    /// it is known by now: a store that can't rename then writes under the
    /// final name at once. It promises nothing more than speed.
    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError>;

    /// Removes a blob; one that is absent is removed already. Streams that are
    /// open on it go on.
    async fn remove(&self, digest: &Digest) -> Result<(), BlobError>;

    /// Drops a copy of a blob that is kept beside the blob itself, so that the
    /// next read sees the blob.
    async fn drop_copy(&self, digest: &Digest) -> Result<(), BlobError> {
        let _ = digest;
        Ok(())
    }

    /// Makes the names of all blobs committed so far durable.
    async fn persist(&self) -> Result<(), BlobError>;

    /// Every blob, in no order: digest and size. For checks, not for builds.
    async fn list(&self)
    -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError>;

    /// Equal where no blob has come or gone in between, as far as the store
    /// can tell cheaply; `None` where it can't tell this moment from another.
    /// What was written over in place does not show.
    async fn generation(&self) -> Option<Generation>;

    /// Whether it can be reached for reading: cheap, writes nothing.
    async fn ready(&self) -> Result<(), BlobError>;

    /// Writes and removes something small, to learn whether an ingest could
    /// work.
    async fn probe(&self) -> Result<(), BlobError>;

    /// Which store it is; none where it was never told.
    async fn id(&self) -> Result<Option<StoreId>, BlobError>;

    /// Tells it which store it is; gives which it is then, since of several that
    /// take it first one does.
    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError>;

    /// Where anybody can read the blob for the next `ttl`, without us; `None`
    /// where there is no such place. Whether the blob is there is not asked.
    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError>;
}

/// A blob in the making. Dropped before its commit, it keeps its bytes so that
/// a later ingest of the same name can resume.
#[async_trait]
pub trait Ingest: Send {
    /// How many bytes are in; the next write lands there.
    fn offset(&self) -> u64;

    /// The digest of the bytes so far.
    fn digest(&self) -> Digest;

    /// When the first byte could have come.
    fn started_at(&self) -> SystemTime;

    /// When the last byte came.
    fn updated_at(&self) -> SystemTime;

    /// Appends.
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError>;

    /// Appends a whole blob of the same store, where that costs less than to
    /// read and to write it; false, and nothing done, where it does not. One
    /// that has not `size` bytes is [`BlobError::WrongSize`].
    async fn append(&mut self, blob: &Digest, size: u64) -> Result<bool, BlobError> {
        let _ = (blob, size);
        Ok(false)
    }

    /// Forgets all bytes: the next write lands at 0.
    async fn restart(&mut self) -> Result<(), BlobError>;

    /// Verifies size and digest where they are given, and makes the blob
    /// visible and its bytes durable. That another writer was first is no
    /// error. On a mismatch nothing is stored, and the bytes are dropped.
    async fn commit(
        self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError>;

    /// Drops the bytes.
    async fn abort(self: Box<Self>) -> Result<(), BlobError>;
}

/// What can go wrong with a blob.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The store does not have it.
    #[error("blob {0} is not in the store")]
    NotFound(Digest),
    /// The bytes are not those that were announced.
    #[error("unexpected digest: got {actual}, expected {expected}")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("unexpected size: got {actual} bytes, expected {expected}")]
    WrongSize {
        /// What was announced, in bytes.
        expected: u64,
        /// What came, in bytes.
        actual: u64,
    },
    /// No space is left, or a quota is used up.
    #[error("no space left in {0}")]
    Full(String),
    /// It may not be stored; the text says why, and what helps.
    #[error("{0}")]
    Refused(String),
    /// The store takes no writes.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// Anything else from below.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, to what.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}
