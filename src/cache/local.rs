//! The embedded cache: a blob store and a catalog in one data directory.
//!
//! Nothing is opened before it is needed, and what could not be opened is tried
//! again at the next call, so that a broken disk costs hits and never a start.
//! Several processes share the directory; the catalog and the files' locks
//! keep them apart.

mod open;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;

use self::open::{Opened, Opener};
use self::verify::Verified;
use super::descriptors::{to_descriptor, to_layer};
use super::policy::Candidate;
use super::usage::Usage;
use super::{Cache, CacheError, Document, Import, Publication, Published, Want, policy, steps};
use crate::blobs::{BlobError, BlobStore as _, BlobStream, DiskStore, Ingest};
use crate::catalog::{Catalog as _, CatalogError, Export, ExportId, NewExport};
use crate::digest::{Digest, Hasher};
use crate::graph::{Config, Descriptor, GraphError, Manifest};
use crate::place::ProjectId;
use crate::step::Step;

/// A cache in a data directory.
#[derive(Debug)]
pub struct LocalCache {
    opener: Opener,
    verified: Verified,
    /// For reading alone: what a look-up promised is read whatever becomes of
    /// the catalog.
    blobs: DiskStore,
}

impl LocalCache {
    /// Names the directory; it is created or opened at the first call that
    /// needs it.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let dir = data_dir.into();
        Self {
            blobs: DiskStore::at(&dir),
            opener: Opener::new(dir),
            verified: Verified::default(),
        }
    }

    /// Opens the data directory, for reading at least; an error says why it
    /// can't be.
    pub async fn open(&self) -> Result<(), CacheError> {
        self.opener.opened().await.map(drop)
    }

    /// What is stored now: looks at every blob's file, and opens nothing.
    pub async fn usage(&self) -> Result<Usage, CacheError> {
        Ok(Usage::of(&DiskStore::at(self.opener.dir())).await?)
    }

    /// The newest export of a place of which anything is left and that fits;
    /// what was passed over is added to `passed`.
    async fn newest(
        &self,
        opened: &Opened,
        candidate: &Candidate,
        max_document: usize,
        passed: &mut Passed,
    ) -> Result<Option<Import>, CacheError> {
        let place = &candidate.place;
        let mut before = None;
        for _ in 0..policy::EXPORTS_TRIED {
            let Some(id) = opened.catalog.newest(place, before).await? else {
                break;
            };
            match opened.catalog.get(id).await {
                Ok(None) => break,
                Ok(Some(export)) if candidate.rejects(export.head.time) => break,
                Ok(Some(export)) => match self.import(opened, export).await? {
                    Some(import) if import.largest_document() <= max_document => {
                        return Ok(Some(import));
                    }
                    Some(import) => {
                        tracing::warn!(%place, export = %id, "the export is too large: passed over");
                        passed.large.get_or_insert((id, import.largest_document()));
                        before = Some(id);
                        continue;
                    }
                    None => {
                        tracing::warn!(%place, export = %id, "every blob of the export is missing: passed over");
                    }
                },
                Err(error @ CatalogError::Corrupt { .. }) => {
                    tracing::warn!(%place, export = %id, %error, "the export can't be read: passed over");
                }
                Err(error) => return Err(error.into()),
            }
            passed.lost.push(id);
            before = Some(id);
        }
        Ok(None)
    }

    async fn import(&self, opened: &Opened, export: Export) -> Result<Option<Import>, CacheError> {
        let blobs: Vec<Digest> = export.layers.iter().map(|layer| layer.digest).collect();
        let mut found = opened.blobs.sizes(&blobs).await?;
        if self.verified.is_suspect() {
            for (blob, found) in blobs.iter().zip(&mut found) {
                if found.is_some() && self.verify(blob).await.is_err() {
                    *found = None;
                }
            }
        }
        let (kept, withdrawn) = policy::withdraw(export.layers, &found);
        if kept.is_empty() {
            return Ok(None);
        }
        let config = Document {
            digest: export.config_digest,
            bytes: export.config,
        };
        let manifest = Manifest {
            config: Descriptor::of_config(config.digest, config.bytes.len() as u64),
            layers: kept.into_iter().map(to_descriptor).collect(),
        };
        Ok(Some(Import {
            place: export.head.place,
            exports: 1,
            builders: 1,
            export: export.head.id,
            exported_at: export.head.time,
            builder: export.head.builder,
            records: usize::try_from(export.head.records).unwrap_or(usize::MAX),
            withdrawn,
            layers: manifest
                .layers
                .iter()
                .map(|layer| (layer.digest, layer.size))
                .collect(),
            manifest: Document::new(manifest.to_json()?.into()),
            config,
        }))
    }
}

/// Exports that were found and not served.
#[derive(Default)]
struct Passed {
    /// Nothing of them is left.
    lost: Vec<ExportId>,
    /// The newest that is too large, and its bytes.
    large: Option<(ExportId, usize)>,
}

#[async_trait]
impl Cache for LocalCache {
    async fn look_up(
        &self,
        wants: &[Want],
        max_document: usize,
    ) -> Result<Option<Import>, CacheError> {
        let opened = self.opener.opened().await?;
        let mut passed = Passed::default();
        for candidate in policy::candidates(wants) {
            let found = self
                .newest(&opened, &candidate, max_document, &mut passed)
                .await?;
            if let Some(import) = found {
                return Ok(Some(import));
            }
        }
        match passed {
            Passed {
                large: Some((id, bytes)),
                ..
            } => Err(CacheError::TooLarge(id, bytes, max_document)),
            Passed { lost, .. } if !lost.is_empty() => Err(CacheError::Lost(lost)),
            Passed { .. } => Ok(None),
        }
    }

