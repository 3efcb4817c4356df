//! How much is stored, followed at a bounded cost.
//!
//! Several processes share a store, so that only a look at all of its files
//! tells. A store may have a hundred thousand of them: they are looked at when
//! an export of this process was published, and else every few minutes; never
//! because somebody asks, and never more than a small part of the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use super::LocalCache;
use crate::blobs::{BlobError, BlobStore};

/// How long nothing is looked at, at least.
const REST: Duration = Duration::from_secs(1);
/// The same, in lengths of the last look.
const REST_SHARE: u32 = 50;
/// When it is looked again though nothing is known to have changed.
const IDLE: Duration = Duration::from_secs(300);

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl Usage {
    /// What `store` holds.
    pub async fn of(store: &dyn BlobStore) -> Result<Self, BlobError> {
        let blobs = store.list().await?;
        let add = |sum: Self, (_, size): (_, u64)| async move {
            Ok(Self {
                blobs: sum.blobs + 1,
                bytes: sum.bytes.saturating_add(size),
            })
        };
        blobs.try_fold(Self::default(), add).await
    }
}

/// The size of the store, as it was when it was last looked at.
#[derive(Debug, Default)]
pub struct StoreSize {
    blobs: Gauge,
    bytes: Gauge,
}

impl StoreSize {
    /// Unknown yet, and 0 until [`follow`](Self::follow) has looked; in
    /// `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let size = Self::default();
        registry.register(
            "layerd_store_blobs",
            "Blobs in the store",
            size.blobs.clone(),
        );
        registry.register(
            "layerd_store_bytes",
            "Bytes of the blobs in the store",
            size.bytes.clone(),
        );
        size
    }

    /// Somebody else looks from now on.
    pub fn unknown(&self) {
        self.blobs.set(0);
        self.bytes.set(0);
    }

    /// Follows the size of `cache`, which `grown` says to have changed, for
    /// ever.
    pub async fn follow(&self, cache: Arc<LocalCache>, grown: Arc<Notify>) {
        loop {
            let began = Instant::now();
            match cache.usage().await {
                Ok(usage) => {
                    self.blobs
                        .set(i64::try_from(usage.blobs).unwrap_or(i64::MAX));
                    self.bytes
                        .set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
                }
                Err(error) => tracing::warn!(%error, "the size of the store is not known"),
            }
            tokio::time::sleep(REST.max(began.elapsed() * REST_SHARE)).await;
            // Whether it grew or the time is over, it is looked at again.
            let _ = tokio::time::timeout(IDLE, grown.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;

    use super::*;

    #[tokio::test]
    async fn every_blob_counts_with_its_bytes_and_an_absent_store_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let cache = LocalCache::new(dir.path());
        assert_eq!(cache.usage().await.unwrap(), Usage::default());
        let folder = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&folder).unwrap();
        for content in ["a", "four"] {
            let name = Digest::of(content.as_bytes()).to_string();
            let name = name.trim_start_matches("sha256:");
            std::fs::write(folder.join(name), content).unwrap();
        }
        let usage = cache.usage().await.unwrap();
        assert_eq!((usage.blobs, usage.bytes), (2, 5));
    }
}
