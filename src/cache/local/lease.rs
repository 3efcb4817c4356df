//! The leases of this process: one for all that is named within a minute.
//!
//! Whoever holds a lease may read what was in the log when it was taken. Taking
//! one is a write that waits for the disk, so that look-ups share one while it
//! is young; an old one is not shared any more, and ends with the last of its
//! holders. A heartbeat keeps it alive, and where this process is killed it
//! ends by itself.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::{Catalog, CatalogError, LeaseId};

/// How long a lease lasts without a heartbeat.
const TTL: Duration = Duration::from_secs(180);
/// How often it is renewed.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a lease is given to new holders.
const YOUNG: Duration = Duration::from_secs(60);
/// How long taking one may hold a look-up up.
const LIMIT: Duration = Duration::from_millis(500);

/// The leases of one process.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<Option<(Instant, Weak<Held>)>>);

/// A lease until the last holder drops it.
pub(super) struct Held {
    id: LeaseId,
    catalog: Arc<dyn Catalog>,
    /// Over where the lease has ended before its holders.
    heartbeat: AbortOnDropHandle<()>,
}

impl Leases {
    /// A lease on what is in the log now, or `None` where the catalog takes no
    /// writes: then nobody takes anything out of it either, or does so without
    /// knowing of this process.
    pub(super) async fn hold(&self, catalog: &Arc<dyn Catalog>) -> Option<Arc<Held>> {
        let taken = tokio::time::timeout(LIMIT, async {
            let mut current = self.0.lock().await;
            if let Some((taken, held)) = current.as_ref()
                && taken.elapsed() < YOUNG
                && let Some(held) = held.upgrade()
                && !held.heartbeat.is_finished()
            {
                return Ok(held);
            }
            let held = Arc::new(Held::take(Arc::clone(catalog)).await?);
            *current = Some((Instant::now(), Arc::downgrade(&held)));
            Ok::<_, CatalogError>(held)
        });
        match taken.await {
            Ok(Ok(held)) => Some(held),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no lease could be taken");
                None
            }
            Err(_) => {
                tracing::debug!("the catalog gave no lease in time");
                None
            }
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.id).finish()
    }
}

impl Held {
    async fn take(catalog: Arc<dyn Catalog>) -> Result<Self, CatalogError> {
        let id = catalog.take_lease(TTL).await?;
        let renewing = Arc::clone(&catalog);
        let heartbeat = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(HEARTBEAT);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                match renewing.renew_lease(id, TTL).await {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::warn!("a lease has ended before its holders");
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "a lease could not be renewed"),
                }
            }
        });
        Ok(Self {
            id,
            catalog,
            heartbeat: AbortOnDropHandle::new(heartbeat),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the lease after it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (catalog, id) = (Arc::clone(&self.catalog), self.id);
            runtime.spawn(async move {
                if let Err(error) = catalog.end_lease(id).await {
                    tracing::debug!(%error, "a lease is left to end by itself");
                }
            });
        }
    }
}
