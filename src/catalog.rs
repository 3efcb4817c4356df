//! The export log: which snapshot was written where, when and by whom.
//!
//! The log is append-only and the only truth: what an import serves, what a
//! project holds and which blobs live are all derived from it. [`Catalog`] is
//! the seam; [`SqliteCatalog`] keeps it in one file beside the blobs,
//! [`PostgresCatalog`] in a database that many hubs share, and [`Metered`]
//! measures either.

mod collecting;
mod columns;
#[cfg(test)]
mod conformance;
mod context;
pub mod entries;
mod error;
mod file_system;
pub mod ledger;
mod metered;
mod ownership;
mod packed;
mod pages;
mod postgres;
mod savings;
mod sqlite;
mod usage;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::collecting::{
    CONDEMNED, Collecting, KeptExport, KeptFilter, PinHolder, ProjectSize, Uses,
};
pub use self::entries::Entries;
pub use self::error::CatalogError;
pub use self::file_system::network_file_system;
pub use self::ledger::Ledger;
pub use self::metered::{Metered, Metrics};
pub use self::ownership::Ownership;
pub use self::postgres::{PostgresCatalog, PostgresOptions, Tables};
pub use self::savings::{MAX_REFS_A_DAY, OTHER_REFS, Saving, SavingFilter};
pub use self::sqlite::SqliteCatalog;
pub use self::usage::{DayUsage, UsageFilter, Usages};
use crate::digest::{Digest, RecordDigest};
use crate::entry::EntryName;
use crate::moment::Moment;
use crate::place::{GitRef, Place, ProjectId, Scope};
use crate::step::Step;

