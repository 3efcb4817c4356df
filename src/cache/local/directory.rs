//! A data directory, opened when it is needed, and again when that helps.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::open::Opened;
use crate::blobs::{BlobError, DiskStore};
use crate::cache::CacheError;
use crate::catalog::{Catalog as _, CatalogError, SqliteCatalog, network_file_system};

/// What helps a data directory that has gone.
const MEND: &str = "mount it again, or restart the sidecar to begin an empty cache there";

/// Opens a data directory once for all callers.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    // Held while opening, so that callers at once wait for one attempt.
    current: Mutex<Option<Current>>,
}

/// What is open, and the catalog's file as it was when it was opened.
#[derive(Debug)]
struct Current {
    opened: Arc<Opened>,
    identity: Option<Identity>,
}

impl Directory {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            current: Mutex::new(None),
        }
    }

    /// For reading, at least.
    pub(super) async fn opened(&self) -> Result<Arc<Opened>, CacheError> {
        self.open_unless(|_| true).await
    }

    /// For writing: what could be opened for reading only is tried again, since
    /// the disk may have been mended.
    pub(super) async fn opened_for_writing(&self) -> Result<Arc<Opened>, CacheError> {
        let opened = self
            .open_unless(|opened| opened.catalog.refusal().is_none())
            .await?;
        match opened.catalog.refusal() {
            Some(refusal) => Err(self.catalog_unavailable(refusal)),
            None => Ok(opened),
        }
    }

    async fn open_unless(
        &self,
        good_enough: impl Fn(&Opened) -> bool,
    ) -> Result<Arc<Opened>, CacheError> {
        let mut current = self.current.lock().await;
        if let Some(current) = current.as_ref()
            && self.is_as_opened(current).await
            && good_enough(&current.opened)
        {
            return Ok(Arc::clone(&current.opened));
        }
        *current = None;
        let now = self.open().await?;
        let opened = Arc::clone(&now.opened);
        *current = Some(now);
        Ok(opened)
    }

    /// Whether builds could open it now, or have it open; creates nothing.
    pub(super) async fn ready(&self) -> Result<(), CacheError> {
        let current = self.current.lock().await;
        let dir = self.dir.display();
        if let Err(error) = tokio::fs::read_dir(&self.dir).await {
            return Err(CacheError::Unavailable(match error.kind() {
                ErrorKind::NotFound => format!("data directory {dir} is not there; {MEND}"),
                _ => format!("data directory {dir} can't be used: {error}"),
            }));
        }
        if let Err(error) = tokio::fs::metadata(SqliteCatalog::path(&self.dir)).await {
            return Err(CacheError::Unavailable(format!(
                "data directory {dir} holds no catalog: {error}; {MEND}"
            )));
        }
        if let Some(current) = current.as_ref()
            && self.is_as_opened(current).await
        {
            return Ok(());
        }
        let catalog = SqliteCatalog::open(&self.dir)
            .await
            .map_err(|error| self.catalog_unavailable(error))?;
        catalog.close().await;
        Ok(())
    }

    async fn is_as_opened(&self, current: &Current) -> bool {
        let reads_only = current.opened.catalog.refusal().is_some();
        current.identity == Identity::of(&self.dir, reads_only).await
    }

    async fn open(&self) -> Result<Current, CacheError> {
        if let Ok(Some(kind)) = network_file_system(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), kind, "the data directory is on a network file system: the catalog can be damaged when several hosts use it");
        }
        let blobs = DiskStore::open(&self.dir)
            .await
            .map_err(|error| self.blobs_unavailable(&error))?;
        let catalog = SqliteCatalog::open(&self.dir)
            .await
            .map_err(|error| self.catalog_unavailable(error))?;
        let identity = Identity::of(&self.dir, catalog.refusal().is_some()).await;
        let opened = Arc::new(Opened::new(Arc::new(catalog), Arc::new(blobs)));
        Ok(Current { opened, identity })
    }

    fn blobs_unavailable(&self, error: &BlobError) -> CacheError {
        CacheError::Unavailable(match error {
            BlobError::ReadOnly(_) => self.read_only(),
            BlobError::Full(_) => self.full(),
            error => format!(
                "data directory {} can't be used: {error}; mend it, or name another with --data-dir",
                self.dir.display()
            ),
        })
    }

    fn catalog_unavailable(&self, error: CatalogError) -> CacheError {
        CacheError::Unavailable(match error {
            CatalogError::ReadOnly(_) => self.read_only(),
            CatalogError::Full(_) => self.full(),
            CatalogError::Corrupt { .. } => format!(
                "{error}; move the data directory {} away to start anew",
                self.dir.display()
            ),
            error @ (CatalogError::Busy(_) | CatalogError::Newer(_)) => return error.into(),
            error => format!(
                "data directory {} can't be used: {error}",
                self.dir.display()
            ),
        })
    }

    fn read_only(&self) -> String {
        format!(
            "data directory {} is read-only; make it writable for this user, or name another with --data-dir",
            self.dir.display()
        )
    }

    fn full(&self) -> String {
        format!(
            "no space left in data directory {}; free some, or name another with --data-dir",
            self.dir.display()
        )
    }
}

/// What tells that the catalog's file has to be opened anew.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    /// Device and inode: a directory that was removed or mounted over leaves
    /// files open that nobody else will ever see.
    file: (u64, u64),
    /// Modification time and size, where the file is taken for one that does
    /// not change: others may be able to write it.
    content: Option<(i64, i64, u64)>,
}

impl Identity {
    async fn of(dir: &Path, reads_only: bool) -> Option<Self> {
        let found = tokio::fs::metadata(SqliteCatalog::path(dir)).await.ok()?;
        let content = reads_only.then(|| (found.mtime(), found.mtime_nsec(), found.size()));
        Some(Self {
            file: (found.dev(), found.ino()),
            content,
        })
    }
}
