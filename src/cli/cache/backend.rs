//! Which cache a command works on: a data directory, a database and a bucket,
//! or a hub.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::backing::{Backed, Elsewhere};
use crate::blobs::{DiskStore, TierMetrics, TierOptions};
use crate::cache::remote::{self, Near, RemoteCache};
use crate::catalog::{Catalog, PostgresCatalog, SqliteCatalog};
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

    #[command(flatten)]
    elsewhere: Elsewhere,
}

/// A cache that was opened here.
pub(super) struct OpenStore {
    pub(super) backed: Backed,
    /// What it is called.
    pub(super) at: String,
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
        let database = self.elsewhere.catalog.database()?;
        if database.is_none() && !SqliteCatalog::path(&self.data_dir).is_file() {
            bail!(
                "{} is not a data directory of layerd, or nothing has used it yet: name another with --data-dir, or a hub with --hub",
                self.data_dir.display()
            );
        }
        self.open(database, DiskStore::at(&self.data_dir)).await
    }

    /// The store, to be written to, and made where it is not there.
    pub(super) async fn store_for_writing(&self) -> anyhow::Result<OpenStore> {
        let database = self.elsewhere.catalog.database()?;
        let is_elsewhere = database.is_some() && self.elsewhere.has_blobs();
        let disk = match is_elsewhere {
            true => DiskStore::at(&self.data_dir),
            false => DiskStore::open(&self.data_dir).await?,
        };
        let store = self.open(database, disk).await?;
        match store.backed.catalog.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(store),
        }
    }

    async fn open(
        &self,
        database: Option<PostgresCatalog>,
        disk: DiskStore,
    ) -> anyhow::Result<OpenStore> {
        let dir = self.data_dir.display().to_string();
        let (catalog, catalog_at): (Arc<dyn Catalog>, _) = match database {
            Some(database) => {
                let at = database.name();
                (Arc::new(database), at)
            }
            None => {
                let catalog = SqliteCatalog::open(&self.data_dir).await;
                let failed = || format!("cannot open the data directory {dir}");
                (Arc::new(catalog.with_context(failed)?), dir.clone())
            }
        };
        let backed = self.elsewhere.backed(catalog, disk)?;
        let blobs_at = match &backed.bucket {
            Some(bucket) => bucket.place().to_string(),
            None => dir,
        };
        let at = match catalog_at == blobs_at {
            true => blobs_at,
            false => format!("{catalog_at} and {blobs_at}"),
        };
        Ok(OpenStore { backed, at })
    }
}