/// The log of exports.
///
/// - *Atomic*: an export is in the log with its config and all its layers, or
///   not at all.
/// - *Durable*: when `append` returns, the export survives a crash of the
///   machine.
/// - *Ordered*: ids grow in the order in which exports became visible, whoever
///   wrote them; an id is never used twice. Newest means the greatest id, not
///   the latest clock.
/// - *Shared*: any number of processes append and read at once. A writer waits
///   some seconds for another and then fails with [`CatalogError::Busy`];
///   readers never wait for writers.
/// - *Bounded*: where the catalog can't be reached, every call fails with
///   [`CatalogError::Unavailable`] within seconds; the next one tries anew.
/// - *Cost*: `holds`, each digest of `held` and `visible`, each result of `steps`
///   and each ref of `refs` are a few index look-ups, however many are asked for
///   at once; `get` reads the whole config; `list` and `count` never do.
#[async_trait]
pub trait Catalog:
    Collecting + Entries + Ledger + Usages + fmt::Debug + Send + Sync + 'static
{
    /// Appends an export; [`CatalogError::Flushed`] where its place was
    /// [flushed](Ledger::flush) after its build began, of two at once included.
    async fn append(&self, export: NewExport) -> Result<ExportId, CatalogError>;

    /// Whether an append could work now; an error says why not.
    async fn writable(&self) -> Result<(), CatalogError>;

    /// Whether the catalog answers, cheaply; an error says why not.
    async fn ready(&self) -> Result<(), CatalogError>;

    /// Why it was opened for reading only, if so: read-only, or no space left.
    /// Opening it again may help.
    fn refusal(&self) -> Option<CatalogError> {
        None
    }

    /// Closes it in good order; calls after that fail.
    async fn close(&self);

    /// Exports, newest first.
    async fn list(&self, filter: &Filter) -> Result<Vec<ExportHead>, CatalogError>;

    /// How many exports the filter lets through, whatever its limit.
    async fn count(&self, filter: &Filter) -> Result<u64, CatalogError>;

    /// One export with all that it holds.
    async fn get(&self, id: ExportId) -> Result<Option<Export>, CatalogError>;

    /// The size of a blob that an export of the project names, or that the
    /// project [possesses](Catalog::possess), in bytes.
    async fn holds(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError>;

    /// Those of the digests that an export of the project names or that it
    /// [possesses](Catalog::possess), each once; an export that has left the log
    /// counts while a lease keeps it, so that what a build was told to be there
    /// stays so until it has exported.
    async fn held(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError>;

    /// Notes that these blobs were uploaded for that ref of the project, each
    /// with its size in bytes, and may be named until `ttl` has passed or an
    /// export of that ref names them; a later call never shortens that. Nothing
    /// of it crosses projects.
    async fn possess(
        &self,
        project: &ProjectId,
        git_ref: &GitRef,
        blobs: &[(Digest, u64)],
        ttl: Duration,
    ) -> Result<(), CatalogError>;

    /// The refs of the project with an export, one that has left the log while a
    /// lease keeps it included, or for which a blob was
    /// [uploaded](Catalog::possess); each once.
    async fn holding_refs(&self, project: &ProjectId) -> Result<Vec<GitRef>, CatalogError>;

    /// As [`held`](Catalog::held), by exports of these refs or uploads for them
    /// alone.
    async fn visible(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError>;

    /// Every blob that any export names, retired ones included, or that any
    /// project possesses, with its size in bytes, by digest.
    /// Read in pages, so that a slow reader holds nothing up.
    fn referenced(&self) -> BoxStream<'_, Result<(Digest, u64), CatalogError>>;

    /// Those of the blobs that an export in the log names or that any project
    /// possesses, each once: what else is referenced is kept for leases alone.
    async fn lasting(&self, blobs: &[Digest]) -> Result<Vec<Digest>, CatalogError>;

    /// How many exports have left the log and are kept for leases.
    async fn leased(&self) -> Result<u64, CatalogError>;

    /// Takes a lease that ends after `ttl` unless it is renewed: whatever leaves
    /// the log from now on keeps naming its blobs until then.
    async fn take_lease(&self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        let lease = LeaseId::random();
        self.take_lease_as(lease, ttl).await?;
        Ok(lease)
    }

    /// The same, by a number that its taker has made up and nobody can guess.
    async fn take_lease_as(&self, lease: LeaseId, ttl: Duration) -> Result<(), CatalogError>;

    /// Has a lease end `ttl` from now; false where it has ended already.
    async fn renew_lease(&self, lease: LeaseId, ttl: Duration) -> Result<bool, CatalogError>;

    /// Ends a lease; one that has ended is ended already.
    async fn end_lease(&self, lease: LeaseId) -> Result<(), CatalogError>;

    /// Takes exports out of the log: nothing lists, gets or holds them any
    /// more. Their blobs stay [referenced](Catalog::referenced) until every
    /// lease has ended that was taken before. Gives how many were in the log.
    async fn retire(&self, exports: &[ExportId]) -> Result<u64, CatalogError>;

    /// [Retires](Catalog::retire) exports that `by` has all of.
    async fn subsume(&self, exports: &[ExportId], by: ExportId) -> Result<u64, CatalogError>;

    /// Those of the exports that were subsumed by one which is in the log.
    async fn subsumed(&self, exports: &[ExportId]) -> Result<Vec<ExportId>, CatalogError>;

    /// Those of the results, each a record and its date, whose step an export of
    /// the project has kept; of one of `refs`, where those are given.
    async fn steps(
        &self,
        project: &ProjectId,
        refs: Option<&[GitRef]>,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CatalogError>;

    /// Adds to what is kept of builds at that place on that day. Sums that are
    /// too large for the catalog stay the largest that it can keep. A project has
    /// [`MAX_REFS_A_DAY`] refs on a day; those of more count together, as
    /// [`OTHER_REFS`].
    async fn add_saving(&self, saving: &Saving) -> Result<(), CatalogError>;

    /// What is kept of builds: one for each project, ref and day, the newest day
    /// first, then by project and ref.
    async fn savings(&self, filter: &SavingFilter) -> Result<Vec<Saving>, CatalogError>;

    /// The exports in the log that name a blob, oldest first.
    async fn naming(&self, digest: &Digest) -> Result<Vec<ExportId>, CatalogError>;

    /// The right to do a background task, which one of all that share the
    /// catalog has at a time; `None` while another has it. It ends when it is
    /// dropped, or with its process. A task's name is of `a-z`, `0-9` and `-`.
    async fn try_own(&self, task: &str) -> Result<Option<Ownership>, CatalogError>;
}

/// The number of an export in its log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct ExportId(pub i64);

impl fmt::Display for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for ExportId {
    type Err = NoNumber;

    fn from_str(text: &str) -> Result<Self, NoNumber> {
        text.parse().map(Self).map_err(|_| NoNumber)
    }
}

/// A text that is the number of no export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the number of an export is expected, as `layerd cache ls` shows it")]
pub struct NoNumber;

/// The right to read what was in the log when it was taken: a positive number
/// that nobody can guess, since whoever has it may renew or end the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random_range(1..=i64::MAX))
    }
}

/// What an export is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A build's cache: records and their layers.
    #[default]
    Cache,
    /// An [entry](entries) of GitHub's cache: bytes. Asked for as `gha`, too.
    #[serde(alias = "gha")]
    Entry,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cache => "cache",
            Self::Entry => "entry",
        })
    }
}

