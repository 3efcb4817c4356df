//! Where the exports of an archive go.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use crate::blobs::{BlobError, Ingest};
use crate::cache::{Cache, CacheError, LocalCache};
use crate::digest::Digest;
use crate::place::{GitRef, Place, ProjectId, Scope};

/// How long a store keeps what an import that breaks off has brought.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A cache that an archive is read into.
pub struct Target {
    cache: Arc<dyn Cache>,
    embedded: Option<Arc<LocalCache>>,
}

impl Target {
    /// A store that is opened here.
    pub fn store(store: Arc<LocalCache>) -> Self {
        Self {
            cache: Arc::clone(&store) as Arc<dyn Cache>,
            embedded: Some(store),
        }
    }

    /// Any cache, which decides itself what it takes from us.
    pub fn cache(cache: Arc<dyn Cache>) -> Self {
        Self {
            cache,
            embedded: None,
        }
    }

    pub(super) fn inner(&self) -> &dyn Cache {
        &*self.cache
    }

    /// Those of the places whose exports may not name the blob yet.
    pub(super) async fn lacking<'a>(
        &self,
        places: Vec<&'a Place>,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<&'a Place>, CacheError> {
        let mut lacking = Vec::new();
        for place in places {
            if self.cache.holds(place, digest).await? != Some(size) {
                lacking.push(place);
            }
        }
        Ok(lacking)
    }

    /// Begins to take a blob in for those places.
    pub(super) async fn open(
        &self,
        places: Vec<Place>,
        digest: Digest,
        size: u64,
    ) -> Result<Incoming, CacheError> {
        // A project must be shown that we have it; a store that is opened here
        // knows by the first.
        let mut projects: Vec<&Place> = Vec::new();
        for place in &places {
            let is_new = projects.iter().all(|known| known.project != place.project);
            if projects.is_empty() || (is_new && self.embedded.is_none()) {
                projects.push(place);
            }
        }
        let mut ingests = Vec::with_capacity(projects.len());
        let mut resumed = false;
        for place in projects {
            let name = format!("archive {digest}");
            let mut ingest = self.cache.ingest(place, &name, Some(digest)).await?;
            if ingest.offset() > size {
                ingest.restart().await?;
            }
            resumed |= ingest.offset() > 0;
            ingests.push(ingest);
        }
        Ok(Incoming {
            ingests,
            embedded: self.embedded.clone(),
            places,
            digest,
            size,
            offset: 0,
            resumed,
        })
    }
}

/// A blob on its way in.
pub(super) struct Incoming {
    ingests: Vec<Box<dyn Ingest>>,
    embedded: Option<Arc<LocalCache>>,
    places: Vec<Place>,
    digest: Digest,
    size: u64,
    offset: u64,
    resumed: bool,
}

impl Incoming {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether an earlier import has brought a part of it.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Takes the next bytes of the blob.
    pub(super) async fn write(&mut self, bytes: &bytes::Bytes) -> Result<(), BlobError> {
        let end = self.offset + bytes.len() as u64;
        for ingest in &mut self.ingests {
            let known = ingest.offset().clamp(self.offset, end) - self.offset;
            let known = usize::try_from(known).unwrap_or(bytes.len());
            if known < bytes.len() {
                ingest.write(bytes.slice(known..)).await?;
            }
        }
        self.offset = end;
        Ok(())
    }

    /// Verifies it, and makes it visible.
    pub(super) async fn commit(self) -> Result<(), CacheError> {
        let (digest, size) = (self.digest, self.size);
        let commits = self.ingests.into_iter();
        let commits = commits.map(|ingest| ingest.commit(Some(size), Some(digest)));
        try_join_all(commits).await?;
        if let Some(store) = &self.embedded {
            for place in &self.places {
                store.possess(place, digest, size, KEPT).await?;
            }
        }
        Ok(())
    }
}

/// Has exports stand elsewhere than an archive says.
#[derive(Clone, Debug, Default)]
pub struct Rehome {
    /// All of them in this project.
    pub project: Option<ProjectId>,
    /// At this ref.
    pub git_ref: Option<GitRef>,
    /// In this scope.
    pub scope: Option<Scope>,
}

impl Rehome {
    pub(super) fn of(&self, place: Place) -> Place {
        Place {
            project: self.project.clone().unwrap_or(place.project),
            git_ref: self.git_ref.clone().unwrap_or(place.git_ref),
            scope: self.scope.clone().unwrap_or(place.scope),
        }
    }
}
