//! What goes on in a hub beside its calls.
//!
//! Some of it one hub does for all that share a catalog, and another one as
//! soon as that has gone: listing the store to know its size, which costs
//! requests where it is a bucket, removing what cut off uploads have left
//! there, collecting what is kept no longer, and dropping what is old of the
//! audit log.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use crate::blobs::{DiskStore, ObjectBlobs};
use crate::cache::collecting::{self, Collecting};
use crate::cache::{LocalCache, StoreSize};
use crate::catalog::Catalog;

/// What the right to do it is called.
const TASK: &str = "housekeeping";
/// How often a hub that has not the right asks for it, and leases are counted.
const PAUSE: Duration = Duration::from_secs(15);
/// How often a bucket, and a disk, is swept.
const SWEEP: Duration = Duration::from_secs(3600);

/// What house is kept of.
pub(super) struct House {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) cache: Arc<LocalCache>,
    pub(super) bucket: Option<ObjectBlobs>,
    pub(super) disk: Option<DiskStore>,
    pub(super) size: StoreSize,
    pub(super) grown: Arc<Notify>,
    pub(super) leases: Gauge,
    pub(super) collecting: Collecting,
    pub(super) projects: collecting::Metrics,
    /// How long the audit log is kept.
    pub(super) audit_max_age: Duration,
}

impl House {
    /// Keeps it, for ever.
    pub(super) async fn keep(self) {
        tokio::join!(
            self.take_turns(),
            self.count_leases(),
            self.sweep_disk(),
            self.collecting.note_uses()
        );
    }

    async fn count_leases(&self) {
        loop {
            let leases = self.cache.leases_handed_out();
            self.leases.set(i64::try_from(leases).unwrap_or(i64::MAX));
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn take_turns(&self) {
        loop {
            match self.catalog.try_own(TASK).await {
                Ok(Some(ownership)) => {
                    tracing::info!("this hub keeps house from now on");
                    tokio::select! {
                        () = self.size.follow(self.cache.clone(), self.grown.clone()) => {}
                        () = self.sweep() => {}
                        () = self.collecting.collect() => {}
                        () = self.trim() => {}
                        () = ownership.lost() => {
                            tracing::warn!("another hub may keep house from now on");
                        }
                    }
                    self.size.unknown();
                    self.projects.unknown();
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "whose turn it is to keep house is not known");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The disk of this hub, which no other sweeps.
    async fn sweep_disk(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            if let Some(disk) = &self.disk
                && let Err(error) = disk.sweep().await
            {
                tracing::warn!(%error, "the data directory could not be swept");
            }
        }
    }

    /// Drops what is too old of the audit log.
    async fn trim(&self) {
        loop {
            let gone = match Timestamp::now().checked_sub(self.audit_max_age) {
                Ok(before) => self.catalog.trim_audit(before).await,
                Err(_) => Ok(0),
            };
            match gone {
                // There may be more.
                Ok(1..) => continue,
                Ok(0) => {}
                Err(error) => tracing::warn!(%error, "the audit log could not be trimmed"),
            }
            tokio::time::sleep(SWEEP).await;
        }
    }

    async fn sweep(&self) {
        loop {
            if let Some(bucket) = &self.bucket
                && let Err(error) = bucket.sweep().await
            {
                tracing::warn!(%error, "the bucket could not be swept");
            }
            tokio::time::sleep(SWEEP).await;
        }
    }
}