impl Kind {
    fn as_column(self) -> i64 {
        match self {
            Self::Cache => 0,
            Self::Entry => 1,
        }
    }

    fn of_column(column: i64) -> Result<Self, String> {
        match column {
            0 => Ok(Self::Cache),
            1 => Ok(Self::Entry),
            other => Err(format!("there is no kind {other} of exports")),
        }
    }
}

/// An export to be appended.
#[derive(Clone, Debug)]
pub struct NewExport {
    /// Where it stands.
    pub place: Place,
    /// When it was written; kept to the microsecond.
    pub time: Timestamp,
    /// Who wrote it: a host name.
    pub builder: String,
    /// Cache records in the config.
    pub records: u64,
    /// The cache config, exactly as exported.
    pub config: Bytes,
    /// The layer descriptors, in the manifest's order, repetitions included.
    pub layers: Vec<Layer>,
    /// The steps that made its records, as far as they are known.
    pub steps: Vec<Step>,
    /// When the build began that wrote it, where that is known.
    pub began: Option<Moment>,
}

/// A layer descriptor of an export's manifest. Serialised, it is also what
/// Postgres keeps of it: a field that is added needs a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Layer {
    /// The blob.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// The digest of the uncompressed layer.
    #[schema(value_type = Option<String>)]
    pub diff_id: Option<Digest>,
    /// When the layer was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// What else was annotated.
    pub annotations: BTreeMap<String, String>,
}

/// An export without its config and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportHead {
    /// Its number.
    pub id: ExportId,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What it is an export of.
    #[serde(default)]
    pub kind: Kind,
    /// What it is called, if it is an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryName>,
    /// Who wrote it.
    pub builder: String,
    /// Cache records in it.
    pub records: u64,
    /// Distinct layer blobs in it.
    pub layers: u64,
    /// Bytes of those, as stored.
    pub bytes: u64,
}

/// An export with all that it holds.
#[derive(Clone, Debug)]
pub struct Export {
    /// What it is.
    pub head: ExportHead,
    /// The digest of the cache config.
    pub config_digest: Digest,
    /// The cache config, exactly as exported; matches `config_digest`.
    pub config: Bytes,
    /// The layer descriptors, in the manifest's order.
    pub layers: Vec<Layer>,
    /// The steps that made its records, as far as they are known; none of an
    /// export that an older layerd wrote.
    pub steps: Vec<Step>,
}

/// Which exports to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only of this ref.
    pub git_ref: Option<GitRef>,
    /// Only of this scope.
    pub scope: Option<Scope>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only newer than this one.
    pub after: Option<ExportId>,
    /// Only older than this one: the last of the page before.
    pub before: Option<ExportId>,
    /// At most so many; `None` for all.
    pub limit: Option<u32>,
}