    async fn writable(&self) -> Result<(), CacheError> {
        let opened = self.opener.opened_for_writing().await?;
        opened.blobs.probe().await?;
        Ok(opened.catalog.writable().await?)
    }

    async fn holds(&self, project: &ProjectId, digest: &Digest) -> Result<Option<u64>, CacheError> {
        let opened = self.opener.opened().await?;
        let Some(size) = opened.catalog.holds(project, digest).await? else {
            return Ok(None);
        };
        // A blob that lost bytes is not there: the next upload mends it.
        let there = opened.blobs.size(digest).await? == Some(size);
        Ok(there.then_some(size))
    }

    async fn ingest(&self, project: &ProjectId, name: &str) -> Result<Box<dyn Ingest>, CacheError> {
        let opened = self.opener.opened_for_writing().await?;
        // No project id holds a NUL: names of two projects never meet.
        Ok(opened.blobs.ingest(&format!("{project}\0{name}")).await?)
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError> {
        Ok(self.blobs.read(digest, offset, length).await?)
    }

    async fn verify(&self, digest: &Digest) -> Result<(), CacheError> {
        if self.verified.is_believed(digest, Instant::now()) {
            return Ok(());
        }
        let mut bytes = self.read(digest, 0, u64::MAX).await?;
        let mut hasher = Hasher::default();
        while let Some(chunk) = bytes.next().await {
            hasher.update(&chunk?);
        }
        let (expected, actual) = (*digest, hasher.finish());
        if actual != expected {
            tracing::error!(blob = %expected, %actual, "a blob has rotted, and is withdrawn");
            self.withdraw(digest).await?;
            return Err(BlobError::WrongDigest { expected, actual }.into());
        }
        self.verified.remember(expected, Instant::now());
        Ok(())
    }

    async fn withdraw(&self, digest: &Digest) -> Result<(), CacheError> {
        self.verified.suspect();
        let opened = self.opener.opened_for_writing().await?;
        Ok(opened.blobs.remove(digest).await?)
    }

    async fn publish(&self, export: Publication) -> Result<Published, CacheError> {
        let (manifest, config) = parse(export.manifest, export.config.clone()).await?;
        let opened = self.opener.opened_for_writing().await?;
        let sizes = BTreeMap::from_iter(manifest.sizes()?);
        let missing = missing(&opened, &export.place.project, &export.uploaded, &sizes).await?;
        if !missing.is_empty() {
            return Err(CacheError::Missing(missing));
        }
        let steps = steps(&opened, &export.place.project, &config, export.steps).await;
        // The log must never name what a crash of the machine could still take.
        opened.blobs.persist().await?;
        let id = opened
            .catalog
            .append(NewExport {
                place: export.place,
                time: Timestamp::now(),
                builder: export.builder,
                records: config.records.len() as u64,
                config: export.config.bytes,
                layers: manifest.layers.into_iter().map(to_layer).collect(),
                steps: steps.clone(),
            })
            .await?;
        Ok(Published {
            id,
            records: config.records.len(),
            layers: sizes.len(),
            bytes: sizes.values().sum(),
            steps,
        })
    }
}

/// Parses both; on a thread of its own, since a config may have megabytes.
async fn parse(manifest: Document, config: Document) -> Result<(Manifest, Config), CacheError> {
    let parsed = tokio::task::spawn_blocking(move || {
        let manifest = Manifest::parse(&manifest.bytes)?;
        let config = manifest.parse_config(&config.bytes)?;
        Ok::<_, GraphError>((manifest, config))
    });
    let parsed = parsed.await.map_err(|stopped| {
        CacheError::Unavailable(format!("reading the export was cut off: {stopped}"))
    })?;
    Ok(parsed?)
}

/// Blobs that the project may not name: absent, of another size than the
/// manifest says, or neither uploaded by this export nor held already.
async fn missing(
    opened: &Opened,
    project: &ProjectId,
    uploaded: &BTreeSet<Digest>,
    sizes: &BTreeMap<Digest, u64>,
) -> Result<Vec<Digest>, CacheError> {
    let all: Vec<Digest> = sizes.keys().copied().collect();
    let found = opened.blobs.sizes(&all).await?;
    let foreign: Vec<Digest> = all
        .iter()
        .filter(|digest| !uploaded.contains(digest))
        .copied()
        .collect();
    let held = BTreeSet::from_iter(opened.catalog.held(project, &foreign).await?);
    let deliverable = |digest: &Digest, found: &Option<u64>| {
        *found == sizes.get(digest).copied() && (uploaded.contains(digest) || held.contains(digest))
    };
    Ok(all
        .iter()
        .zip(&found)
        .filter(|(digest, found)| !deliverable(digest, found))
        .map(|(digest, _)| *digest)
        .collect())
}

/// The steps of an export's records: `ran` by its build, or known from earlier
/// exports of the project. An export is worth more than its names.
async fn steps(opened: &Opened, project: &ProjectId, config: &Config, ran: Vec<Step>) -> Vec<Step> {
    let nameless = steps::nameless(config, &ran);
    let kept = opened.catalog.steps(project, &nameless).await;
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "the names of steps of earlier exports can't be read");
        Vec::new()
    });
    steps::of_export(config, ran, kept)
}

#[cfg(test)]
mod tests;
