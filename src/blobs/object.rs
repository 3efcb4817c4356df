//! Blobs as objects of one bucket: S3, Google Cloud Storage, Azure.
//!
//! Any number of processes share a bucket; it is all they share.
//!
//! ```text
//! <prefix>/blobs/sha256/ab/<64 hex digits>    a blob whose digest begins with ab
//! <prefix>/ingest/<random>                    an upload that did not know its digest
//! <prefix>/store-id                           which store it is
//! ```
//!
//! A blob appears by one request, a put or the completion of a multipart
//! upload, made only when size and digest are verified. What is longer than a
//! part and told no digest beforehand is completed under `ingest/` and copied
//! within the bucket, which the providers do for up to 5 GiB.
//!
//! Uploads in the making live in this process: one that is dropped can be
//! resumed here for a while. What a process leaves when it is killed, the
//! bucket's own rule for unfinished multipart uploads has to clear away (Azure
//! does so by itself), and [`ObjectBlobs::sweep`] the rest.
//!
//! The suite runs against servers of S3 and Azure. Of Google's there is none
//! that can be run: objects are put, completed and copied there by the XML
//! API, and fake-gcs-server has only the JSON API for that; it answers such a
//! put with 400, "invalid uploadType".

mod bucket;
mod buffers;
mod errors;
mod gathered;
mod ingest;
mod kept;
mod named;
mod open;
mod parts;
mod upload;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use tokio::task::AbortHandle;

use self::bucket::Bucket;
use self::buffers::Buffers;
use self::ingest::ObjectIngest;
use self::kept::Kept;
pub use self::open::InvalidStore;
use super::patient::{self, Patience};
use super::{
    BlobError, BlobStore, BlobStream, Generation, Ingest, Location, Origin, StoreId, Taken, Version,
};
use crate::digest::Digest;

/// Requests at once where many blobs are looked for.
const LOOKED_FOR_AT_ONCE: usize = 64;

/// How long a check for readiness may take.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// How long what was left under `ingest/` may still be somebody's.
const LEFT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How a read that breaks off is gone on with.
const PATIENCE: Patience = Patience {
    whole: Duration::from_secs(30),
    stall: Duration::from_secs(12),
};
// What stalls is asked for again before it is given up.
const _: () = assert!(PATIENCE.stall.as_secs() < PATIENCE.whole.as_secs());

/// How a store of objects behaves.
#[derive(Clone, Copy, Debug)]
pub struct ObjectOptions {
    /// Bytes of memory for all uploads of this store; those who find none free
    /// wait. At least two parts.
    pub upload_buffers: u64,
    /// Bytes of a part, 5 MiB at least; a blob may have 10,000.
    pub part_size: usize,
    /// How long the size of a blob is believed, so that many can be looked for
    /// at once: only what nothing names is ever removed.
    pub believed_for: Duration,
    /// How long an upload that was dropped can be resumed, and how many.
    pub resumable_for: Duration,
    /// How many uploads that were dropped are kept.
    pub resumable: usize,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            upload_buffers: 64 << 20,
            part_size: 8 << 20,
            believed_for: Duration::from_secs(300),
            resumable_for: Duration::from_secs(600),
            resumable: 64,
        }
    }
}

/// The blobs of one bucket, below one prefix; clones are the same.
#[derive(Clone)]
pub struct ObjectBlobs {
    shared: Arc<Shared>,
}

struct Shared {
    bucket: Arc<Bucket>,
    buffers: Arc<Buffers>,
    kept: Arc<Kept>,
    janitor: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.janitor.abort();
    }
}

impl fmt::Debug for ObjectBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectBlobs({})", self.shared.bucket.place())
    }
}

impl ObjectBlobs {
    /// The store at `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`. Options come from the URL's query and from the
    /// provider's usual environment variables; the query counts. Asks the
    /// bucket nothing. Must be called within a runtime.
    pub fn open(url: &str, options: ObjectOptions) -> Result<Self, InvalidStore> {
        let opened = open::open(url)?;
        let bucket = Arc::new(Bucket::new(opened, &options));
        let kept = Arc::new(Kept::new(&options));
        let janitor = tokio::spawn({
            let (kept, bucket) = (Arc::clone(&kept), Arc::clone(&bucket));
            async move { kept.clear_away(&bucket).await }
        });
        Ok(Self {
            shared: Arc::new(Shared {
                buffers: Arc::new(Buffers::new(&options)),
                bucket,
                kept,
                janitor: janitor.abort_handle(),
            }),
        })
    }

    /// What it is called where somebody reads it: its URL without options.
    pub fn place(&self) -> &str {
        self.shared.bucket.place()
    }

