//! Where a cache is that a command changes: a data directory, or the database
//! and the bucket of hubs.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::Store;
use crate::blobs::{BlobStore, DiskStore, ObjectBlobs, ObjectOptions};
use crate::catalog::{Catalog, PostgresCatalog, PostgresOptions};

/// Which cache.
#[derive(Debug, Args)]
pub(super) struct Backing {
    #[command(flatten)]
    pub(super) store: Store,

    /// The log of exports in Postgres, as of `layerd serve`.
    #[arg(
        long,
        env = "LAYERD_CATALOG",
        value_name = "URL",
        hide_env_values = true
    )]
    catalog: Option<String>,

    /// The layers in a bucket, as of `layerd serve`.
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
        let catalog: Arc<dyn Catalog> = match &self.catalog {
            Some(url) => {
                let catalog = PostgresCatalog::connect(url, PostgresOptions::default());
                Arc::new(catalog.context("--catalog")?)
            }
            None => Arc::new(self.store.catalog().await?),
        };
        Ok(match &self.blobs {
            Some(url) => {
                let bucket = ObjectBlobs::open(url, ObjectOptions::default()).context("--blobs")?;
                Backed {
                    catalog,
                    blobs: Arc::new(bucket.clone()),
                    disk: None,
                    bucket: Some(bucket),
                }
            }
            None => {
                let disk = DiskStore::at(&self.store.data_dir);
                Backed {
                    catalog,
                    blobs: Arc::new(disk.clone()),
                    disk: Some(disk),
                    bucket: None,
                }
            }
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
