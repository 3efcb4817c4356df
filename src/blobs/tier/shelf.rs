//! What a tier has, in the order of its last use, and what goes for room.
//!
//! The order outlives the process as the files' times of change. Other
//! processes may use the same directory: their files and uses are seen by a
//! look at it, at most once a minute, when room may be short; what they pin is
//! locked.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::DiskStore;
use super::files::{files, lock_shared, remove_unpinned};
use super::metrics::Metrics;
use crate::blobs::Ingest as _;
use crate::blobs::disk::errors::{blocking, read_failed};
use crate::digest::Digest;

/// How exactly the order of use is written down.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// How often other processes' files are looked for, at most.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How many fetches that were cut off can be gone on with, at most.
const PARTS: usize = 64;
/// How often room is made anew where files turn out to be pinned elsewhere.
const ATTEMPTS: usize = 4;

/// The blobs of a tier.
pub(super) struct Shelf {
    disk: DiskStore,
    max_bytes: u64,
    index: Arc<Mutex<Index>>,
    metrics: Metrics,
}

#[derive(Default)]
struct Index {
    blobs: HashMap<Digest, Kept>,
    by_use: BTreeSet<(SystemTime, Digest)>,
    /// What cut off fetches left, in bytes, in the order in which it happened.
    parts: VecDeque<(Digest, u64)>,
    /// Of `blobs` and `parts`, and of what is being fetched.
    bytes: u64,
    /// What may not go, and for how many.
    held: HashMap<Digest, usize>,
    looked: Option<Instant>,
}

/// What goes for room.
struct Victims {
    blobs: Vec<(Digest, Kept)>,
    parts: Vec<Digest>,
}

#[derive(Clone, Copy)]
struct Kept {
    size: u64,
    used: SystemTime,
    /// The time of use that is written down.
    marked: SystemTime,
}

impl Index {
    fn put(&mut self, digest: Digest, kept: Kept) {
        self.take(&digest);
        self.bytes += kept.size;
        self.by_use.insert((kept.used, digest));
        self.blobs.insert(digest, kept);
    }

    fn take(&mut self, digest: &Digest) -> Option<Kept> {
        let kept = self.blobs.remove(digest)?;
        self.bytes -= kept.size;
        self.by_use.remove(&(kept.used, *digest));
        Some(kept)
    }

    /// Takes out parts, then what was used least recently, until `room` bytes
    /// fit; nothing where that is not enough.
    fn make_room(&mut self, room: u64, max_bytes: u64) -> Option<Victims> {
        let mut short = (self.bytes + room).saturating_sub(max_bytes);
        let (mut parts, mut victims) = (0, Vec::new());
        for (_, size) in &self.parts {
            if short == 0 && self.parts.len() - parts <= PARTS {
                break;
            }
            short = short.saturating_sub(*size);
            parts += 1;
        }
        for (_, digest) in &self.by_use {
            if short == 0 {
                break;
            }
            if !self.held.contains_key(digest) {
                short = short.saturating_sub(self.blobs.get(digest)?.size);
                victims.push(*digest);
            }
        }
        if short > 0 {
            return None;
        }
        let parts: Vec<_> = self.parts.drain(..parts).collect();
        self.bytes -= parts.iter().map(|(_, size)| size).sum::<u64>();
        let taken = victims
            .into_iter()
            .filter_map(|digest| Some((digest, self.take(&digest)?)));
        Some(Victims {
            blobs: taken.collect(),
            parts: parts.into_iter().map(|(digest, _)| digest).collect(),
        })
    }

    /// A part is gone on with, or gone.
    fn take_part(&mut self, digest: &Digest) {
        if let Some(at) = self.parts.iter().position(|(part, _)| part == digest) {
            let part = self.parts.remove(at);
            self.bytes -= part.map_or(0, |(_, size)| size);
        }
    }
}

