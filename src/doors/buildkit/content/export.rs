//! The store behind an export: layers go to the cache as they come, documents
//! are held, and the manifest, which comes last, publishes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::super::build::Build;
use super::super::metrics::ExportTally;
use super::asked::Asked;
use super::document::Documents;
use super::import::slice;
use super::layers;
use super::refusal::{blob_refusal, refusal, unknown_content};
use super::statuses::Statuses;
use crate::blobs::Ingest;
use crate::cache::{Cache, CacheError, Document, Lease, Publication};
use crate::digest::Digest;
use crate::graph::{Config, GraphError, Manifest, Vertex, steps};
use crate::place::Place;
use crate::step::Step;
use crate::units::{ByteSize, counted};

/// How late the progress may be: an export is dated and named by it.
const LATE: Duration = Duration::from_secs(1);

/// One export of one build.
pub struct ExportStore {
    place: Place,
    builder: String,
    cache: Arc<dyn Cache>,
    build: Arc<Build>,
    vertex: Digest,
    statuses: Statuses,
    documents: Documents,
    layers: Mutex<Layers>,
    tally: ExportTally,
    /// Where the store has not said yet that it takes it, and how long it may
    /// take to, once that is needed.
    asked: Option<(Asked, Duration)>,
    /// Keeps what is found to be held until it is published.
    _lease: Lease,
}

/// Layer blobs by what is known of them.
#[derive(Default)]
struct Layers {
    /// Written by this export, or found to be held already: bytes.
    present: BTreeMap<Digest, u64>,
    /// Those of `present` that this export wrote.
    uploaded: BTreeMap<Digest, u64>,
}

impl ExportStore {
    /// An export of `build`, written by `builder`, to `place` in `cache`; the
    /// progress shows it as `vertex`.
    pub fn new(
        place: Place,
        builder: String,
        cache: Arc<dyn Cache>,
        build: Arc<Build>,
        vertex: Digest,
        tally: ExportTally,
        lease: Lease,
    ) -> Self {
        let (statuses, documents, layers) = Default::default();
        Self {
            place,
            builder,
            cache,
            build,
            vertex,
            statuses,
            documents,
            layers,
            tally,
            asked: None,
            _lease: lease,
        }
    }

    /// The same, once the store says that it takes it, within `limit`.
    pub fn once(self, asked: Asked, limit: Duration) -> Self {
        Self {
            asked: Some((asked, limit)),
            ..self
        }
    }

    async fn is_taken(&self) -> Result<(), Status> {
        match &self.asked {
            None => Ok(()),
            Some((asked, limit)) => asked.settled(*limit, |error| self.failed(error)).await,
        }
    }

    /// Whether buildkitd has written nothing of it that counts.
    pub fn is_untried(&self) -> bool {
        self.tally.is_untried()
    }

    pub(super) fn span(&self) -> &Span {
        self.build.span()
    }

    pub(super) fn statuses(&self) -> &Statuses {
        &self.statuses
    }

