//! Exports that wait on this host for their hub, so that builds don't.
//!
//! An export is in once it is durable here: its layers in the near tier, pinned,
//! and a folder of its own with the rest. One task brings them to the hub that
//! each was made for, those of a place in their order and several places at a
//! time, and tries again for as long as the hub is gone. A folder is locked by
//! the process that owns it; those of a process that died are adopted by one
//! that has their hub. Tokens are not written down: an export that is adopted
//! goes out under the sidecar's own, or to another hub under none.
//!
//! | question | file |
//! |---|---|
//! | what does it look like on disk? | `entry`, `shelf` |
//! | to which hub does it go? | `destinations` |
//! | whose turn is it? | `lanes` |
//! | what if the hub says no? | `deliver` |

mod deliver;
mod destinations;
mod entry;
mod lanes;
mod shelf;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::destinations::Destination;
pub use self::destinations::Destinations;
use self::entry::{Draft, Entry};
use self::lanes::Lane;
use self::shelf::Shelf;
use super::HubAddress;
use super::hub::Caller;
use super::metrics::{Ended, Metrics};
use super::near::Near;
use crate::blobs::{BlobError, BlobStore as _, Committing, Ingest, Pin};
use crate::cache::{CacheError, Publication, Published, local, steps};
use crate::digest::Digest;
use crate::place::ProjectId;

/// Exports that may wait.
const MAX_WAITING: usize = 10_000;
/// How long one may.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
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
    destinations: Destinations,
    waiting: Mutex<BTreeMap<String, Arc<Waiting>>>,
    /// What is done and could not be removed yet: held, so that nobody takes it
    /// up again.
    done: Mutex<Vec<Arc<Waiting>>>,
    /// Blobs that no export has named yet.
    fresh: Mutex<HashMap<Digest, (Arc<Pin>, Instant)>>,
    /// What is pinned: exports share the pin of a blob.
    pins: Mutex<HashMap<Digest, Weak<Pin>>>,
    /// How many wait.
    count: watch::Sender<usize>,
    /// How many of this disk wait for a hub that this process has not.
    stranded: AtomicUsize,
}

/// An export that waits.
struct Waiting {
    entry: Entry,
    destination: Destination,
    _pins: Vec<Arc<Pin>>,
}

impl Outbox {
    /// The outbox in `data_dir`, whose exports go to `destinations`; what an
    /// earlier process left there for one of those is taken up.
    pub async fn open(
        data_dir: &Path,
        near: Near,
        destinations: Destinations,
    ) -> Result<Self, CacheError> {
        let inner = Arc::new(Inner {
            shelf: Shelf::open(data_dir).await?,
            near,
            destinations,
            waiting: Mutex::default(),
            done: Mutex::default(),
            fresh: Mutex::default(),
            pins: Mutex::default(),
            count: watch::Sender::new(0),
            stranded: AtomicUsize::new(0),
        });
        inner.adopt().await;
        inner.expire(inner.old(|_| true)).await;
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
        self.inner.room()?;
        self.inner.shelf.probe().await?;
        Ok(self.inner.near.tier.disk().probe().await?)
    }

