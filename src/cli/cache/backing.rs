//! Where a cache is that a command works on by itself: a data directory, or the
//! database and the bucket of hubs.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::Store;
use crate::blobs::{BlobStore, DiskStore, ObjectBlobs, ObjectOptions};
use crate::catalog::Catalog;
use crate::cli::stored::CatalogArg;

/// Which cache.
#[derive(Debug, Args)]
pub(super) struct Backing {
    #[command(flatten)]
    pub(super) store: Store,

    #[command(flatten)]
    elsewhere: Elsewhere,
}

/// What of it is not in the data directory.
#[derive(Debug, Args)]
pub(super) struct Elsewhere {
    #[command(flatten)]
    pub(super) catalog: CatalogArg,

    /// The layers, where they are in a bucket: as for `layerd serve`.
    #[arg(long, env = "LAYERD_BLOBS", value_name = "URL", hide_env_values = true)]
    blobs: Option<String>,
}

/// Both, open.
pub(super) struct Backed {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) disk: Option<DiskStore>,
    pub(super) bucket: Option<ObjectBlobs>,
}

impl Backing {
    /// Opens what is there; nothing is created.
    pub(super) async fn open(&self) -> anyhow::Result<Backed> {
        let dir = &self.store.data_dir;
        let catalog = self.elsewhere.catalog.or_in(dir).await?;
        self.elsewhere.backed(catalog, DiskStore::at(dir))
    }
}

impl Elsewhere {
    /// Whether the layers are.
    pub(super) fn has_blobs(&self) -> bool {
        self.blobs.is_some()
    }

    /// A catalog, with the layers of the bucket that is named, or of `disk`.
    pub(super) fn backed(
        &self,
        catalog: Arc<dyn Catalog>,
        disk: DiskStore,
    ) -> anyhow::Result<Backed> {
        let open = |url: &String| ObjectBlobs::open(url, ObjectOptions::default());
        let bucket = self.blobs.as_ref().map(open).transpose();
        let bucket = bucket.context("--blobs")?;
        let blobs: Arc<dyn BlobStore> = match &bucket {
            Some(bucket) => Arc::new(bucket.clone()),
            None => Arc::new(disk.clone()),
        };
        Ok(Backed {
            catalog,
            blobs,
            disk: bucket.is_none().then_some(disk),
            bucket,
        })
    }
}

impl Backed {
    /// Ends what would else be left behind.
    pub(super) async fn close(&self) {
        if let Some(bucket) = &self.bucket {
            bucket.close().await;
        }
        self.catalog.close().await;
    }
}
