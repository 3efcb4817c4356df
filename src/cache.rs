//! The engine: what every door calls, and nothing of any protocol.
//!
//! [`Cache`] is the seam between a door and where the cache lives: an embedded
//! store here and now ([`LocalCache`]). A door looks an import up, reads its
//! blobs, asks what is held already, ingests blobs, and publishes an export;
//! the log of exports is the only truth, and all that is served derives from it.

pub mod check;
mod descriptors;
mod local;
mod metered;
mod policy;
mod steps;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use self::local::LocalCache;
pub use self::metered::{Metered, Metrics};
pub use self::usage::{StoreSize, Usage};
use crate::blobs::{BlobError, BlobStream, Ingest};
use crate::catalog::{CatalogError, ExportId};
use crate::digest::Digest;
use crate::graph::{Config, GraphError, Manifest};
use crate::place::{GitRef, Place, ProjectId};
use crate::step::Step;
use crate::units::ByteSize;

/// A cache that a door can serve from.
///
/// - `look_up` never names a blob that cannot be read: presence and size are
///   checked first, and results whose layers are gone are withdrawn.
/// - `publish` is atomic and durable: when it returns, the export survives a
///   crash of the machine; when it fails, nothing of it is visible.
/// - Nothing crosses projects: a blob is held by a project only through an
///   export of that project.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// What the first of `wants` that has anything gives, or `None`;
    /// [`CacheError::Lost`] where there was something that can't be served.
    /// Exports whose manifest or config has more than `max_document` bytes are
    /// passed over.
    async fn look_up(
        &self,
        wants: &[Want],
        max_document: usize,
    ) -> Result<Option<Import>, CacheError>;

    /// Whether an export could be taken now; an error says why not.
    async fn writable(&self) -> Result<(), CacheError>;

    /// The size in bytes of this blob, if an export of `project` holds it and
    /// it is there.
    async fn holds(&self, project: &ProjectId, digest: &Digest) -> Result<Option<u64>, CacheError>;

    /// Opens or resumes the upload of one blob; see
    /// [`BlobStore::ingest`](crate::blobs::BlobStore::ingest). Names of two
    /// projects never meet.
    async fn ingest(&self, project: &ProjectId, name: &str) -> Result<Box<dyn Ingest>, CacheError>;

    /// Streams a blob that an [`Import`] of this cache names.
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError>;

    /// Hashes a blob again, unless this cache has done so since the file was
    /// written. One that is not what it should be is withdrawn, and an error.
    async fn verify(&self, digest: &Digest) -> Result<(), CacheError>;

    /// Forgets a blob that turned out to be unreadable or not what it should
    /// be: no look-up names it until it is uploaded again.
    async fn withdraw(&self, digest: &Digest) -> Result<(), CacheError>;

    /// Appends an export to the log, when all that it names is there.
    async fn publish(&self, export: Publication) -> Result<Published, CacheError>;
}

/// One place to look at, and the refs to try after its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// Where to look first; its scope may be [any](crate::place::Scope::is_any).
    pub place: Place,
    /// Other refs of the same project and scope, in order.
    pub fallbacks: Vec<GitRef>,
    /// Exports older than this are not used.
    pub not_before: Option<Timestamp>,
}

/// A small document: exact bytes and their digest.
#[derive(Clone, Debug)]
pub struct Document {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The content.
    pub bytes: Bytes,
}

impl Document {
    /// Names the bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            digest: Digest::of(&bytes),
            bytes,
        }
    }
}

/// What an import serves: a cache manifest, its config, and the blobs that
/// both name. It comes out of one export or of several.
#[derive(Clone, Debug)]
pub struct Import {
    /// Where it was found, or the first place of several.
    pub place: Place,
    /// How many exports it comes out of.
    pub exports: usize,
    /// How many builders wrote those.
    pub builders: usize,
    /// The newest of those.
    pub export: ExportId,
    /// When the newest was written.
    pub exported_at: Timestamp,
    /// Who wrote the newest: a host name.
    pub builder: String,
    /// Cache records in the config.
    pub records: usize,
    /// Layers that were withdrawn because their blob is missing or has
    /// another size than the export recorded.
    pub withdrawn: Vec<Digest>,
    /// The OCI image manifest.
    pub manifest: Document,
    /// The cache config.
    pub config: Document,
    /// Size in bytes of every layer blob that `manifest` names.
    pub layers: BTreeMap<Digest, u64>,
}

impl Import {
    /// Bytes of the larger of manifest and config.
    pub fn largest_document(&self) -> usize {
        self.manifest.bytes.len().max(self.config.bytes.len())
    }

    /// The config with what the manifest says of each layer, for an importer
    /// that reads no manifest.
    pub fn self_contained(&self) -> Result<Bytes, GraphError> {
        let layers = Manifest::parse(&self.manifest.bytes)?.layers;
        Ok(Config::parse(&self.config.bytes)?
            .with_layers(&layers)?
            .into())
    }
}

/// An export to be published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where it will stand.
    pub place: Place,
    /// Who wrote it: a host name.
    pub builder: String,
    /// The manifest as BuildKit wrote it: an OCI image manifest, or an index.
    pub manifest: Document,
    /// The cache config that the manifest names.
    pub config: Document,
    /// The blobs that this export has uploaded itself; every other layer must
    /// be held by the project already.
    pub uploaded: BTreeSet<Digest>,
    /// The steps that this build ran, as far as it is known which records of
    /// the config they made. Those of the other records are known from the
    /// project's earlier exports.
    pub steps: Vec<Step>,
}

/// What a publication became.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its number in the log.
    pub id: ExportId,
    /// Cache records in it.
    pub records: usize,
    /// Distinct layer blobs in it.
    pub layers: usize,
    /// Bytes of those, as stored.
    pub bytes: u64,
    /// The steps that made its records, of this build and of earlier ones, as
    /// far as they are known; kept with the export.
    pub steps: Vec<Step>,
}

/// What a door has to tell its client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The store can't be opened or reached now; the text says why and what
    /// to do.
    #[error("{0}")]
    Unavailable(String),
    /// There are exports where one was looked for, and none can be served.
    #[error("nothing is left of {}: see layerd cache fsck", exports(.0))]
    Lost(Vec<ExportId>),
    /// There are exports where one was looked for, and all are too large.
    #[error("{} has a config or manifest of {}, and BuildKit takes at most {} over a session", exports(&[*.0]), ByteSize(*.1 as u64), ByteSize(*.2 as u64))]
    TooLarge(ExportId, usize, usize),
    /// A publication names layers that were neither uploaded nor held.
    #[error("the export names {} that it did not upload and the project does not hold, first {}", count(.0.len()), .0[0])]
    Missing(Vec<Digest>),
    /// The manifest or the config is not one.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// From the blob store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// From the catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

fn exports(ids: &[ExportId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!(
        "{} {}",
        if ids.len() == 1 { "export" } else { "exports" },
        ids.join(", ")
    )
}

fn count(blobs: usize) -> String {
    if blobs == 1 {
        "a blob".to_owned()
    } else {
        format!("{blobs} blobs")
    }
}
