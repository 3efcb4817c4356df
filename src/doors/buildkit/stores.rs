//! The content stores that sessions can address now, by id.
//!
//! An export's store ends with its build. An import's lives on: builds that run
//! at once on one daemon share vertices, and a shared vertex keeps reading from
//! the build that came first, so that a store which died with its own build
//! would fail another. It ends a minute after the last build that overlapped
//! its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::content::{PREFIX, Store};

/// How long a store outlives the last build that overlapped its own.
const GRACE: Duration = Duration::from_secs(60);
/// Retired stores beyond this many end early, the oldest first: each may hold
/// two documents of 1 MiB.
const MAX_RETIRED: usize = 256;

/// Every store that is open.
#[derive(Default)]
pub struct Stores(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    open: HashMap<String, Arc<Store>>,
    running: Vec<Weak<Running>>,
    retired: VecDeque<Retired>,
}

/// A build, as long as it runs; what it shares with others lives as long.
pub struct Running;

struct Retired {
    id: String,
    overlapping: Vec<Weak<Running>>,
    /// When it was last seen that a build overlapping it runs.
    needed: Instant,
}

impl Stores {
    /// Says that a build runs, until what this gives is dropped.
    pub fn begin(&self) -> Arc<Running> {
        let running = Arc::new(Running);
        let mut inner = self.inner();
        inner.running.retain(|build| build.strong_count() > 0);
        inner.running.push(Arc::downgrade(&running));
        running
    }

    /// Opens a store under an id that nobody can guess.
    pub fn open(&self, store: Store) -> String {
        let id = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 16]>()));
        self.inner().open.insert(id.clone(), Arc::new(store));
        id
    }

    /// The store of that id.
    pub fn get(&self, id: &str) -> Option<Arc<Store>> {
        self.inner().open.get(id).cloned()
    }

    /// Ends a store now; calls that have it go on.
    pub fn close(&self, id: &str) {
        self.inner().open.remove(id);
    }

    /// Ends a store once no build that overlapped its own can ask for it.
    pub fn retire(&self, id: String, now: Instant) {
        let mut inner = self.inner();
        let overlapping = inner.running.clone();
        inner.retired.push_back(Retired {
            id,
            overlapping,
            needed: now,
        });
        inner.sweep(now);
    }

    /// Ends what no build can ask for any more; to be called now and then.
    pub fn sweep(&self, now: Instant) {
        self.inner().sweep(now);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sweep(&mut self, now: Instant) {
        let mut surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        let open = &mut self.open;
        self.retired.retain_mut(|retired| {
            retired.overlapping.retain(|build| build.strong_count() > 0);
            if !retired.overlapping.is_empty() {
                retired.needed = now;
            }
            let keep = surplus == 0 && now.saturating_duration_since(retired.needed) < GRACE;
            if !keep {
                surplus = surplus.saturating_sub(1);
                open.remove(&retired.id);
            }
            keep
        });
    }
}