impl Shelf {
    /// Looks at all that is there. A directory that can't be read is empty.
    pub(super) async fn open(disk: DiskStore, max_bytes: u64, metrics: Metrics) -> Self {
        let shelf = Self {
            disk,
            max_bytes,
            index: Arc::default(),
            metrics,
        };
        shelf.look().await;
        shelf
    }

    /// Keeps a blob from going, whether it is here yet or not.
    pub(super) fn hold(&self, digest: Digest) -> Held {
        *self.index().held.entry(digest).or_default() += 1;
        Held {
            digest,
            index: Arc::clone(&self.index),
        }
    }

    pub(super) async fn pin(&self, digest: Digest) -> Pin {
        let held = self.hold(digest);
        let path = self.disk.file(&digest);
        let lock =
            blocking(move || lock_shared(&path).map_err(|error| read_failed(error, "pin", &path)));
        // Without a lock it is still safe from this process.
        let lock = lock.await.ok().flatten();
        Pin {
            _held: held,
            _lock: lock,
        }
    }

    /// Notes that a blob is used now.
    pub(super) async fn touch(&self, digest: &Digest) {
        let now = SystemTime::now();
        let known = self.index().blobs.get(digest).copied();
        let mut kept = match known {
            Some(kept) => kept,
            // Another process brought it.
            None => match self.found(digest).await {
                Some(kept) => kept,
                None => return,
            },
        };
        kept.used = now;
        let age = now.duration_since(kept.marked).unwrap_or_default();
        if age > MARK_EVERY {
            kept.marked = now;
            let path = self.disk.file(digest);
            let marked = blocking(move || {
                File::open(&path)
                    .and_then(|file| file.set_modified(now))
                    .map_err(|error| read_failed(error, "mark", &path))
            });
            // What is not written down is only forgotten by the next start.
            marked.await.ok();
        }
        let mut index = self.index();
        index.put(*digest, kept);
        self.metrics.holds(index.bytes);
    }

    /// What its file says of a blob.
    async fn found(&self, digest: &Digest) -> Option<Kept> {
        let file = tokio::fs::metadata(self.disk.file(digest)).await.ok()?;
        let marked = file.modified().ok()?;
        Some(Kept {
            size: file.len(),
            used: marked,
            marked,
        })
    }

    /// The blob is not here any more.
    pub(super) fn forget(&self, digest: &Digest) {
        let mut index = self.index();
        index.take(digest);
        self.metrics.holds(index.bytes);
    }

    /// Room for a blob that is about to come; `None` where there is none. A
    /// part that was left of it counts no more.
    pub(super) async fn reserve(self: &Arc<Self>, digest: &Digest, size: u64) -> Option<Room> {
        self.index().take_part(digest);
        self.make_room(size).await.then(|| Room {
            shelf: Arc::clone(self),
            size,
        })
    }

    /// Counts a blob that is here, and makes others go where that is too much.
    pub(super) async fn admit(&self, digest: Digest, size: u64) {
        self.add(digest, size);
        let _held = self.hold(digest);
        self.make_room(0).await;
    }

    fn add(&self, digest: Digest, size: u64) {
        let now = SystemTime::now();
        let mut index = self.index();
        let kept = Kept {
            size,
            used: now,
            marked: now,
        };
        index.put(digest, kept);
        self.metrics.holds(index.bytes);
    }

    /// Lets go of what is beyond the size, as far as nobody holds it.
    pub(super) async fn trim(&self) {
        if !self.make_room(0).await {
            tracing::debug!("more is held in the disk tier than it is to have");
        }
    }

    /// Makes room and, where there is some, takes it.
    async fn make_room(&self, room: u64) -> bool {
        if room > self.max_bytes {
            return false;
        }
        let stale = |index: &Index| index.looked.is_none_or(|at| at.elapsed() > LOOK_EVERY);
        let look = {
            let index = self.index();
            stale(&index) && index.bytes + room > self.max_bytes / 2
        };
        if look {
            self.look().await;
        }
        for _ in 0..ATTEMPTS {
            let victims = {
                let mut index = self.index();
                let Some(victims) = index.make_room(room, self.max_bytes) else {
                    return false;
                };
                // Taken at once: others make room at the same time.
                index.bytes += room;
                self.metrics.holds(index.bytes);
                victims
            };
            if self.clear(victims).await {
                return true;
            }
            self.index().bytes -= room;
        }
        false
    }

