//! From which hub a blob is read, by whose token, out of which projects: what
//! the imports say that this process serves now.
//!
//! The near tier knows blobs by their digest alone. It asks here when it has to
//! fetch one.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use async_trait::async_trait;

use super::download::{self, Urls};
use super::hub::Caller;
use crate::blobs::{BlobError, BlobStream, Origin};
use crate::cache::CacheError;
use crate::digest::Digest;
use crate::place::ProjectId;

/// Blobs that a hub named, and how it is asked for them.
pub(super) struct Route {
    pub(super) caller: Caller,
    /// Where exports may name them: any will do.
    pub(super) projects: Vec<ProjectId>,
    /// With their sizes in bytes.
    pub(super) blobs: Arc<BTreeMap<Digest, u64>>,
}

/// The routes of this process, each as long as somebody holds it.
#[derive(Default)]
pub(super) struct Routes {
    routes: Mutex<Vec<Weak<Route>>>,
    urls: Urls,
}

impl Routes {
    /// Adds one.
    pub(super) fn add(&self, route: Route) -> Arc<Route> {
        let route = Arc::new(route);
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|route| route.strong_count() > 0);
        routes.push(Arc::downgrade(&route));
        route
    }

    /// What came from a bucket was wrong: hubs are asked instead, for a while.
    pub(super) fn distrust_buckets(&self) {
        self.urls.shun(Instant::now());
    }

    /// Those that lead to a blob, the newest first.
    pub(super) fn to(&self, digest: &Digest) -> Vec<Arc<Route>> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = routes.iter().rev().filter_map(Weak::upgrade);
        routes
            .filter(|route| route.blobs.contains_key(digest))
            .collect()
    }
}

/// The hubs, as the near tier reads them.
pub(super) struct Hubs(pub(super) Arc<Routes>);

#[async_trait]
impl Origin for Hubs {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let routes = self.0.to(digest);
        let sizes = routes.iter().filter_map(|route| route.blobs.get(digest));
        match sizes.copied().next() {
            Some(size) => Ok(Some(size)),
            None => Err(nowhere(digest)),
        }
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        let mut trouble = None;
        for route in self.0.to(digest) {
            let wanted = download::Wanted {
                projects: &route.projects,
                digest: *digest,
                offset,
                length,
            };
            match download::read(&route.caller, wanted, &self.0.urls).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => trouble = Some(error),
            }
        }
        Err(trouble.map_or_else(|| nowhere(digest), |error| blob_error(digest, error)))
    }
}

fn nowhere(digest: &Digest) -> BlobError {
    BlobError::Io {
        context: format!("reading {digest}"),
        source: io::Error::new(
            io::ErrorKind::NotConnected,
            "no import that is served now names it",
        ),
    }
}

/// The engine's error as one about a blob.
pub(super) fn blob_error(digest: &Digest, error: CacheError) -> BlobError {
    let kind = match error {
        CacheError::Blob(error) => return error,
        CacheError::Denied(_) | CacheError::Unauthenticated(_) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    BlobError::Io {
        context: digest.to_string(),
        source: io::Error::new(kind, error.to_string()),
    }
}
