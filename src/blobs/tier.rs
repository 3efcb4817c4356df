//! A bounded disk in front of a slower origin: a hub's in front of its bucket,
//! a runner's in front of the hub.
//!
//! A blob that is missed is fetched once, whole, however many want it; who
//! reads it follows the file as it grows, and is given its end only when the
//! digest is verified. What was used least recently goes when room is needed.
//! A disk that is full or broken costs speed only: reads then go around it.

mod fetch;
mod files;
mod follow;
mod metrics;
mod shelf;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::task::JoinSet;

use self::fetch::{Fetches, Job};
use self::follow::Following;
pub use self::metrics::Metrics as TierMetrics;
use self::metrics::Read;
pub use self::shelf::Pin;
use self::shelf::Shelf;
pub use self::store::{StoreOrigin, TieredBlobs};
use super::patient::{self, Patience};
use super::{BlobError, BlobStore as _, BlobStream, Committing, DiskStore, Ingest};
use crate::digest::Digest;

/// Where blobs come from that a [`Tier`] does not have.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// The size of a blob in bytes, or `None` where it is absent.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// Streams `length` bytes from `offset` on.
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError>;
}

/// How a tier behaves.
#[derive(Clone, Copy, Debug)]
pub struct TierOptions {
    /// How many bytes of blobs are kept. Fetches under way count; what other
    /// processes add to the same directory does within a minute.
    pub max_bytes: u64,
    /// For how long an origin may fail, with no byte in between, before those
    /// who wait are told.
    pub patience: Duration,
    /// How long an origin may say nothing before it counts as having failed.
    pub stall: Duration,
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 30,
            patience: Duration::from_secs(60),
            stall: Duration::from_secs(15),
        }
    }
}

/// A disk in front of an [`Origin`]; clones are the same. Fetches end with the
/// last clone and the last stream.
#[derive(Clone)]
pub struct Tier {
    shared: Arc<Shared>,
}

struct Shared {
    disk: DiskStore,
    origin: Arc<dyn Origin>,
    patience: Patience,
    shelf: Arc<Shelf>,
    fetches: Arc<Fetches>,
    /// The fetches; dropped with this, they are cut off and can be resumed.
    tasks: Mutex<JoinSet<()>>,
    metrics: TierMetrics,
}

impl Tier {
    /// Keeps blobs of `origin` in `disk`, which other processes may share. Looks
    /// once at all that is there.
    pub async fn open(
        disk: DiskStore,
        origin: Arc<dyn Origin>,
        options: TierOptions,
        metrics: TierMetrics,
    ) -> Self {
        let shelf = Shelf::open(disk.clone(), options.max_bytes, metrics.clone()).await;
        Self {
            shared: Arc::new(Shared {
                disk,
                origin,
                patience: Patience {
                    whole: options.patience,
                    stall: options.stall.min(options.patience),
                },
                shelf: Arc::new(shelf),
                fetches: Arc::default(),
                tasks: Mutex::default(),
                metrics,
            }),
        }
    }

    /// Lets go of what is beyond its size and nobody holds: when all is open, and
    /// once what was held is let go.
    pub async fn trim(&self) {
        self.shared.shelf.trim().await;
    }