    /// Aborts the uploads that wait to be resumed; for the end of a process.
    pub async fn close(&self) {
        self.shared.kept.abort_all(&self.shared.bucket).await;
    }

    /// Removes what dead processes left under `ingest/`. For one process, now
    /// and then.
    pub async fn sweep(&self) -> Result<(), BlobError> {
        let bucket = &self.shared.bucket;
        let now = std::time::SystemTime::now();
        let mut left = bucket.backend().list(Some(&bucket.ingests()));
        while let Some(object) = left.next().await {
            let object =
                object.map_err(|error| bucket.read_failed(error, "list the uploads of"))?;
            let written = std::time::SystemTime::from(object.last_modified);
            if now.duration_since(written).unwrap_or_default() > LEFT_FOR {
                bucket.delete(&object.location).await?;
            }
        }
        Ok(())
    }

    /// Bytes of memory for uploads that are free now.
    pub fn free_buffers(&self) -> u64 {
        self.shared.buffers.free()
    }
}

/// The bucket, asked once for each read.
struct Once(Arc<Bucket>);

#[async_trait]
impl Origin for Once {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.size(digest).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.0.read(digest, offset, length).await
    }
}

#[async_trait]
impl BlobStore for ObjectBlobs {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.shared.bucket.size(digest).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        self.shared.bucket.version(digest).await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        let bucket = &self.shared.bucket;
        let sizes = stream::iter(digests.to_vec()).map(|digest| {
            let bucket = Arc::clone(bucket);
            async move {
                match bucket.believed(&digest) {
                    Some(size) => Ok(Some(size)),
                    None => bucket.size(&digest).await,
                }
            }
        });
        sizes.buffered(LOOKED_FOR_AT_ONCE).try_collect().await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        let bucket = &self.shared.bucket;
        let size = match bucket.believed(digest) {
            Some(size) => Some(size),
            None => bucket.size(digest).await?,
        };
        let size = size.ok_or(BlobError::NotFound(*digest))?;
        let end = offset.saturating_add(length).min(size);
        if offset >= end {
            return Ok(stream::empty().boxed());
        }
        let opened = bucket.read(digest, offset, end - offset).await?;
        let once = Arc::new(Once(Arc::clone(bucket)));
        let bytes = patient::read(Some(opened), once, *digest, offset, end, PATIENCE);
        Ok(bytes)
    }

    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        let shared = &self.shared;
        let ingest = ObjectIngest::open(
            Arc::clone(&shared.bucket),
            Arc::clone(&shared.buffers),
            Arc::clone(&shared.kept),
            Digest::of(name.as_bytes()),
            expected,
        );
        Ok(Box::new(ingest))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.shared.bucket.remove(digest).await
    }

    /// A blob whose commit was answered is durable here.
    async fn persist(&self) -> Result<(), BlobError> {
        Ok(())
    }

    async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError> {
        let bucket = Arc::clone(&self.shared.bucket);
        let objects = bucket.backend().list(Some(&bucket.blobs()));
        let blobs = objects.filter_map(move |object| {
            let blob = match object {
                Ok(object) => object
                    .location
                    .filename()
                    .and_then(|name| Digest::from_hex(name).ok())
                    .map(|digest| Ok((digest, object.size))),
                Err(error) => Some(Err(bucket.read_failed(error, "list"))),
            };
            std::future::ready(blob)
        });
        Ok(blobs.boxed())
    }

    /// What other processes do is looked for again after a minute, and seen
    /// when sizes are no longer believed.
    async fn generation(&self) -> Option<Generation> {
        Some(self.shared.bucket.generation())
    }

    async fn ready(&self) -> Result<(), BlobError> {
        let bucket = &self.shared.bucket;
        let prefix = bucket.ingests();
        let mut listed = bucket.backend().list(Some(&prefix));
        match tokio::time::timeout(READY_WITHIN, listed.next()).await {
            Ok(Some(Err(error))) => Err(bucket.read_failed(error, "reach")),
            Ok(_) => Ok(()),
            Err(_) => Err(BlobError::Io {
                context: format!("cannot reach {}", bucket.place()),
                source: std::io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let bucket = &self.shared.bucket;
        let path = bucket.temporary();
        let put = bucket.backend().put(&path, vec![0; 16].into()).await;
        put.map_err(|error| bucket.write_failed(error, "write to"))?;
        bucket.delete(&path).await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        self.shared.bucket.read_id().await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        self.shared.bucket.take_id(id, taken).await
    }

    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError> {
        self.shared.bucket.locate(digest, ttl).await
    }
}

#[cfg(test)]
mod tests;
