//! Which cache a command works on: a data directory, a database and a bucket,
//! or a hub.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::blobs::{BlobStore, DiskStore, ObjectBlobs, ObjectOptions, TierMetrics, TierOptions};
use crate::cache::remote::{self, Near, RemoteCache};
use crate::catalog::{Catalog, PostgresCatalog, PostgresOptions, SqliteCatalog};
use crate::cli::hub_args::HubArgs;

/// How much of a hub's layers may wait on this disk on their way.
const NEAR: u64 = 2 << 30;
/// How long a hub may be away before an upload is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a cache is.
#[derive(Debug, Args)]
pub(super) struct Backend {
    #[command(flatten)]
    hub: HubArgs,

    /// The data directory of `layerd sidecar` or `layerd serve`, as far as
    /// --catalog and --blobs say nothing else. It may be in use.
    #[arg(
        long,
        env = "LAYERD_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/layerd"
    )]
    data_dir: PathBuf,

    /// The log of exports, where it is in Postgres: as for `layerd serve`.
    #[arg(
        long,
        env = "LAYERD_CATALOG",
        value_name = "URL",
        hide_env_values = true
    )]
    catalog: Option<String>,

    /// The layers, where they are in a bucket: as for `layerd serve`.
    #[arg(long, env = "LAYERD_BLOBS", value_name = "URL", hide_env_values = true)]
    blobs: Option<String>,
}

/// A cache that was opened here.
pub(super) struct OpenStore {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) blobs: Arc<dyn BlobStore>,
    bucket: Option<ObjectBlobs>,
    /// What it is called.
    pub(super) at: String,
}

impl OpenStore {
    /// Ends what would else be left behind.
    pub(super) async fn close(self) {
        if let Some(bucket) = &self.bucket {
            bucket.close().await;
        }
        self.catalog.close().await;
    }
}

/// The cache of a hub.
pub(super) struct HubCache {
    pub(super) cache: Arc<RemoteCache>,
    /// What it is called.
    pub(super) at: String,
    _near: TempDir,
}

impl Backend {
    /// The hub, if it is one.
    pub(super) async fn hub(&self) -> anyhow::Result<Option<HubCache>> {
        if self.hub.addresses().is_empty() {
            return Ok(None);
        }
        let folder = tempfile::Builder::new()
            .prefix("layerd-")
            .tempdir()
            .context("making a folder for temporary files")?;
        // Of metrics that nobody asks for.
        let mut registry = Registry::default();
        let options = TierOptions {
            max_bytes: NEAR,
            patience: PATIENCE,
            ..TierOptions::default()
        };
        let tier = TierMetrics::register(&mut registry);
        let near = Near::open(folder.path(), options, tier).await;
        let calls = remote::Metrics::register(&mut registry);
        let (hub, token) = self.hub.engine(calls)?;
        let addresses: Vec<String> = self
            .hub
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        Ok(Some(HubCache {
            cache: Arc::new(RemoteCache::new(hub, token, near, PATIENCE)),
            at: addresses.join(", "),
            _near: folder,
        }))
    }

    /// The store that is there, to be read.
    pub(super) async fn store(&self) -> anyhow::Result<OpenStore> {
        let needs_catalog = self.catalog.is_none();
        let (dir, file) = (&self.data_dir, SqliteCatalog::path(&self.data_dir));
        if needs_catalog && !file.is_file() {
            bail!(
                "{} is not a data directory of layerd, or nothing has used it yet: name another with --data-dir, or a hub with --hub",
                dir.display()
            );
        }
        self.open(DiskStore::at(dir)).await
    }

    /// The store, to be written to, and made where it is not there.
    pub(super) async fn store_for_writing(&self) -> anyhow::Result<OpenStore> {
        let is_elsewhere = self.catalog.is_some() && self.blobs.is_some();
        let disk = match is_elsewhere {
            true => DiskStore::at(&self.data_dir),
            false => DiskStore::open(&self.data_dir).await?,
        };
        let store = self.open(disk).await?;
        match store.catalog.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(store),
        }
    }

    async fn open(&self, disk: DiskStore) -> anyhow::Result<OpenStore> {
        let (catalog, catalog_at) = catalog(self.catalog.as_deref(), &self.data_dir).await?;
        let Some(url) = &self.blobs else {
            let at = self.data_dir.display().to_string();
            return Ok(OpenStore {
                catalog,
                blobs: Arc::new(disk),
                bucket: None,
                at: match &self.catalog {
                    None => at,
                    Some(_) => format!("{catalog_at} and {at}"),
                },
            });
        };
        let bucket = ObjectBlobs::open(url, ObjectOptions::default()).context("--blobs")?;
        Ok(OpenStore {
            catalog,
            blobs: Arc::new(bucket.clone()),
            at: format!("{catalog_at} and {}", bucket.place()),
            bucket: Some(bucket),
        })
    }
}

async fn catalog(url: Option<&str>, dir: &Path) -> anyhow::Result<(Arc<dyn Catalog>, String)> {
    match url {
        Some(url) => {
            let catalog = PostgresCatalog::connect(url, PostgresOptions::default());
            let catalog = catalog.context("--catalog")?;
            let at = catalog.name();
            Ok((Arc::new(catalog), at))
        }
        None => {
            let catalog = SqliteCatalog::open(dir).await;
            let catalog = catalog
                .with_context(|| format!("cannot open the data directory {}", dir.display()))?;
            Ok((Arc::new(catalog), dir.display().to_string()))
        }
    }
}
