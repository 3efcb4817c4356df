//! Where a hub keeps its log and its layers.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::registry::Registry;

use super::args::Storage;
use crate::blobs::{
    BlobStore, DiskStore, MeteredBlobs, ObjectBlobs, ObjectOptions, StoreMetrics, StoreOrigin,
    Tier, TierMetrics, TierOptions, TieredBlobs,
};
use crate::catalog::{
    self, Catalog, PostgresCatalog, PostgresOptions, SqliteCatalog, network_file_system,
};
use crate::cli::misuse;

/// Both, measured.
pub(super) struct Backends {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) blobs: Arc<dyn BlobStore>,
    /// What they are called where somebody reads it; no secret is in it.
    pub(super) catalog_at: String,
    pub(super) blobs_at: String,
    pub(super) bucket: Option<ObjectBlobs>,
    pub(super) disk: Option<DiskStore>,
}

impl Backends {
    /// Opens what is here, and names what is elsewhere: a database or a bucket
    /// that can't be reached yet is no reason not to start.
    pub(super) async fn open(
        storage: &Storage<'_>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let (catalog, catalog_at) = catalog(storage, registry).await?;
        let (blobs, bucket, disk, blobs_at) = blobs(storage, registry).await?;
        let catalog_metrics = catalog::Metrics::register(registry);
        let blob_metrics = StoreMetrics::register(registry);
        Ok(Self {
            catalog: Arc::new(catalog::Metered::new(catalog, catalog_metrics)),
            blobs: Arc::new(MeteredBlobs::new(blobs, blob_metrics)),
            catalog_at,
            blobs_at,
            bucket,
            disk,
        })
    }

    /// Ends what would else be left behind.
    pub(super) async fn close(&self) {
        if let Some(bucket) = &self.bucket {
            bucket.close().await;
        }
        self.catalog.close().await;
    }
}

async fn catalog(
    storage: &Storage<'_>,
    registry: &mut Registry,
) -> anyhow::Result<(Arc<dyn Catalog>, String)> {
    match storage.catalog {
        Some(url) => {
            let catalog = database(storage, url)?;
            catalog.register(registry);
            let at = catalog.name();
            Ok((Arc::new(catalog), at))
        }
        None => {
            let dir = directory(storage.data_dir).await?;
            let catalog = SqliteCatalog::open(dir).await?;
            if let Some(refusal) = catalog.refusal() {
                return Err(refusal.into());
            }
            let at = SqliteCatalog::path(dir).display().to_string();
            Ok((Arc::new(catalog), at))
        }
    }
}

/// The database, which is asked nothing yet.
pub(super) fn database(storage: &Storage<'_>, url: &str) -> anyhow::Result<PostgresCatalog> {
    let options = PostgresOptions {
        connections: storage.catalog_connections,
        ..PostgresOptions::default()
    };
    let catalog = PostgresCatalog::connect(url, options);
    catalog.map_err(|error| misuse(format!("--catalog: {error}")))
}

/// The bucket, which is asked nothing yet.
pub(super) fn bucket(storage: &Storage<'_>, url: &str) -> anyhow::Result<ObjectBlobs> {
    let options = ObjectOptions {
        upload_buffers: storage.upload_buffers,
        ..ObjectOptions::default()
    };
    let bucket = ObjectBlobs::open(url, options);
    bucket.map_err(|error| misuse(format!("--blobs: {error}")))
}

type Blobs = (
    Arc<dyn BlobStore>,
    Option<ObjectBlobs>,
    Option<DiskStore>,
    String,
);

async fn blobs(storage: &Storage<'_>, registry: &mut Registry) -> anyhow::Result<Blobs> {
    let Some(url) = storage.blobs else {
        let dir = directory(storage.data_dir).await?;
        let disk = DiskStore::open(dir).await?;
        let at = dir.display().to_string();
        return Ok((Arc::new(disk.clone()), None, Some(disk), at));
    };
    let bucket = bucket(storage, url)?;
    let at = bucket.place().to_owned();
    let store: Arc<dyn BlobStore> = Arc::new(bucket.clone());
    if storage.disk_cache == 0 {
        return Ok((store, Some(bucket), None, at));
    }
    let disk = DiskStore::open(directory(storage.data_dir).await?).await?;
    let options = TierOptions {
        max_bytes: storage.disk_cache,
        ..TierOptions::default()
    };
    let origin = Arc::new(StoreOrigin(Arc::clone(&store)));
    let tier = Tier::open(
        disk.clone(),
        origin,
        options,
        TierMetrics::register(registry),
    )
    .await;
    let tiered = Arc::new(TieredBlobs::new(tier, store));
    Ok((tiered, Some(bucket), Some(disk), at))
}

/// Makes the data directory, and says so where it is on a network.
async fn directory(dir: &Path) -> anyhow::Result<&Path> {
    tokio::fs::create_dir_all(dir)
        .await
        .with_context(|| format!("--data-dir {}", dir.display()))?;
    if let Ok(Some(kind)) = network_file_system(dir) {
        tracing::warn!(dir = %dir.display(), kind, "the data directory is on a network file system: the catalog can be damaged when several hosts use it");
    }
    Ok(dir)
}
