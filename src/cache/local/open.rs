//! What an engine works on: a catalog and a blob store, opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::bound;
use super::directory::Directory;
use super::lease::Leases;
use super::unions::Unions;
use super::uploads::Uploads;
use crate::blobs::BlobStore;
use crate::cache::CacheError;
use crate::catalog::Catalog;
use crate::moment::Moment;

/// Both, and what is kept in memory beside them.
pub(super) struct Opened {
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) unions: Unions,
    pub(super) leases: Leases,
    pub(super) uploads: Uploads,
    /// When the store was last found to be the catalog's.
    bound: Mutex<Option<Moment>>,
}

/// How long it is believed that the store is the catalog's: another may have
/// taken it over.
const BOUND: Duration = Duration::from_secs(300);

impl Opened {
    pub(super) fn new(catalog: Arc<dyn Catalog>, blobs: Arc<dyn BlobStore>) -> Self {
        Self {
            blobs,
            catalog,
            unions: Unions::default(),
            leases: Leases::default(),
            uploads: Uploads::default(),
            bound: Mutex::default(),
        }
    }

    /// Makes sure, now, that the store is the catalog's.
    pub(super) async fn bind(&self) -> Result<(), CacheError> {
        let since = Moment::now();
        let bound = bound::bind(&*self.catalog, &*self.blobs).await;
        let mut known = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        *known = bound.is_ok().then_some(since);
        bound
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// Where an engine gets that from.
#[derive(Debug)]
pub(super) enum Opener {
    /// A data directory, which is opened when it is needed.
    Directory(Directory),
    /// What looks after its connections itself.
    Given(Arc<Opened>),
}

impl Opener {
    pub(super) fn directory(dir: PathBuf) -> Self {
        Self::Directory(Directory::new(dir))
    }

    /// For reading, at least.
    pub(super) async fn opened(&self) -> Result<Arc<Opened>, CacheError> {
        match self {
            Self::Directory(directory) => directory.opened().await,
            Self::Given(opened) => Ok(Arc::clone(opened)),
        }
    }

    /// For writing; the store is the catalog's, as of late.
    pub(super) async fn opened_for_writing(&self) -> Result<Arc<Opened>, CacheError> {
        let opened = match self {
            Self::Directory(directory) => directory.opened_for_writing().await?,
            Self::Given(opened) => match opened.catalog.refusal() {
                Some(refusal) => return Err(refusal.into()),
                None => Arc::clone(opened),
            },
        };
        let lately = *opened.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.is_none_or(|bound| bound.elapsed() > BOUND) {
            opened.bind().await?;
        }
        Ok(opened)
    }

    /// Whether it is there now; an error says why not. Creates nothing.
    pub(super) async fn ready(&self) -> Result<(), CacheError> {
        match self {
            Self::Directory(directory) => directory.ready().await,
            Self::Given(opened) => {
                opened.catalog.ready().await?;
                Ok(opened.blobs.ready().await?)
            }
        }
    }
}
