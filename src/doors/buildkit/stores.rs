//! The content stores that sessions can address now, by id.
//!
//! An export's store ends with its build. An import's lives on: builds that run
//! at once on one daemon share vertices, and a shared vertex keeps reading from
//! the build that came first, so that a store which died with its own build
//! would fail another. It ends a minute after the last build that overlapped
//! its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::content::Store;
use super::names::Names;

/// How long a store outlives the last build that overlapped its own.
const GRACE: Duration = Duration::from_secs(60);
/// Retired stores beyond this many end early, the oldest first: each may hold
/// two documents of 1 MiB.
const MAX_RETIRED: usize = 256;

/// Every store that is open.
#[derive(Default)]
pub struct Stores {
    /// The ids that stores have or had.
    pub names: Names,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: HashMap<String, Arc<Store>>,
    running: Vec<CancellationToken>,
    retired: VecDeque<Retired>,
    /// How many imports are among `open`.
    leases: Gauge,
}

/// A build, as long as it runs; what it shares with others lives as long.
pub struct Running {
    _ended: DropGuard,
}

struct Retired {
    id: String,
    overlapping: Vec<CancellationToken>,
    /// When it was last seen that a build overlapping it runs.
    needed: Instant,
}

impl Stores {
    /// None yet; `leases` will say how many imports there are.
    pub fn new(leases: Gauge) -> Self {
        Self {
            names: Names::default(),
            inner: Mutex::new(Inner {
                leases,
                ..Inner::default()
            }),
        }
    }

    /// Says that a build runs, until what this gives is dropped.
    pub fn begin(&self) -> Running {
        let ended = CancellationToken::new();
        let mut inner = self.inner();
        inner.running.retain(|build| !build.is_cancelled());
        inner.running.push(ended.clone());
        Running {
            _ended: ended.drop_guard(),
        }
    }

    /// Opens a store under an id that nobody can guess.
    pub fn open(&self, store: Store) -> String {
        let id = self.names.give();
        let mut inner = self.inner();
        inner.open.insert(id.clone(), Arc::new(store));
        inner.count();
        drop(inner);
        id
    }

    /// The store of that id.
    pub fn get(&self, id: &str) -> Option<Arc<Store>> {
        self.inner().open.get(id).cloned()
    }

    /// Ends a store now; calls that have it go on.
    pub fn close(&self, id: &str) {
        let mut inner = self.inner();
        let ended = inner.open.remove(id);
        inner.count();
        drop(inner);
        // Only now: the last of an export ends its build, and that may retire
        // an import here.
        drop(ended);
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
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sweep(&mut self, now: Instant) {
        let mut surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        let open = &mut self.open;
        self.retired.retain_mut(|retired| {
            retired.overlapping.retain(|build| !build.is_cancelled());
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
        self.count();
    }

    fn count(&self) {
        let imports = self
            .open
            .values()
            .filter(|store| matches!(***store, Store::Import(_) | Store::Pull(_)));
        self.leases.set(imports.count() as i64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::{Cache, LocalCache};
    use crate::doors::buildkit::build::Builds;
    use crate::doors::buildkit::content::ExportStore;
    use crate::doors::buildkit::metrics::Metrics;

    fn store() -> Store {
        let dir = tempfile::tempdir().unwrap();
        let cache: Arc<dyn Cache> = Arc::new(LocalCache::new(dir.path()));
        let place = crate::place::Place {
            project: "p".parse().unwrap(),
            git_ref: "main".parse().unwrap(),
            scope: "s".parse().unwrap(),
        };
        let build = Builds::default().join("build");
        let tally = Metrics::default().export();
        Store::Export(ExportStore::new(
            place,
            "host".to_owned(),
            cache,
            build,
            crate::digest::Digest::of(b"vertex"),
            tally,
            crate::cache::Lease::default(),
        ))
    }

    #[test]
    fn a_retired_store_outlives_every_build_that_overlapped_its_own() {
        let stores = Stores::default();
        let (own, other) = (stores.begin(), stores.begin());
        let id = stores.open(store());
        let start = Instant::now();
        drop(own);
        stores.retire(id.clone(), start);
        let later = stores.begin();
        stores.sweep(start + 10 * GRACE);
        assert!(
            stores.get(&id).is_some(),
            "the other build may still read it"
        );
        drop(other);
        stores.sweep(start + 11 * GRACE);
        assert!(
            stores.get(&id).is_none(),
            "a build that came later can't know it"
        );
        drop(later);
    }

    #[test]
    fn retired_stores_are_bounded() {
        let stores = Stores::default();
        let _running = stores.begin();
        let now = Instant::now();
        let ids: Vec<_> = (0..MAX_RETIRED + 5).map(|_| stores.open(store())).collect();
        ids.iter().for_each(|id| stores.retire(id.clone(), now));
        let open = ids.iter().filter(|id| stores.get(id).is_some()).count();
        assert_eq!(open, MAX_RETIRED);
        assert!(stores.get(&ids[0]).is_none(), "the oldest goes first");
    }
}
