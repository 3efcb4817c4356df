//! The engine: what every door calls, and nothing of any protocol.
//!
//! [`Cache`] is the seam between a door and where the cache lives: an embedded
//! store here and now ([`LocalCache`]), or a hub ([`remote`]). A door looks an import up, reads its
//! blobs, asks what is held already, ingests blobs, and publishes an export;
//! the log of exports is the only truth, and all that is served derives from it.

pub mod archive;
pub mod backends;
pub mod check;
pub mod collecting;
mod descriptors;
pub mod entries;
pub mod flushes;
pub mod guard;
mod local;
pub mod look;
mod metered;
mod policy;
pub mod quotas;
pub mod remote;
pub mod repair;
pub mod retention;
mod steps;
mod usage;
pub mod wire;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use self::local::{Collected, LocalCache, Orphans, Outlook, Subsumed, Swept, would_bind};
pub use self::metered::{Metered, Metrics};
pub use self::usage::{StoreSize, Usage};
use crate::access::RefPattern;
use crate::blobs::{BlobError, BlobStream, Ingest};
pub use crate::catalog::Saving;
use crate::catalog::ledger::Origin;
use crate::catalog::{CatalogError, ExportId};
use crate::digest::{Digest, RecordDigest};
use crate::graph::{Compression, GraphError, LeftOut};
use crate::moment::Moment;
use crate::place::{GitRef, Place, ProjectId, Scope, Unwritable};
use crate::step::Step;

/// The most that the manifest and the config of one export may have together,
/// in bytes.
pub const MAX_DOCUMENTS: u64 = 64 << 20;
/// Steps that are kept with one export.
pub const MAX_STEPS: usize = 10_000;

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
    /// The union of all that `wants` see, cut to `limits`; [`CacheError::Lost`] where there was something that can't be
    /// served.
    async fn look_up(&self, wants: &[Want], limits: &Limits) -> Result<LookedUp, CacheError>;

    /// What `project` holds now stays readable until this is dropped.
    async fn lease(&self) -> Lease;

    /// Whether an export to `place` could be taken now; an error says why not.
    async fn writable(&self, place: &Place) -> Result<(), CacheError>;

    /// Why it is that an answer is late, where that is known before it comes.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// The size in bytes of this blob, if an export to `place` may name it
    /// without uploading it, and it is there.
    async fn holds(&self, place: &Place, digest: &Digest) -> Result<Option<u64>, CacheError>;

    /// Opens or resumes the upload of one blob of an export to `place`, whose
    /// digest is `expected` where that is known; see
    /// [`BlobStore::ingest`](crate::blobs::BlobStore::ingest). Names of two
    /// projects never meet.
    async fn ingest(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, CacheError>;

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

    /// Leaves a blob that could not be read out of what is named from now on.
    /// One that is not what it should be is forgotten until it is uploaded
    /// again; one that may be sound is left out by this process, for a while.
    async fn withdraw(&self, digest: &Digest, why: &CacheError) -> Result<(), CacheError>;

    /// Appends an export to the log, when all that it names is there. Older ones
    /// of its place that then say nothing more may leave it. One whose build began
    /// before its place was flushed is [`CacheError::Flushed`].
    async fn publish(&self, export: Publication) -> Result<Published, CacheError>;

    /// The steps that made those results, each a record and its date, as far as
    /// exports of `project` have kept them; with their origin.
    async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError>;

    /// Adds what a build was saved to what is kept of such; a cache that takes
    /// no writes keeps none, which is no error.
    async fn report(&self, saving: &Saving) -> Result<(), CacheError>;

    /// Takes exports out of the log, for readers all at once, and notes who said
    /// so: `origin`, or whoever a hub finds to ask. Gives how many.
    async fn flush(&self, flush: &Flush, origin: &Origin) -> Result<u64, CacheError>;
}

/// What a look-up comes to.
#[derive(Clone, Debug)]
pub enum LookedUp {
    /// Something.
    Import(Box<Import>),
    /// Nothing is seen, perhaps since somebody has flushed it.
    Nothing(Option<Flushed>),
}

impl LookedUp {
    /// What there is.
    pub fn import(self) -> Option<Import> {
        match self {
            Self::Import(import) => Some(*import),
            Self::Nothing(_) => None,
        }
    }
}

/// That somebody has flushed what would else be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// When.
    pub at: Timestamp,
    /// Who, as people know them.
    pub by: String,
}

/// Exports of a project that are to leave the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Of this project.
    pub project: ProjectId,
    /// Only of this ref.
    pub git_ref: Option<GitRef>,
    /// Only of this scope.
    pub scope: Option<Scope>,
}

/// What a build wants to see: every ref of a project, in one scope or in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// What comes first; its scope may be [any](crate::place::Scope::is_any).
    pub place: Place,
    /// Refs of the same project and scope that come next, in order.
    pub fallbacks: Vec<GitRef>,
    /// Whether other refs are left out.
    pub narrowed: bool,
    /// Results older than this are not used. Of several wants the strictest
    /// counts.
    pub not_before: Option<Timestamp>,
    /// Which of a record's results is preferred. Of several wants the first
    /// that has any counts.
    pub compression: Option<Compression>,
    /// The refs that may be seen at all; none: every one.
    pub readable: Option<Vec<RefPattern>>,
}

impl Want {
    /// Every ref of the place's project in its scope, that of the place first.
    pub fn all_of(place: Place) -> Self {
        Self {
            place,
            fallbacks: Vec::new(),
            narrowed: false,
            not_before: None,
            compression: None,
            readable: None,
        }
    }
}

