//! A bucket: which object is which blob, and what is known of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use http::Method;
use moka::sync::Cache;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload};

use super::ObjectOptions;
use super::errors::{self, Wrong};
use super::open::Opened;
use crate::blobs::{BlobError, BlobStream, Generation, Location, Version};
use crate::digest::Digest;

/// Blobs whose size is remembered.
const REMEMBERED: u64 = 200_000;

/// How long what others do may go unseen.
const UNSEEN_FOR: Duration = Duration::from_secs(60);

/// Above this providers refuse to copy.
const COPIED: u64 = 5 << 30;

/// All that is asked of a provider.
pub(super) trait Backend: ObjectStore + MultipartStore + Signer {}
impl<T: ObjectStore + MultipartStore + Signer> Backend for T {}

/// The objects below one prefix.
pub(super) struct Bucket {
    backend: Arc<dyn Backend>,
    prefix: Path,
    /// As it is shown: without options.
    place: String,
    sizes: Cache<Digest, u64>,
    /// Counts what this process did.
    changes: AtomicI64,
    opened: Instant,
    part_size: usize,
}

impl Bucket {
    pub(super) fn new(opened: Opened, options: &ObjectOptions) -> Self {
        let sizes = Cache::builder()
            .max_capacity(REMEMBERED)
            .time_to_live(options.believed_for)
            .build();
        Self {
            backend: opened.backend,
            prefix: opened.prefix,
            place: opened.place,
            sizes,
            changes: AtomicI64::default(),
            opened: Instant::now(),
            part_size: options.part_size,
        }
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// To be used where a task needs it.
    pub(super) fn shared_backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend)
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }

    pub(super) fn part_size(&self) -> usize {
        self.part_size
    }

    pub(super) fn blobs(&self) -> Path {
        self.prefix.clone().join("blobs").join("sha256")
    }

    pub(super) fn ingests(&self) -> Path {
        self.prefix.clone().join("ingest")
    }

    pub(super) fn blob(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        self.blobs().join(&hex[..2]).join(hex.as_str())
    }

    /// An object that nobody else has.
    pub(super) fn temporary(&self) -> Path {
        let name = format!("{:032x}", rand::random::<u128>());
        self.ingests().join(name)
    }

    /// The size that a blob had not long ago.
    pub(super) fn believed(&self, digest: &Digest) -> Option<u64> {
        self.sizes.get(digest)
    }

    pub(super) fn generation(&self) -> Generation {
        let slot = self.opened.elapsed().as_secs() / UNSEEN_FOR.as_secs();
        let changes = self.changes.load(Ordering::Relaxed);
        Generation::new((0, 0), (changes, i64::try_from(slot).unwrap_or_default()))
    }

    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.backend.head(&self.blob(digest)).await {
            Ok(found) => {
                self.sizes.insert(*digest, found.size);
                Ok(Some(found.size))
            }
            Err(object_store::Error::NotFound { .. }) => {
                self.sizes.invalidate(digest);
                Ok(None)
            }
            Err(error) => Err(self.read_failed(error, "look for a blob in")),
        }
    }

    /// Two uploads of the same bytes may have one tag, and are told apart by their
    /// times.
    pub(super) async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        match self.backend.head(&self.blob(digest)).await {
            Ok(found) => Ok(Some(Version::new(format!(
                "{} {:?} {:?}",
                found.last_modified.timestamp_micros(),
                found.e_tag,
                found.version
            )))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.read_failed(error, "look for a blob in")),
        }
    }

    /// A part of a blob that is not empty and within the blob.
    pub(super) async fn read(
        self: &Arc<Self>,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        let range = GetRange::Bounded(offset..offset + length);
        let options = GetOptions {
            range: Some(range),
            ..GetOptions::default()
        };
        let found = match self.backend.get_opts(&self.blob(digest), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                self.sizes.invalidate(digest);
                self.changed();
                return Err(BlobError::NotFound(*digest));
            }
            Err(error) => return Err(self.read_failed(error, "read from")),
        };
        let bucket = Arc::clone(self);
        let bytes = found.into_stream();
        let bytes =
            bytes.map(move |chunk| chunk.map_err(|error| bucket.read_failed(error, "read from")));
        Ok(bytes.boxed())
    }

    /// Puts a whole blob, verified by now.
    pub(super) async fn put(&self, digest: &Digest, payload: PutPayload) -> Result<(), BlobError> {
        let size = payload.content_length() as u64;
        let put = self.backend.put(&self.blob(digest), payload).await;
        self.visible(digest, size, put.map(drop), "write to").await
    }

    /// Copies an upload to where it belongs.
    pub(super) async fn adopt(
        &self,
        temporary: &Path,
        digest: &Digest,
        size: u64,
    ) -> Result<(), BlobError> {
        let copied = self.backend.copy(temporary, &self.blob(digest)).await;
        let adopted = self.visible(digest, size, copied, "copy within").await;
        if let Err(error) = self.delete(temporary).await {
            tracing::debug!(%error, "an upload is left to the next sweep");
        }
        adopted?;
        // Some copy in their own time.
        match self.size(digest).await? {
            Some(there) if there == size => Ok(()),
            _ => Err(BlobError::Io {
                context: format!("{} did not copy a blob whole", self.place),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    }

    /// Whether an upload that was told no digest may become that long.
    pub(super) fn can_adopt(&self, size: u64) -> bool {
        size <= COPIED
    }

    /// The end of a write. That it failed is no error where the blob is there:
    /// another writer was first, and some stores drop what others upload then.
    pub(super) async fn visible(
        &self,
        digest: &Digest,
        size: u64,
        written: object_store::Result<()>,
        doing: &str,
    ) -> Result<(), BlobError> {
        if let Err(error) = written {
            let error = self.write_failed(error, doing);
            let there = match error {
                BlobError::ReadOnly(_) | BlobError::Full(_) => None,
                _ => self.size(digest).await.ok().flatten(),
            };
            if there != Some(size) {
                return Err(error);
            }
        }
        self.sizes.insert(*digest, size);
        self.changed();
        Ok(())
    }

    pub(super) async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let removed = self.delete(&self.blob(digest)).await;
        self.sizes.invalidate(digest);
        self.changed();
        removed
    }

    /// Deletes an object, which may be gone already.
    pub(super) async fn delete(&self, path: &Path) -> Result<(), BlobError> {
        match self.backend.delete(path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted.map_err(|error| self.write_failed(error, "remove from")),
        }
    }

    pub(super) async fn locate(
        &self,
        digest: &Digest,
        ttl: Duration,
    ) -> Result<Option<Location>, BlobError> {
        let path = self.blob(digest);
        match self.backend.signed_url(Method::GET, &path, ttl).await {
            Ok(url) => Ok(Some(Location::new(url))),
            Err(object_store::Error::NotSupported { .. }) => Ok(None),
            Err(error) => Err(self.read_failed(error, "sign a URL of")),
        }
    }

    pub(super) fn read_failed(&self, error: object_store::Error, doing: &str) -> BlobError {
        errors::blob_error(error, doing, &self.place, Wrong::Read)
    }

    pub(super) fn write_failed(&self, error: object_store::Error, doing: &str) -> BlobError {
        errors::blob_error(error, doing, &self.place, Wrong::Write)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}