    /// Bytes of what this export has written or found.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        let document = self
            .documents
            .get(digest)
            .map(|document| document.bytes.len() as u64);
        document.or_else(|| self.layers().present.get(digest).copied())
    }

    pub(super) async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        if let Some(document) = self.documents.get(digest) {
            return Ok(slice(&document.bytes, offset, length));
        }
        if !self.layers().present.contains_key(digest) {
            return Err(unknown_content(digest));
        }
        let bytes = self
            .cache
            .read(digest, offset, length)
            .await
            .map_err(|error| refusal(&error))?;
        Ok(bytes.map(|chunk| chunk.map_err(blob_refusal)).boxed())
    }

    /// Whether a blob need not be sent.
    pub(super) async fn has(&self, digest: &Digest) -> Result<bool, Status> {
        if self.size(digest).is_some() {
            return Ok(true);
        }
        self.is_taken().await?;
        let held = self.cache.holds(&self.place, digest).await;
        let held = held.map_err(|error| self.failed(&error))?;
        if let Some(size) = held {
            self.layers().present.insert(*digest, size);
        }
        Ok(held.is_some())
    }

    /// Opens or resumes an upload. BuildKit writes a document under its bare
    /// digest, and a layer under `layer-…`.
    pub(super) async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, Status> {
        if is_document(name) {
            return Ok(self.documents.ingest());
        }
        self.is_taken().await?;
        self.cache
            .ingest(&self.place, name, expected)
            .await
            .map_err(|error| self.failed(&error))
    }

    /// Ends an upload that was written whole: verifies it, and publishes the
    /// export where it is the manifest.
    pub(super) async fn commit(
        &self,
        name: &str,
        ingest: Box<dyn Ingest>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<Digest, Status> {
        let (digest, size) = ingest
            .commit(size, expected)
            .await
            .map_err(|error| self.failed(&error.into()))?;
        if is_document(name) {
            self.read_document(&digest).await?;
        } else {
            let mut layers = self.layers();
            layers.present.insert(digest, size);
            layers.uploaded.insert(digest, size);
        }
        Ok(digest)
    }

    /// Drops an upload that nobody is writing.
    pub(super) async fn abort(&self, name: &str) -> Result<(), Status> {
        self.statuses.forget(name)?;
        let ingest = self.ingest(name, None).await?;
        ingest.abort().await.map_err(blob_refusal)
    }

    /// Tells the user why an upload failed, and the client.
    pub(super) fn failed(&self, error: &CacheError) -> Status {
        self.tally.failed();
        self.build
            .warn(format!("cache not exported to {}: {error}", self.place));
        refusal(error)
    }

    /// Publishes where a document is a manifest, keeps it where it is a
    /// config, and forgets what is neither.
    async fn read_document(&self, digest: &Digest) -> Result<(), Status> {
        let Some(document) = self.documents.get(digest) else {
            return Ok(());
        };
        // A config comes first; it is read again, with its manifest, when that
        // publishes it.
        let outcome = if Manifest::recognise(&document.bytes) {
            self.publish(document).await
        } else {
            Config::parse(&document.bytes)
                .map(drop)
                .map_err(CacheError::from)
        };
        outcome.map_err(|error| {
            self.documents.forget(digest);
            self.failed(&error)
        })
    }

    async fn publish(&self, manifest: Document) -> Result<(), CacheError> {
        let parsed = Manifest::parse(&manifest.bytes)?;
        let sizes = BTreeMap::from_iter(parsed.sizes()?);
        let named = parsed.config.digest;
        let config = self
            .documents
            .get(&named)
            .ok_or_else(|| CacheError::Missing(vec![named]))?;
        let vertices = self.build.vertices_before(&self.vertex, LATE).await;
        let (graph, steps) = named_steps(config.bytes.clone(), vertices).await?;
        let origin = self.build.account.origin(&self.builder).await;
        let ran: Vec<Step> = steps
            .into_iter()
            .map(|step| Step {
                origin: Some(origin.clone()),
                ..step
            })
            .collect();
        let uploaded = self.layers().uploaded.clone();
        let published = self
            .cache
            .publish(Publication {
                place: self.place.clone(),
                builder: self.builder.clone(),
                manifest,
                config,
                uploaded: uploaded.keys().copied().collect(),
                steps: ran.clone(),
                readable: None,
                began: Some(self.build.began),
            })
            .instrument(self.span().clone())
            .await?;
        self.tally.published();
        self.build.account.export(&ran, &published.steps);
        let layers = layers::lines(published.id, &graph, &sizes, &uploaded, &published.steps);
        let became = match published.id {
            _ if published.queued => ", queued for the hub".to_owned(),
            Some(id) => format!(" as export {id}"),
            None => String::new(),
        };
        let told = format!(
            "exported {} and {} ({}, of which {} new) to {}{became}",
            counted(published.records, "record"),
            counted(published.layers, "layer"),
            ByteSize(published.bytes),
            ByteSize(uploaded.values().sum()),
            self.place,
        );
        self.build.tell_all(told, layers);
        Ok(())
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The config, and the steps that made its records; on a thread of its own,
/// since a config may have megabytes.
async fn named_steps(
    config: Bytes,
    vertices: Vec<Vertex>,
) -> Result<(Config, Vec<Step>), CacheError> {
    let named = tokio::task::spawn_blocking(move || {
        let config = Config::parse(&config)?;
        let steps = steps(&config, &vertices);
        Ok::<_, GraphError>((config, steps))
    });
    let named = named.await.map_err(|stopped| {
        CacheError::Unavailable(format!("reading the export was cut off: {stopped}"))
    })?;
    Ok(named?)
}

fn is_document(name: &str) -> bool {
    name.parse::<Digest>().is_ok()
}
