//! What a reader of a cache gets, as one export: all that is seen of a hub from
//! the outside.

use std::sync::Arc;

use async_trait::async_trait;

use super::format::MAX_DOCUMENT_BYTES;
use super::source::{Omitted, Snapshot, Source};
use crate::blobs::BlobStream;
use crate::cache::{Cache, CacheError, Documents, Form, Import, Lease, Limits, Want};
use crate::digest::Digest;
use crate::graph::{Config, Manifest};
use crate::place::{Place, ProjectId};
use crate::step::Step;

/// Results whose steps are asked for at a time.
const AT_ONCE: usize = 4000;

/// All of it, whatever its size.
pub(super) const ALL: Limits = Limits {
    records: u64::MAX,
    form: Form::Parts {
        max_bytes: MAX_DOCUMENT_BYTES as usize,
    },
};

/// The union of what may be read.
pub struct United {
    cache: Arc<dyn Cache>,
    place: Place,
    import: Option<Import>,
    cut: u64,
    _lease: Lease,
}

impl United {
    /// What `want` sees, to be exported to `place`; none where that is nothing.
    pub async fn look(
        cache: Arc<dyn Cache>,
        want: Want,
        place: Place,
    ) -> Result<Option<Self>, CacheError> {
        let found = cache.look_up(&[want], &ALL).await?.import();
        Ok(found.map(|import| Self {
            cache,
            place,
            cut: import.left_out.cut,
            _lease: import.lease.clone(),
            import: Some(import),
        }))
    }

    /// How many exports it comes out of.
    pub fn exports(&self) -> usize {
        self.import.as_ref().map_or(0, |import| import.exports)
    }

    /// Records that are left out, since one export can't hold them all.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    async fn snapshot(&self, import: Import) -> Result<Snapshot, CacheError> {
        let Documents::Parts { manifest, config } = import.documents else {
            return Err(CacheError::Unavailable(
                "the cache gave an import in another form than it was asked for".to_owned(),
            ));
        };
        let bytes = config.bytes.clone();
        let parsed = tokio::task::spawn_blocking(move || {
            let manifest = Manifest::parse(&manifest.bytes)?;
            let config = manifest.parse_config(&bytes)?;
            Ok::<_, crate::graph::GraphError>((manifest, config))
        });
        let (manifest, parsed) = parsed.await.map_err(|stopped| {
            CacheError::Unavailable(format!("reading the import was cut off: {stopped}"))
        })??;
        Ok(Snapshot {
            name: "union".to_owned(),
            steps: self.steps(&self.place.project, &parsed).await,
            place: self.place.clone(),
            time: import.exported_at,
            builder: import.builder,
            config,
            layers: manifest.layers,
        })
    }

    /// What is known of its steps. A cache is worth more than its names.
    async fn steps(&self, project: &ProjectId, config: &Config) -> Vec<Step> {
        let results: Vec<_> = config.results().into_iter().collect();
        let mut steps = Vec::new();
        for some in results.chunks(AT_ONCE) {
            match self.cache.steps(project, some).await {
                Ok(known) => steps.extend(known),
                Err(error) => {
                    tracing::warn!(%error, "the names of steps can't be read");
                    break;
                }
            }
        }
        steps
    }
}

#[async_trait]
impl Source for United {
    async fn next(&mut self) -> Result<Option<Snapshot>, CacheError> {
        match self.import.take() {
            Some(import) => self.snapshot(import).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read(&self, digest: &Digest) -> Result<BlobStream, CacheError> {
        self.cache.read(digest, 0, u64::MAX).await
    }

    fn omitted(&self) -> &[Omitted] {
        &[]
    }
}
