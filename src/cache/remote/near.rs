//! The disk of this host in front of the hubs: what it has is never fetched
//! again, whatever hub had it.

use std::path::Path;
use std::sync::Arc;

use super::routes::{Hubs, Routes};
use crate::blobs::{DiskStore, Tier, TierMetrics, TierOptions};

/// The folder of the blobs in the data directory: an embedded store that was
/// there before is left alone.
const FOLDER: &str = "near";

/// The near tier of a process; clones are the same.
#[derive(Clone)]
pub struct Near {
    pub(super) tier: Tier,
    pub(super) routes: Arc<Routes>,
}

impl Near {
    /// Keeps blobs in `data_dir`. A directory that can't be used costs speed
    /// alone: reads and uploads go past it.
    pub async fn open(data_dir: &Path, options: TierOptions, metrics: TierMetrics) -> Self {
        let folder = data_dir.join(FOLDER);
        let disk = DiskStore::open(&folder).await.unwrap_or_else(|error| {
            tracing::warn!(dir = %folder.display(), %error, "nothing is kept on this host: the directory can't be used");
            DiskStore::at(&folder)
        });
        let routes = Arc::new(Routes::default());
        let origin = Arc::new(Hubs(Arc::clone(&routes)));
        Self {
            tier: Tier::open(disk, origin, options, metrics).await,
            routes,
        }
    }

    /// Has it no larger than it is to be, once all that holds blobs of it does.
    pub async fn trim(&self) {
        self.tier.trim().await;
    }
}
