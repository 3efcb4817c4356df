//! What is written into an archive: the exports of a store, each as it is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;

use crate::blobs::{BlobStore, BlobStream};
use crate::cache::descriptors::to_descriptor;
use crate::cache::{Cache as _, CacheError, Document, Lease, LocalCache};
use crate::catalog::{Catalog, CatalogError, Export, ExportId, Filter, Kind};
use crate::digest::Digest;
use crate::graph::Descriptor;
use crate::place::Place;
use crate::step::Step;

/// Exports listed at a time.
const PAGE: u32 = 1024;

/// One export.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it is called in the archive.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// When it was written.
    pub time: Timestamp,
    /// Who wrote it: a host name.
    pub builder: String,
    /// The cache config.
    pub config: Document,
    /// The layers that a manifest of it names, in order.
    pub layers: Vec<Descriptor>,
    /// The steps that made its records.
    pub steps: Vec<Step>,
}

/// What does not come along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Omitted {
    /// An export.
    pub export: ExportId,
    /// Why.
    pub why: String,
}

/// Where the exports of an archive come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// The next one, the oldest first. All its layers are there.
    async fn next(&mut self) -> Result<Option<Snapshot>, CacheError>;

    /// Streams a layer that one of them names.
    async fn read(&self, digest: &Digest) -> Result<BlobStream, CacheError>;

    /// What did not come along, of what was asked for so far.
    fn omitted(&self) -> &[Omitted];
}

/// Every export of a store that a filter lets through. What is in the log when
/// it is opened is readable until it is dropped; what comes in meanwhile may
/// come along.
pub struct Exports {
    catalog: Arc<dyn Catalog>,
    blobs: Arc<dyn BlobStore>,
    filter: Filter,
    /// Those that are still to come.
    ids: VecDeque<ExportId>,
    /// One has left the log for a newer one, which is to come along then.
    is_stale: bool,
    /// The sizes in bytes of blobs that were looked for.
    found: HashMap<Digest, Option<u64>>,
    omitted: Vec<Omitted>,
    _lease: Lease,
}

impl Exports {
    /// Those that `filter` lets through, whatever its limit, entries apart.
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        blobs: Arc<dyn BlobStore>,
        filter: Filter,
    ) -> Result<Self, CacheError> {
        // Before anything is listed that it keeps.
        let lease = LocalCache::over(Arc::clone(&catalog), Arc::clone(&blobs))
            .lease()
            .await;
        let mut exports = Self {
            catalog,
            blobs,
            filter: Filter {
                kind: Some(Kind::Cache),
                ..filter
            },
            ids: VecDeque::new(),
            is_stale: false,
            found: HashMap::new(),
            omitted: Vec::new(),
            _lease: lease,
        };
        exports.list().await?;
        Ok(exports)
    }

    /// Adds what came after the last one that was listed.
    async fn list(&mut self) -> Result<(), CacheError> {
        let mut before = None;
        let mut newest_first = Vec::new();
        loop {
            let page = Filter {
                before,
                limit: Some(PAGE),
                ..self.filter.clone()
            };
            let heads = self.catalog.list(&page).await?;
            let Some(last) = heads.last() else { break };
            before = Some(last.id);
            newest_first.extend(heads.iter().map(|head| head.id));
        }
        self.filter.after = newest_first.first().copied().or(self.filter.after);
        self.ids.extend(newest_first.into_iter().rev());
        Ok(())
    }

    /// Why an export can't be delivered, if it can't.
    async fn lacks(&mut self, export: &Export) -> Result<Option<String>, CacheError> {
        let sizes = export.layers.iter().map(|layer| (layer.digest, layer.size));
        let sizes: BTreeMap<Digest, u64> = sizes.collect();
        let unknown = sizes
            .keys()
            .filter(|digest| !self.found.contains_key(*digest));
        let unknown: Vec<Digest> = unknown.copied().collect();
        let found = self.blobs.sizes(&unknown).await?;
        self.found.extend(unknown.into_iter().zip(found));
        let gone: Vec<&Digest> = sizes
            .iter()
            .filter(|(digest, size)| self.found.get(*digest) != Some(&Some(**size)))
            .map(|(digest, _)| digest)
            .collect();
        Ok(gone.first().map(|first| {
            let count = gone.len();
            format!("{count} of its layers are missing or have another size, first {first}")
        }))
    }
}

#[async_trait]
impl Source for Exports {
    async fn next(&mut self) -> Result<Option<Snapshot>, CacheError> {
        loop {
            let Some(id) = self.ids.pop_front() else {
                if !std::mem::take(&mut self.is_stale) {
                    return Ok(None);
                }
                self.list().await?;
                continue;
            };
            let export = match self.catalog.get(id).await {
                Ok(Some(export)) => export,
                Ok(None) => {
                    self.is_stale = true;
                    continue;
                }
                Err(error @ CatalogError::Corrupt { .. }) => {
                    let why = error.to_string();
                    self.omitted.push(Omitted { export: id, why });
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(why) = self.lacks(&export).await? {
                self.omitted.push(Omitted { export: id, why });
                continue;
            }
            return Ok(Some(Snapshot {
                name: format!("export-{id}"),
                place: export.head.place,
                time: export.head.time,
                builder: export.head.builder,
                config: Document {
                    digest: export.config_digest,
                    bytes: export.config,
                },
                layers: export.layers.into_iter().map(to_descriptor).collect(),
                steps: export.steps,
            }));
        }
    }

    async fn read(&self, digest: &Digest) -> Result<BlobStream, CacheError> {
        Ok(self.blobs.read(digest, 0, u64::MAX).await?)
    }

    fn omitted(&self) -> &[Omitted] {
        &self.omitted
    }
}