    /// Removes the files; `false` where one had to stay.
    async fn clear(&self, victims: Victims) -> bool {
        for digest in victims.parts {
            if let Ok(part) = self.disk.open_ingest(&part_name(&digest)).await {
                Box::new(part).abort().await.ok();
            }
        }
        let victims = victims.blobs;
        if victims.is_empty() {
            return true;
        }
        let disk = self.disk.clone();
        let cleared = blocking(move || {
            let remove = |(digest, kept): (Digest, Kept)| {
                let removed = remove_unpinned(&disk.file(&digest));
                (digest, kept, removed)
            };
            Ok(victims.into_iter().map(remove).collect::<Vec<_>>())
        });
        let Ok(cleared) = cleared.await else {
            return false;
        };
        let mut all = true;
        let mut index = self.index();
        for (digest, kept, removed) in cleared {
            match removed {
                Ok(true) => self.metrics.evicted(1),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(blob = %digest, %error, "a blob stays in the disk tier");
                    all = false;
                    // As if used now, so that others are tried first.
                    let used = SystemTime::now();
                    index.put(digest, Kept { used, ..kept });
                }
            }
        }
        self.metrics.holds(index.bytes);
        all
    }

    /// Learns what is there, and when it was used by anybody.
    async fn look(&self) {
        let folder = self.disk.file(&Digest::of(b"")).with_file_name("");
        let found =
            blocking(move || files(&folder).map_err(|error| read_failed(error, "list", &folder)));
        let found = match found.await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the disk tier can't be listed");
                Vec::new()
            }
        };
        let mut index = self.index();
        let before = std::mem::take(&mut index.blobs);
        index.by_use.clear();
        index.bytes -= before.values().map(|kept| kept.size).sum::<u64>();
        for (digest, size, marked) in found {
            let used = before.get(&digest).map_or(marked, |kept| kept.used);
            let kept = Kept {
                size,
                used: used.max(marked),
                marked,
            };
            index.put(digest, kept);
        }
        index.looked = Some(Instant::now());
        self.metrics.holds(index.bytes);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room that was made; it is free again unless a blob takes it.
pub(super) struct Room {
    shelf: Arc<Shelf>,
    size: u64,
}

impl Room {
    /// The blob is here.
    pub(super) fn admit(mut self, digest: Digest) {
        let size = std::mem::take(&mut self.size);
        self.shelf.index().bytes -= size;
        self.shelf.add(digest, size);
    }

    /// That much of the blob came, and waits to be gone on with.
    pub(super) fn leave(mut self, digest: Digest, came: u64) {
        let size = std::mem::take(&mut self.size);
        let mut index = self.shelf.index();
        index.bytes = index.bytes - size + came;
        index.parts.push_back((digest, came));
        self.shelf.metrics.holds(index.bytes);
    }
}

/// The ingest of a blob that is fetched.
pub(super) fn part_name(digest: &Digest) -> String {
    format!("tier\0{digest}")
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut index = self.shelf.index();
        index.bytes -= self.size;
        self.shelf.metrics.holds(index.bytes);
    }
}

/// A blob that does not go while this lives.
pub(super) struct Held {
    digest: Digest,
    index: Arc<Mutex<Index>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut index = lock(&self.index);
        if let Some(times) = index.held.get_mut(&self.digest) {
            *times -= 1;
            if *times == 0 {
                index.held.remove(&self.digest);
            }
        }
    }
}

/// A blob that stays in a [`Tier`](super::Tier) while this lives.
#[must_use]
pub struct Pin {
    _held: Held,
    /// Tells other processes, and goes with this one however it ends.
    _lock: Option<File>,
}
