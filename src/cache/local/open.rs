//! Opening the data directory when it is needed, and again when that helps.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::LocalCache;
use super::lease::Leases;
use super::unions::Unions;
use crate::blobs::{BlobError, DiskStore};
use crate::cache::CacheError;
use crate::catalog::{Catalog as _, CatalogError, SqliteCatalog, network_file_system};

/// What helps a data directory that has gone.
const MEND: &str = "mount it again, or restart the sidecar to begin an empty cache there";

/// An opened data directory.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) blobs: DiskStore,
    pub(super) catalog: SqliteCatalog,
    pub(super) unions: Unions,
    pub(super) leases: Leases,
    /// The catalog's file, as it was when it was opened.
    identity: Option<Identity>,
}

impl LocalCache {
    /// Whether the data directory is there and opens; an error says why not.
    /// Unlike [`Self::open`] it never creates one: where a disk is lost, an
    /// empty directory in its place is no cache, and fills another disk.
    pub async fn ready(&self) -> Result<(), CacheError> {
        self.opener.ready().await
    }
}

/// Opens a data directory once for all callers.
#[derive(Debug)]
pub(super) struct Opener {
    dir: PathBuf,
    // Held while opening, so that callers at once wait for one attempt.
    opened: Mutex<Option<Arc<Opened>>>,
}

impl Opener {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            opened: Mutex::new(None),
        }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
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
        let mut current = self.opened.lock().await;
        if let Some(opened) = current.as_ref() {
            let reads_only = opened.catalog.refusal().is_some();
            if opened.identity == Identity::of(&self.dir, reads_only).await && good_enough(opened) {
                return Ok(Arc::clone(opened));
            }
        }
        *current = None;
        let opened = Arc::new(self.open().await?);
        *current = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Whether builds could open it now, or have it open; creates nothing.
    async fn ready(&self) -> Result<(), CacheError> {
        let current = self.opened.lock().await;
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
        if let Some(opened) = current.as_ref() {
            let reads_only = opened.catalog.refusal().is_some();
            if opened.identity == Identity::of(&self.dir, reads_only).await {
                return Ok(());
            }
        }
        let catalog = SqliteCatalog::open(&self.dir)
            .await
            .map_err(|error| self.catalog_unavailable(error))?;
        catalog.close().await;
        Ok(())
    }

    async fn open(&self) -> Result<Opened, CacheError> {
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
        Ok(Opened {
            blobs,
            catalog,
            unions: Unions::default(),
            leases: Leases::default(),
            identity,
        })
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
