//! The store that a command works on by itself, without asking a hub: it can
//! read and write there, and so do anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::catalog::ledger::{Actor, NewAudit, Origin};
use crate::catalog::{Catalog, PostgresCatalog, PostgresOptions, SqliteCatalog};

/// Which catalog.
#[derive(Debug, Args)]
pub(super) struct Stored {
    /// The data directory of `layerd serve`, or of a sidecar without a hub. It
    /// may be in use; it is never created here.
    #[arg(
        long,
        env = "LAYERD_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/layerd-hub"
    )]
    data_dir: PathBuf,

    #[command(flatten)]
    catalog: CatalogArg,
}

impl Stored {
    /// Opens it.
    pub(super) async fn open(&self) -> anyhow::Result<Arc<dyn Catalog>> {
        let catalog = self.catalog.or_in(&self.data_dir).await?;
        catalog.ready().await?;
        Ok(catalog)
    }
}

/// The log of exports, where it is not in the data directory.
#[derive(Debug, Args)]
pub(super) struct CatalogArg {
    /// The log of exports, where it is in Postgres:
    /// postgres://USER:PASSWORD@HOST/DATABASE. Keep the password off the command
    /// line: in LAYERD_CATALOG, PGPASSWORD or the password file.
    #[arg(
        long,
        env = "LAYERD_CATALOG",
        value_name = "URL",
        hide_env_values = true
    )]
    catalog: Option<String>,
}

impl CatalogArg {
    /// The database, where one is named.
    pub(super) fn database(&self) -> anyhow::Result<Option<PostgresCatalog>> {
        let connect = |url: &String| PostgresCatalog::connect(url, PostgresOptions::default());
        let catalog = self.catalog.as_ref().map(connect);
        catalog.transpose().context("--catalog")
    }

    /// That, or the catalog which is in a data directory.
    pub(super) async fn or_in(&self, data_dir: &Path) -> anyhow::Result<Arc<dyn Catalog>> {
        match self.database()? {
            Some(database) => Ok(Arc::new(database)),
            None => Ok(Arc::new(open_directory(data_dir).await?)),
        }
    }
}

/// Opens the catalog of a data directory that has one.
pub(super) async fn open_directory(data_dir: &Path) -> anyhow::Result<SqliteCatalog> {
    let (dir, file) = (data_dir.display(), SqliteCatalog::path(data_dir));
    if !data_dir.is_dir() {
        bail!("there is no directory {dir}; name the data directory of a layerd with --data-dir");
    }
    if !file.is_file() {
        bail!(
            "{dir} is not a data directory of layerd, or nothing has used it yet: {} is not there",
            file.display()
        );
    }
    SqliteCatalog::open(data_dir)
        .await
        .with_context(|| format!("cannot read the data directory {dir}"))
}

/// Whoever types commands here, as the audit log knows them: `root@host`.
pub(super) fn typist() -> Origin {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let name = name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    Origin::here(Actor::User {
        name: format!("{name}@{host}"),
    })
}

/// Has the audit log tell what a command did. It is done by then: that it can't
/// be noted is said, and is no reason to fail.
pub(super) async fn noted(catalog: &dyn Catalog, entry: &NewAudit) {
    if let Err(error) = catalog.note(entry).await {
        let action = entry.action;
        writeln!(
            std::io::stderr(),
            "the audit log does not tell of this {action}: {error}"
        )
        .ok();
    }
}