/// How large an import may be, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records of ordinary weight; see [`Budget`](crate::graph::Budget).
    pub records: u64,
    /// What BuildKit reads.
    pub form: Form,
}

/// The form of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One config that says all of its layers.
    Whole,
    /// A config and a manifest.
    Parts {
        /// Bytes of each, at most.
        max_bytes: usize,
    },
}

/// Keeps what was there when it was taken readable, until the last clone is
/// dropped.
#[derive(Clone, Default)]
pub struct Lease(Option<Arc<dyn Any + Send + Sync>>);

impl Lease {
    /// As long as `held` is.
    pub fn of(held: Option<Arc<impl Any + Send + Sync>>) -> Self {
        Self(held.map(|held| held as Arc<dyn Any + Send + Sync>))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.0.is_some()).finish()
    }
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

/// What an import serves, and the blobs that it names. It comes out of one
/// export or of several.
#[derive(Clone, Debug)]
pub struct Import {
    /// What was wanted first.
    pub place: Place,
    /// How many exports it comes out of.
    pub exports: usize,
    /// How many builders wrote those.
    pub builders: usize,
    /// The newest of those; none where numbers are not told.
    pub export: Option<ExportId>,
    /// When the newest was written.
    pub exported_at: Timestamp,
    /// Who wrote the newest: a host name.
    pub builder: String,
    /// Cache records in it.
    pub records: usize,
    /// What exports hold and this does not.
    pub left_out: LeftOut,
    /// Parts of exports that could not be used, and were met for the first time.
    pub refused: u64,
    /// Blobs that exports name and that are missing, or have another size than
    /// was recorded: nothing that needs them is served. Each is told once.
    pub withdrawn: Vec<Digest>,
    /// The latest flush of hours past that took anything which could be in it,
    /// where nothing was written there since.
    pub flushed: Option<Flushed>,
    /// What BuildKit reads first.
    pub documents: Documents,
    /// Size in bytes of every layer blob that is named.
    pub layers: Arc<BTreeMap<Digest, u64>>,
    /// Keeps those readable.
    pub lease: Lease,
}

/// The documents of an import.
#[derive(Clone, Debug)]
pub enum Documents {
    /// A cache config that says all of its layers.
    Whole(Bytes),
    /// As over a session.
    Parts {
        /// The OCI image manifest.
        manifest: Document,
        /// The cache config that it names.
        config: Document,
    },
}

impl Documents {
    /// The digest of what is read first.
    pub fn root(&self) -> Digest {
        match self {
            Self::Whole(config) => Digest::of(config),
            Self::Parts { manifest, .. } => manifest.digest,
        }
    }

    /// The document of that digest, where documents have one.
    pub fn get(&self, digest: &Digest) -> Option<&Document> {
        match self {
            Self::Whole(_) => None,
            Self::Parts { manifest, config } => [manifest, config]
                .into_iter()
                .find(|document| document.digest == *digest),
        }
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
    /// Of which refs those may be; none: of every one.
    pub readable: Option<Vec<RefPattern>>,
    /// When its build began: where its place was flushed since, it is not taken.
    /// None: that is not known, as of an older client.
    pub began: Option<Moment>,
}

/// What a publication became.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its number in the log; none where numbers are not told.
    pub id: Option<ExportId>,
    /// Whether it is still on its way to the log, durable on this host.
    pub queued: bool,
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
    /// The blob store is another catalog's; the text says what to do.
    #[error("{0}")]
    Foreign(String),
    /// Whoever asks may not do that; the text says why, and what helps.
    #[error("{0}")]
    Denied(String),
    /// Whoever asks has no token that counts now; the text says why. Another
    /// token, or the same after a repair, may.
    #[error("{0}")]
    Unauthenticated(String),
    /// There is no room for it now, by a quota or on a disk; the text says where.
    #[error("{0}")]
    Exhausted(String),
    /// Whoever was asked can't take what it was given, now or later.
    #[error("{0}")]
    Refused(String),
    /// What an export would bring back was flushed after its build began; the
    /// text says by whom.
    #[error("{0}")]
    Flushed(String),
    /// There are exports where one was looked for, and none can be served. Which
    /// ones is left out where numbers are not told.
    #[error("nothing is left of {}: see layerd cache fsck", exports(.0))]
    Lost(Vec<ExportId>),
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

impl From<Unwritable> for CacheError {
    fn from(unwritable: Unwritable) -> Self {
        Self::Refused(unwritable.to_string())
    }
}

impl CacheError {
    /// What only one process at a time does is being done by another one.
    pub(crate) fn collecting() -> Self {
        Self::Unavailable("another process collects now: try again later".to_owned())
    }

    /// Whether a blob of which this was said can't be what it should be, however
    /// often it is read.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Blob(
                BlobError::NotFound(_)
                    | BlobError::WrongSize { .. }
                    | BlobError::WrongDigest { .. }
            )
        )
    }
}

fn exports(ids: &[ExportId]) -> String {
    const SHOWN: usize = 5;
    if ids.is_empty() {
        return "the exports there".to_owned();
    }
    let shown: Vec<String> = ids.iter().take(SHOWN).map(ToString::to_string).collect();
    format!(
        "{} {}{}",
        if ids.len() == 1 { "export" } else { "exports" },
        shown.join(", "),
        if ids.len() > SHOWN { ", …" } else { "" }
    )
}

fn count(blobs: usize) -> String {
    if blobs == 1 {
        "a blob".to_owned()
    } else {
        format!("{blobs} blobs")
    }
}
