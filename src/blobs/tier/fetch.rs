//! One fetch of a blob for all who want it.
//!
//! It goes on while somebody reads, and for the rest where most is there. What
//! it has when it is cut off is resumed by the next one.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;

use super::metrics::Metrics;
use super::shelf::{Shelf, part_name};
use super::{DiskStore, Origin};
use crate::blobs::disk::DiskIngest;
use crate::blobs::patient::{self, Patience};
use crate::blobs::{BlobError, Ingest as _};
use crate::digest::Digest;

/// Sees how far a fetch is; who has one is a reader.
pub(super) type Watch = watch::Receiver<Progress>;

/// How far a fetch is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The size of the blob, once the origin has told.
    pub(super) size: Option<u64>,
    /// How many bytes are in the file.
    pub(super) there: u64,
    /// Where they can be read, also after the end.
    pub(super) file: Option<Arc<File>>,
    pub(super) end: Option<End>,
}

/// What became of a fetch.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// All is there, and is what was asked for.
    Verified,
    /// The disk does not take it.
    Around,
    /// The origin does not give it.
    Failed(Arc<BlobError>),
    /// Nobody wanted it any more.
    Abandoned,
}

/// The error of a fetch that did not give what was wanted.
pub(super) fn failure(end: Option<&End>) -> BlobError {
    match end {
        Some(End::Failed(error)) => again(error),
        _ => BlobError::Io {
            context: "a fetch was cut off".to_owned(),
            source: std::io::ErrorKind::Interrupted.into(),
        },
    }
}

/// The same error for another reader.
fn again(error: &BlobError) -> BlobError {
    match error {
        BlobError::NotFound(digest) => BlobError::NotFound(*digest),
        BlobError::WrongDigest { expected, actual } => BlobError::WrongDigest {
            expected: *expected,
            actual: *actual,
        },
        BlobError::WrongSize { expected, actual } => BlobError::WrongSize {
            expected: *expected,
            actual: *actual,
        },
        BlobError::Full(place) => BlobError::Full(place.clone()),
        BlobError::Refused(why) => BlobError::Refused(why.clone()),
        BlobError::ReadOnly(place) => BlobError::ReadOnly(place.clone()),
        BlobError::Io { context, source } => BlobError::Io {
            context: context.clone(),
            source: std::io::Error::new(source.kind(), source.to_string()),
        },
    }
}

/// The fetches under way.
#[derive(Debug, Default)]
pub(super) struct Fetches(Mutex<HashMap<Digest, Arc<watch::Sender<Progress>>>>);

impl Fetches {
    /// Watches the fetch of a blob; where there is none, `begin` makes the job
    /// that has to be run.
    pub(super) fn join(
        self: &Arc<Self>,
        digest: &Digest,
        begin: impl FnOnce(Entry) -> Job,
    ) -> (Watch, Option<Job>) {
        let mut under_way = self.under_way();
        let mut before = None;
        if let Some(progress) = under_way.get(digest) {
            let gave_up = |end: &End| !matches!(end, End::Verified);
            if !progress.borrow().end.as_ref().is_some_and(gave_up) {
                return (progress.subscribe(), None);
            }
            before = Some(progress.subscribe());
        }
        let (progress, watch) = watch::channel(Progress::default());
        let progress = Arc::new(progress);
        under_way.insert(*digest, Arc::clone(&progress));
        drop(under_way);
        let job = begin(Entry {
            digest: *digest,
            progress,
            before,
            fetches: Arc::clone(self),
        });
        (watch, Some(job))
    }