    /// The size of a blob in bytes, here or at the origin; `None` where it is
    /// at neither.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.shared.disk.size(digest).await {
            Ok(Some(size)) => Ok(Some(size)),
            Ok(None) | Err(_) => self.shared.origin.size(digest).await,
        }
    }

    /// Whether a blob is here, so that reading it asks nobody.
    pub async fn has(&self, digest: &Digest) -> bool {
        matches!(self.shared.disk.size(digest).await, Ok(Some(_)))
    }

    /// Streams `length` bytes from `offset` on, fewer where the blob ends
    /// first, fetching the whole blob where it is not here.
    /// [`BlobError::NotFound`] comes from here, not from the stream.
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        let shared = &self.shared;
        let held = shared.shelf.hold(*digest);
        match shared.disk.read(digest, offset, length).await {
            Ok(stream) => {
                shared.metrics.read(Read::Hit);
                shared.shelf.touch(digest).await;
                let following = Following::disk(self.clone(), *digest, held, stream);
                return Ok(following.stream(offset, length));
            }
            Err(BlobError::NotFound(_)) => shared.shelf.forget(digest),
            Err(error) => {
                tracing::warn!(blob = %digest, %error, "the disk tier can't be read");
                shared.metrics.read(Read::Around);
                let size = patient::size(&*shared.origin, digest, shared.patience).await?;
                let following = Following::around(self.clone(), *digest, held, size);
                return Ok(following.stream(offset, length));
            }
        }
        let mut progress = self.fetching(digest);
        let sized = progress.wait_for(|progress| progress.size.is_some() || progress.end.is_some());
        let size = match sized.await {
            Ok(progress) => match (&progress.size, &progress.end) {
                (Some(size), _) => *size,
                (None, end) => return Err(fetch::failure(end.as_ref())),
            },
            Err(_) => return Err(fetch::failure(None)),
        };
        let following = Following::fetch(self.clone(), *digest, held, size, progress);
        Ok(following.stream(offset, length))
    }

    /// Has the whole blob here when it returns; shares a fetch that is under
    /// way. Where there is no room for it, that is no error.
    pub async fn fetch(&self, digest: &Digest) -> Result<(), BlobError> {
        let _held = self.shared.shelf.hold(*digest);
        if self.has(digest).await {
            self.shared.shelf.touch(digest).await;
            return Ok(());
        }
        let mut progress = self.fetching(digest);
        // The fetch goes when all is done, and its sender with it.
        while progress.changed().await.is_ok() {}
        let end = progress.borrow().end.clone();
        match end {
            Some(fetch::End::Verified | fetch::End::Around) => Ok(()),
            end => Err(fetch::failure(end.as_ref())),
        }
    }

    /// An ingest into the disk, past the origin: for bytes that come by on
    /// their way there. See [`BlobStore::ingest`](super::BlobStore::ingest).
    pub async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        let ingest = self.shared.disk.ingest(name, expected).await?;
        let shelf = Arc::clone(&self.shared.shelf);
        // It counts once it is committed.
        let commit = move |ingest: Box<dyn Ingest>, size, expected| {
            async move {
                let (digest, size) = ingest.commit(size, expected).await?;
                shelf.admit(digest, size).await;
                Ok((digest, size))
            }
            .boxed()
        };
        Ok(Box::new(Committing::new(ingest, commit)))
    }

    /// Keeps a blob here until the pin is dropped, for other processes too
    /// where it is here already: pin what is to be uploaded later.
    pub async fn pin(&self, digest: &Digest) -> Pin {
        self.shared.shelf.pin(*digest).await
    }

    /// Removes a blob from the disk, not from the origin.
    pub async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.shared.fetches.landed(digest).await;
        self.shared.disk.remove(digest).await?;
        self.shared.shelf.forget(digest);
        Ok(())
    }

    /// The disk.
    pub fn disk(&self) -> &DiskStore {
        &self.shared.disk
    }

    /// The fetch of a blob, begun now where none is under way.
    fn fetching(&self, digest: &Digest) -> fetch::Watch {
        let shared = &self.shared;
        let (progress, job) = shared.fetches.join(digest, |entry| Job {
            entry,
            origin: Arc::clone(&shared.origin),
            disk: shared.disk.clone(),
            shelf: Arc::clone(&shared.shelf),
            patience: shared.patience,
            metrics: shared.metrics.clone(),
        });
        if let Some(job) = job {
            shared.metrics.read(Read::Miss);
            let mut tasks = self.tasks();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(job.run());
        } else {
            shared.metrics.read(Read::Joined);
        }
        progress
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.shared
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