    /// The size of a blob that an export of the project brings to the hub of
    /// `caller`.
    pub(super) fn holds(
        &self,
        caller: &Caller,
        project: &ProjectId,
        digest: &Digest,
    ) -> Option<u64> {
        self.inner.brings(&addresses(caller), project, digest)
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
                let pin = outbox.pin(&ingest.digest()).await;
                let (digest, size) = ingest.commit(size, expected).await?;
                outbox.keep_fresh(digest, pin);
                Ok((digest, size))
            }
            .boxed()
        };
        Ok(Box::new(Committing::new(ingest, commit)))
    }

    /// Puts an export in, for the hub of `caller`; when this returns it survives
    /// a crash of the machine. `was_held` says which blobs the hub has said that
    /// the project holds.
    pub(super) async fn put(
        &self,
        caller: &Caller,
        export: Publication,
        was_held: impl Fn(&Digest) -> bool,
    ) -> Result<Published, CacheError> {
        self.inner.room()?;
        let (manifest, config) =
            local::parse(export.manifest.clone(), export.config.clone()).await?;
        let blobs = BTreeMap::from_iter(manifest.sizes()?);
        let mut pins = Vec::new();
        let mut missing = Vec::new();
        for digest in &export.uploaded {
            pins.push(self.inner.pin(digest).await);
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
            queued: true,
            records: config.records.len(),
            layers: blobs.len(),
            bytes: blobs.values().sum(),
            steps: steps::of_export(&config, export.steps.clone(), Vec::new()),
        };
        let lane = Lane {
            hub: addresses(caller),
            place: export.place.clone(),
        };
        let destination = self.inner.destinations.of(caller, &lane.hub);
        let held = self.inner.held(&lane, &blobs, &export, was_held);
        for digest in &held {
            pins.push(self.inner.pin(digest).await);
        }
        let uploaded = export.uploaded.clone();
        let draft = Draft {
            export,
            lane,
            blobs,
            held,
        };
        let entry = self.inner.shelf.write(draft).await?;
        self.inner.take_in(Waiting {
            entry,
            destination,
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

#[cfg(test)]
impl Outbox {
    /// As is done now and then.
    pub(super) async fn look(&self) {
        self.inner.look().await;
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Waiting>>> {
        lock(&self.waiting)
    }

    fn metrics(&self) -> &Metrics {
        self.destinations.metrics()
    }

    /// An error where too many wait.
    fn room(&self) -> Result<(), CacheError> {
        let waiting = self.waiting().len();
        if waiting >= MAX_WAITING {
            return Err(CacheError::Unavailable(format!(
                "{waiting} exports wait for the hub already (--async-export)"
            )));
        }
        Ok(())
    }

    fn take_in(&self, waiting: Waiting) {
        let name = waiting.entry.name.clone();
        self.waiting().insert(name, Arc::new(waiting));
        self.changed();
    }

    fn changed(&self) {
        let waiting = self.waiting();
        let oldest = waiting.values().next();
        let oldest = oldest.map(|waiting| waiting.entry.written_at.as_second() as f64);
        self.metrics().outbox(waiting.len(), oldest);
        self.count.send_replace(waiting.len());
    }

    /// The size of a blob that an export of the project may send to that hub.
    fn brings(
        &self,
        hub: &BTreeSet<HubAddress>,
        project: &ProjectId,
        digest: &Digest,
    ) -> Option<u64> {
        let waiting = self.waiting();
        let mut entries = waiting.values().map(|waiting| &waiting.entry);
        let entry = entries.find(|entry| {
            let lane = &entry.lane;
            entry.sendable.contains(digest) && lane.hub == *hub && lane.place.project == *project
        });
        entry?.blobs.get(digest).copied()
    }

    /// What the project of an export holds, of what the export did not upload.
    fn held(
        &self,
        lane: &Lane,
        blobs: &BTreeMap<Digest, u64>,
        export: &Publication,
        was_held: impl Fn(&Digest) -> bool,
    ) -> BTreeSet<Digest> {
        let others = blobs
            .keys()
            .filter(|digest| !export.uploaded.contains(digest));
        let project = &lane.place.project;
        let held = others
            .filter(|digest| was_held(digest) || self.brings(&lane.hub, project, digest).is_some());
        held.copied().collect()
    }

    /// Looks what other processes and the disk have left.
    async fn look(&self) {
        self.clear().await;
        self.adopt().await;
    }

    /// Takes up what no living process owns, as far as its hub is one of ours.
    async fn adopt(&self) {
        let found = match self.shelf.look().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the outbox can't be read");
                return;
            }
        };
        (0..found.unreadable).for_each(|_| self.metrics().outbox_ended(Ended::Refused));
        self.metrics().outbox_refused(found.refused);
        let mut stranded: BTreeMap<BTreeSet<HubAddress>, usize> = BTreeMap::new();
        for mut entry in found.entries {
            let Some(destination) = self.destinations.find(&entry.lane.hub) else {
                if is_old(&entry) {
                    // One that stays is found again.
                    self.remove(&entry, Ended::Expired).await;
                } else {
                    *stranded.entry(entry.lane.hub).or_default() += 1;
                }
                continue;
            };
            let is_of_earlier_version = entry.lane.hub.is_empty();
            entry.lane.hub = addresses(&destination.caller);
            if is_of_earlier_version {
                self.complete(&mut entry);
            }
            let mut pins = Vec::new();
            for digest in &entry.sendable {
                pins.push(self.pin(digest).await);
            }
            self.take_in(Waiting {
                entry,
                destination,
                _pins: pins,
            });
        }
        self.tell_stranded(&stranded);
    }

    /// An export of an earlier version, which did not say that it needs what one
    /// before it brings.
    fn complete(&self, entry: &mut Entry) {
        let lane = &entry.lane;
        let brought = entry.blobs.keys().filter(|digest| {
            let brings = self.brings(&lane.hub, &lane.place.project, digest);
            brings.is_some()
        });
        let brought: Vec<Digest> = brought.copied().collect();
        entry.sendable.extend(brought);
    }

    fn tell_stranded(&self, stranded: &BTreeMap<BTreeSet<HubAddress>, usize>) {
        let all = stranded.values().sum();
        self.metrics().outbox_stranded(all);
        if self.stranded.swap(all, Ordering::Relaxed) >= all {
            return;
        }
        for (hub, exports) in stranded {
            let hub: Vec<String> = hub.iter().map(ToString::to_string).collect();
            tracing::warn!(
                hub = hub.join(", "),
                exports,
                "exports wait for another hub than this sidecar has: they go there once it is in --hub or --allow-hub again, and are dropped after a week"
            );
        }
    }

    /// What has waited for too long, of what `may_go`.
    fn old(&self, may_go: impl Fn(&Waiting) -> bool) -> Vec<Arc<Waiting>> {
        let waiting = self.waiting();
        let old = waiting
            .values()
            .filter(|one| is_old(&one.entry) && may_go(one));
        old.cloned().collect()
    }

    async fn expire(&self, old: Vec<Arc<Waiting>>) {
        for waiting in old {
            self.finish(&waiting, Ended::Expired).await;
        }
    }

    /// One that waits no more.
    async fn finish(&self, waiting: &Arc<Waiting>, ended: Ended) {
        if !self.remove(&waiting.entry, ended).await {
            lock(&self.done).push(Arc::clone(waiting));
        }
        self.waiting().remove(&waiting.entry.name);
        self.changed();
    }

    /// Removes what is done and could not be removed before.
    async fn clear(&self) {
        let done = std::mem::take(&mut *lock(&self.done));
        for waiting in done {
            if let Err(error) = self.shelf.remove(&waiting.entry).await {
                tracing::debug!(%error, "an export that is done stays in the outbox");
                lock(&self.done).push(waiting);
            }
        }
    }

    /// Gives whether it is gone from the disk.
    async fn remove(&self, entry: &Entry, ended: Ended) -> bool {
        if ended == Ended::Expired {
            let place = &entry.lane.place;
            tracing::warn!(%place, written_at = %entry.written_at, "an export has waited for the hub for a week, and is dropped");
        }
        self.metrics().outbox_ended(ended);
        let removed = self.shelf.remove(entry).await;
        if let Err(error) = &removed {
            tracing::warn!(%error, "an export that is done stays in the outbox");
        }
        removed.is_ok()
    }

    /// Puts aside what its hub will never take, so that others pass. Where the
    /// disk does not let it, it stays.
    async fn put_aside(&self, waiting: &Waiting, why: &CacheError) -> Result<(), CacheError> {
        let (entry, place) = (&waiting.entry, &waiting.entry.lane.place);
        let said = format!("{place}, {}: {why}", Timestamp::now());
        let kept = self.shelf.put_aside(entry, said).await?;
        tracing::error!(%place, name = entry.name, error = %why, "an export is refused for good, and put aside in outbox-refused");
        self.metrics().outbox_ended(Ended::Refused);
        self.metrics().outbox_refused(kept);
        self.waiting().remove(&entry.name);
        self.changed();
        Ok(())
    }

    /// Keeps a blob on this disk until the last of its pins is dropped.
    async fn pin(&self, digest: &Digest) -> Arc<Pin> {
        let known = lock(&self.pins).get(digest).and_then(Weak::upgrade);
        if let Some(pin) = known {
            return pin;
        }
        let pin = Arc::new(self.near.tier.pin(digest).await);
        let mut pins = lock(&self.pins);
        if pins.len() == pins.capacity() {
            pins.retain(|_, pin| pin.strong_count() > 0);
        }
        pins.insert(*digest, Arc::downgrade(&pin));
        pin
    }

    /// Keeps a blob for the export that will name it.
    fn keep_fresh(&self, digest: Digest, pin: Arc<Pin>) {
        let mut fresh = lock(&self.fresh);
        fresh.retain(|_, (_, since)| since.elapsed() < FRESH);
        fresh.insert(digest, (pin, Instant::now()));
    }
}

fn addresses(caller: &Caller) -> BTreeSet<HubAddress> {
    caller.hub().addresses().cloned().collect()
}

fn is_old(entry: &Entry) -> bool {
    let age = Timestamp::now().duration_since(entry.written_at);
    Duration::try_from(age).is_ok_and(|age| age > MAX_AGE)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
