//! Exports that wait on this host for the hub, so that builds don't.
//!
//! An export is in once it is durable here: its layers in the near tier, pinned,
//! and a folder of its own with the rest. One task brings them to the hub, those
//! of a place in their order, and tries again for as long as the hub is gone. A
//! folder is locked by the process that owns it; those of a process that died
//! are adopted. Tokens are not written down: an export that is adopted goes out
//! under the sidecar's own.

mod deliver;
mod entry;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::entry::{Entry, Shelf};
use super::hub::Caller;
use super::metrics::Metrics;
use super::near::Near;
use crate::blobs::{BlobError, BlobStore as _, Committing, Ingest, Pin};
use crate::cache::{CacheError, Publication, Published, local, steps};
use crate::digest::Digest;
use crate::place::ProjectId;

/// Exports that may wait.
const MAX_WAITING: usize = 10_000;
/// How long a blob that was written is kept for the export that names it.
const FRESH: Duration = Duration::from_secs(3600);

/// The outbox of a process; clones are the same.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
    /// Brings exports to the hub, until the last clone goes.
    _task: Arc<AbortOnDropHandle<()>>,
}

struct Inner {
    shelf: Shelf,
    near: Near,
    own: Caller,
    metrics: Metrics,
    waiting: Mutex<BTreeMap<String, Arc<Waiting>>>,
    /// Blobs that no export has named yet.
    fresh: Mutex<HashMap<Digest, (Pin, Instant)>>,
    /// How many wait.
    count: watch::Sender<usize>,
}

/// An export that waits.
struct Waiting {
    entry: Entry,
    caller: Caller,
    _pins: Vec<Pin>,
}

impl Outbox {
    /// The outbox in `data_dir`, whose exports go to `hub` under its own token;
    /// what an earlier process left there is taken up.
    pub async fn open(
        data_dir: &Path,
        near: Near,
        hub: Arc<super::Hub>,
        token: super::TokenSource,
    ) -> Result<Self, CacheError> {
        let metrics = hub.metrics().clone();
        let inner = Arc::new(Inner {
            shelf: Shelf::open(data_dir).await?,
            near,
            own: Caller::new(hub, token),
            metrics,
            waiting: Mutex::default(),
            fresh: Mutex::default(),
            count: watch::Sender::new(0),
        });
        inner.adopt().await;
        let waiting = inner.waiting().len();
        if waiting > 0 {
            tracing::info!(
                exports = waiting,
                "exports of an earlier run wait for the hub"
            );
        }
        let task = tokio::spawn(deliver::run(Arc::clone(&inner)));
        Ok(Self {
            inner,
            _task: Arc::new(AbortOnDropHandle::new(task)),
        })
    }

    /// Whether an export could be put in.
    pub(super) async fn writable(&self) -> Result<(), CacheError> {
        let waiting = self.inner.waiting().len();
        if waiting >= MAX_WAITING {
            return Err(CacheError::Unavailable(format!(
                "{waiting} exports wait for the hub already (--async-export)"
            )));
        }
        self.inner.shelf.probe().await?;
        Ok(self.inner.near.tier.disk().probe().await?)
    }

    /// The size of a blob that an export of the project brings to the hub.
    pub(super) fn holds(&self, project: &ProjectId, digest: &Digest) -> Option<u64> {
        let waiting = self.inner.waiting();
        let entries = waiting.values().map(|waiting| &waiting.entry);
        let mut of_project = entries.filter(|entry| entry.export.place.project == *project);
        of_project.find_map(|entry| entry.blobs.get(digest).copied())
    }

    /// An upload that ends on this host.
    pub(super) async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        let ingest = self.inner.near.tier.ingest(name, expected).await?;
        let outbox = Arc::clone(&self.inner);
        // Its blob is pinned before it can leave the disk again.
        let commit = move |ingest: Box<dyn Ingest>, size, expected| {
            async move {
                let pin = outbox.near.tier.pin(&ingest.digest()).await;
                let (digest, size) = ingest.commit(size, expected).await?;
                outbox.keep_fresh(digest, pin);
                Ok((digest, size))
            }
            .boxed()
        };
        Ok(Box::new(Committing::new(ingest, commit)))
    }

    /// Puts an export in; when this returns it survives a crash of the machine.
    pub(super) async fn put(
        &self,
        caller: &Caller,
        export: Publication,
    ) -> Result<Published, CacheError> {
        let (manifest, config) =
            local::parse(export.manifest.clone(), export.config.clone()).await?;
        let blobs = BTreeMap::from_iter(manifest.sizes()?);
        let mut pins = Vec::new();
        let mut missing = Vec::new();
        for digest in &export.uploaded {
            pins.push(self.inner.near.tier.pin(digest).await);
            if !self.inner.near.tier.has(digest).await {
                missing.push(*digest);
            }
        }
        if !missing.is_empty() {
            return Err(CacheError::Missing(missing));
        }
        self.inner.near.tier.disk().persist().await?;
        let published = Published {
            id: None,
            records: config.records.len(),
            layers: blobs.len(),
            bytes: blobs.values().sum(),
            steps: steps::of_export(&config, export.steps.clone(), Vec::new()),
        };
        let uploaded = export.uploaded.clone();
        let entry = self.inner.shelf.write(export, blobs).await?;
        self.inner.take_in(Waiting {
            entry,
            caller: caller.clone(),
            _pins: pins,
        });
        let mut fresh = lock(&self.inner.fresh);
        uploaded
            .iter()
            .for_each(|digest| drop(fresh.remove(digest)));
        Ok(published)
    }

    /// Waits until all has reached the hub, for at most `limit`. Gives how many
    /// exports are left for the next start.
    pub async fn drain(&self, limit: Duration) -> usize {
        let mut count = self.inner.count.subscribe();
        let empty = count.wait_for(|count| *count == 0);
        // Nobody but this holds the sender.
        let _ = tokio::time::timeout(limit, empty).await;
        let left = self.inner.waiting().len();
        if left > 0 {
            tracing::warn!(
                exports = left,
                "exports have not reached the hub, and wait for the next start"
            );
        }
        left
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Waiting>>> {
        lock(&self.waiting)
    }

    fn take_in(&self, waiting: Waiting) {
        let name = waiting.entry.name.clone();
        self.waiting().insert(name, Arc::new(waiting));
        self.changed();
    }

    fn drop_out(&self, name: &str) {
        self.waiting().remove(name);
        self.changed();
    }

    fn changed(&self) {
        let waiting = self.waiting();
        let oldest = waiting.values().next();
        let oldest = oldest.map(|waiting| waiting.entry.written_at.as_second() as f64);
        self.metrics.outbox(waiting.len(), oldest);
        self.count.send_replace(waiting.len());
    }

    /// Takes up what no living process owns.
    async fn adopt(&self) {
        let entries = match self.shelf.abandoned().await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "the outbox can't be read");
                return;
            }
        };
        for entry in entries {
            let mut pins = Vec::new();
            for digest in &entry.export.uploaded {
                pins.push(self.near.tier.pin(digest).await);
            }
            self.take_in(Waiting {
                entry,
                caller: self.own.clone(),
                _pins: pins,
            });
        }
    }

    /// Keeps a blob for the export that will name it.
    fn keep_fresh(&self, digest: Digest, pin: Pin) {
        let mut fresh = lock(&self.fresh);
        fresh.retain(|_, (_, since)| since.elapsed() < FRESH);
        fresh.insert(digest, (pin, Instant::now()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
