//! What is kept so that blobs which nothing names can be removed while others
//! store and name blobs.
//!
//! Whoever is about to store or to name a blob pins it *first*. Whoever is about
//! to remove one condemns it *first*. Either then looks whether the other was
//! there: a blob that is pinned is not condemned, and who pins one that is
//! condemned waits until it is acquitted, which is when it is gone. So of two
//! that come at once one always sees the other.
//!
//! A blob becomes a candidate when the last of something that named it goes: an
//! export for good, a possession or a pin at its end. What is a candidate and
//! named again just stops to be one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{CatalogError, ExportId, Kind};
use crate::blobs::{StoreId, Taken};
use crate::digest::Digest;
use crate::place::{GitRef, Place, ProjectId};

/// How long whoever removes blobs condemns them: what such a process left when
/// it was killed holds others up for so long.
pub const CONDEMNED: Duration = Duration::from_secs(30);

/// What a catalog does for those who remove what nothing names.
///
/// A blob is *named* by an export, one that has left the log while a lease keeps
/// it included, by a possession or by a pin. All times are of the catalog's own
/// clock.
#[async_trait]
pub trait Collecting {
    /// Names the blobs for `holder` until `ttl` has passed; a later call never
    /// shortens that. Gives those that are condemned right now: they may yet be
    /// removed, until this call no longer gives them. A crash of the machine may
    /// take a pin.
    async fn pin(
        &self,
        holder: PinHolder,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError>;

    /// Names the blobs no more for `holder`.
    async fn unpin(&self, holder: PinHolder, blobs: &[Digest]) -> Result<(), CatalogError>;

    /// Blobs that may be named no more and are due, at most `limit`.
    async fn candidates(&self, limit: u32) -> Result<Vec<Digest>, CatalogError>;

    /// Makes those of the blobs that nothing names candidates, due when `wait`
    /// has passed unless they are sooner. Gives those that are named by nothing.
    async fn nominate(&self, blobs: &[Digest], wait: Duration)
    -> Result<Vec<Digest>, CatalogError>;

    /// Condemns those of the blobs that nothing names and nobody else has
    /// condemned, and gives them. They may be removed until `ttl` has passed;
    /// after that they are condemned no more. Those that are named are no
    /// candidates any more.
    async fn condemn(&self, blobs: &[Digest], ttl: Duration) -> Result<Vec<Digest>, CatalogError>;

    /// Those of the blobs that are candidates are due when `wait` has passed, and
    /// not before: they could not be removed now.
    async fn postpone(&self, blobs: &[Digest], wait: Duration) -> Result<(), CatalogError>;

    /// The blobs are gone: neither condemned nor candidates any more.
    async fn acquit(&self, blobs: &[Digest]) -> Result<(), CatalogError>;

    /// Drops what has expired and what nobody can read any more, or as much of
    /// it as can be dropped within seconds.
    async fn purge(&self) -> Result<(), CatalogError>;

    /// Exports in the log with what they name, oldest first.
    async fn kept(&self, filter: &KeptFilter) -> Result<Vec<KeptExport>, CatalogError>;

    /// What the time is, by the catalog's own clock.
    async fn now(&self) -> Result<Timestamp, CatalogError>;

    /// Notes that these were of use at that time, or now if that is sooner: of
    /// every place of the project the newest export that names the blob, and of
    /// every scope of a ref the newest one. Of a ref, and of a blob that very many
    /// exports of the project name, only the newest hundreds are looked at. Within
    /// an hour of its last use, or of its own time, nothing is written of an
    /// export.
    async fn note_use(&self, uses: &Uses, at: Timestamp) -> Result<(), CatalogError>;

    /// Which blob store is the catalog's; none until it is bound to one.
    async fn store(&self) -> Result<Option<StoreId>, CatalogError>;

    /// Binds the catalog to a blob store; gives to which it is bound then, since
    /// of several that do so first one does.
    async fn bind(&self, store: StoreId, taken: Taken) -> Result<StoreId, CatalogError>;

    /// How many exports each project has in the log, and how many bytes all have
    /// that they name, each blob once; by name. What has left the log and is kept
    /// for a lease is nobody's any more.
    async fn project_sizes(&self) -> Result<Vec<ProjectSize>, CatalogError>;
}

/// Whose a pin is: a number that nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PinHolder(pub(super) i64);

impl PinHolder {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random_range(1..=i64::MAX))
    }
}

/// Which exports to give.
#[derive(Clone, Debug, Default)]
pub struct KeptFilter {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only newer than this one: the last of the page before.
    pub after: Option<ExportId>,
    /// At most so many.
    pub limit: u32,
}

/// An export, and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptExport {
    /// Its number.
    pub id: ExportId,
    /// Where it stands.
    pub place: Place,
    /// What it is of.
    pub kind: Kind,
    /// When it was written.
    pub time: Timestamp,
    /// When it was last of use, if it is known to be since.
    pub used: Option<Timestamp>,
    /// The blobs that it names, each once, with their sizes in bytes; in no order.
    pub blobs: Vec<(Digest, u64)>,
}

impl KeptExport {
    /// When it was last of use, being written included.
    pub fn last_use(&self) -> Timestamp {
        self.used
            .map_or(self.time, |used| std::cmp::max(used, self.time))
    }
}

/// What was of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Blobs that were read, by the project for which they were; none where that
    /// is not known, which stands for every project.
    pub blobs: BTreeMap<Option<ProjectId>, BTreeSet<Digest>>,
    /// Refs whose exports a build had hits of.
    pub refs: BTreeSet<(ProjectId, GitRef)>,
}

impl Uses {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.refs.is_empty()
    }
}

/// What a project has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectSize {
    /// The project.
    pub project: ProjectId,
    /// Exports in the log.
    pub exports: u64,
    /// Bytes of the distinct blobs that its exports name.
    pub bytes: u64,
}

/// Within how long of an export's last use nothing more is noted, in
/// microseconds.
pub(super) const HOUR: i64 = 3600 * 1_000_000;

/// Blobs whose exports are looked for at once.
pub(super) const AT_ONCE: usize = 100;

/// Exports of a project that are looked at for one of them, or for a ref.
pub(super) const MOST: i64 = 256;