    /// Waits for a fetch that has all and is about to leave it on the disk.
    pub(super) async fn landed(&self, digest: &Digest) {
        let watch = {
            let under_way = self.under_way();
            let verified = |progress: &&Arc<watch::Sender<Progress>>| {
                matches!(progress.borrow().end, Some(End::Verified))
            };
            let progress = under_way.get(digest).filter(verified);
            progress.map(|progress| progress.subscribe())
        };
        if let Some(mut watch) = watch {
            while watch.changed().await.is_ok() {}
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Digest, Arc<watch::Sender<Progress>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch's place among those under way; dropped, others begin anew.
pub(super) struct Entry {
    digest: Digest,
    progress: Arc<watch::Sender<Progress>>,
    /// A fetch that gave up, and may still have the file.
    before: Option<Watch>,
    fetches: Arc<Fetches>,
}

impl Entry {
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Gives up where nobody watches; nobody can join afterwards.
    fn leave(&self) -> bool {
        let _none_joins = self.fetches.under_way();
        let alone = self.progress.receiver_count() == 0;
        if alone {
            self.update(|progress| progress.end = Some(End::Abandoned));
        }
        alone
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut under_way = self.fetches.under_way();
        if under_way
            .get(&self.digest)
            .is_some_and(|other| Arc::ptr_eq(other, &self.progress))
        {
            under_way.remove(&self.digest);
        }
    }
}

/// All that a fetch needs.
pub(super) struct Job {
    pub(super) entry: Entry,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) disk: DiskStore,
    pub(super) shelf: Arc<Shelf>,
    pub(super) patience: Patience,
    pub(super) metrics: Metrics,
}

/// Why a fetch stops.
enum Stop {
    /// Nobody reads any more.
    Abandoned,
    /// The disk failed.
    Disk(BlobError),
    /// The origin failed.
    Origin(BlobError),
}

impl Job {
    /// Fetches, verifies and keeps the blob, telling those who watch.
    pub(super) async fn run(mut self) {
        if let Some(mut before) = self.entry.before.take() {
            while before.changed().await.is_ok() {}
        }
        let _held = self.shelf.hold(self.entry.digest);
        let Err(stop) = self.fetch().await else {
            return;
        };
        let digest = self.entry.digest;
        match stop {
            Stop::Abandoned => {}
            Stop::Disk(error) => {
                tracing::warn!(blob = %digest, %error, "a blob is read past the disk tier");
                self.entry
                    .update(|progress| progress.end = Some(End::Around));
            }
            Stop::Origin(error) => {
                tracing::debug!(blob = %digest, %error, "a fetch failed");
                self.entry
                    .update(|progress| progress.end = Some(End::Failed(Arc::new(error))));
            }
        }
    }

    async fn fetch(&self) -> Result<(), Stop> {
        let digest = self.entry.digest;
        let sizing = patient::size(&*self.origin, &digest, self.patience);
        let size = self.unless_abandoned(sizing).await?;
        let size = size.map_err(Stop::Origin)?;
        let Some(room) = self.shelf.reserve(&digest, size).await else {
            self.entry.update(|progress| {
                progress.size = Some(size);
                progress.end = Some(End::Around);
            });
            return Ok(());
        };
        self.entry.update(|progress| progress.size = Some(size));
        let ingest = self.disk.open_ingest(&part_name(&digest)).await;
        let ingest = ingest.map_err(Stop::Disk)?;
        let mut ingest = Box::new(ingest);
        match self.fill(&mut ingest, size).await {
            Ok(()) => {}
            Err(Stop::Disk(error)) => {
                // It has no room to spare.
                ingest.abort().await.ok();
                return Err(Stop::Disk(error));
            }
            Err(stop) => {
                let came = ingest.flushed();
                drop(ingest);
                room.leave(digest, came);
                return Err(stop);
            }
        }
        let actual = ingest.digest();
        if actual != digest {
            tracing::error!(blob = %digest, %actual, "the origin gave other bytes");
            ingest.abort().await.map_err(Stop::Disk)?;
            return Err(Stop::Origin(BlobError::WrongDigest {
                expected: digest,
                actual,
            }));
        }
        self.tell(&ingest);
        self.entry
            .update(|progress| progress.end = Some(End::Verified));
        // The readers have all they need; only the next ones would miss it.
        match ingest.commit(Some(size), Some(digest)).await {
            Ok(_) => room.admit(digest),
            Err(error) => tracing::warn!(blob = %digest, %error, "a fetched blob can't be kept"),
        }
        Ok(())
    }

    /// Writes all that is missing, showing it as it reaches the file.
    async fn fill(&self, ingest: &mut DiskIngest, size: u64) -> Result<(), Stop> {
        if ingest.offset() > size {
            ingest.restart().await.map_err(Stop::Disk)?;
        }
        let file = Arc::new(ingest.reader().map_err(Stop::Disk)?);
        self.entry.update(|progress| progress.file = Some(file));
        self.tell(ingest);
        let mut bytes = patient::read(
            None,
            Arc::clone(&self.origin),
            self.entry.digest,
            ingest.offset(),
            size,
            self.patience,
        );
        loop {
            let next = match bytes.next().now_or_never() {
                Some(next) => next,
                None => {
                    // What came must not wait for what has not.
                    ingest.flush().await.map_err(Stop::Disk)?;
                    self.tell(ingest);
                    if ingest.offset() < size / 2 {
                        self.unless_abandoned(bytes.next()).await?
                    } else {
                        bytes.next().await
                    }
                }
            };
            let Some(chunk) = next else {
                break;
            };
            let chunk = chunk.map_err(Stop::Origin)?;
            self.metrics.fetched(chunk.len() as u64);
            ingest.write(chunk).await.map_err(Stop::Disk)?;
            self.tell(ingest);
            if ingest.offset() < size / 2 && self.entry.leave() {
                return Err(Stop::Abandoned);
            }
        }
        ingest.flush().await.map_err(Stop::Disk)
    }

    /// Waits for `work`, and no longer than anybody reads.
    async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.entry.progress.closed() => {
                    if self.entry.leave() {
                        return Err(Stop::Abandoned);
                    }
                }
            }
        }
    }

    fn tell(&self, ingest: &DiskIngest) {
        let there = ingest.flushed();
        self.entry.progress.send_if_modified(|progress| {
            let more = progress.there != there;
            progress.there = there;
            more
        });
    }
}

#[cfg(test)]
impl Fetches {
    pub(super) fn is_idle(&self) -> bool {
        self.under_way().is_empty()
    }
}
