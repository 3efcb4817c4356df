//! Quotas of projects, held while exports come in.
//!
//! An export that does not fit beside the older ones has the oldest of them go;
//! one that does not fit alone is refused, and so is an upload that no export
//! could name. Several processes that publish at once may together exceed a
//! quota for a moment: the next collection takes that back.

mod pending;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::pending::Pending;
use super::LocalCache;
use super::collect::PAGE;
use super::open::Opened;
use crate::access::RefPattern;
use crate::blobs::BlobError;
use crate::cache::CacheError;
use crate::cache::collecting::{Eviction, Metrics};
use crate::cache::quotas::Quotas;
use crate::cache::retention::{Limits, Log, NoRoom, Victim, make_room};
use crate::catalog::{ExportId, KeptFilter};
use crate::digest::Digest;
use crate::moment::Moment;
use crate::place::{GitRef, Place, ProjectId};
use crate::units::ByteSize;

/// How long what was looked up is believed.
const BELIEVED: Duration = Duration::from_secs(5);
/// Projects that are remembered.
const MAX_PROJECTS: usize = 10_000;
/// Refs of a project whose uploads are remembered.
const MAX_REFS: usize = 1_000;

/// The quotas of one process.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    quotas: Arc<Quotas>,
    /// The default branches.
    keep: Arc<[RefPattern]>,
    known: Arc<Mutex<HashMap<ProjectId, Known>>>,
    pub(super) metrics: Metrics,
}

/// What is known of a project.
#[derive(Debug, Default)]
struct Known {
    quota: Option<(Moment, Option<u64>)>,
    /// Bytes of its exports, at most.
    used: Option<(Moment, u64)>,
    /// Of each ref, so that none takes the room of another.
    pending: HashMap<GitRef, Arc<Pending>>,
    /// Held while an export makes room for itself.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Known {
    /// Those of a ref.
    fn pending_of(&mut self, git_ref: &GitRef) -> Arc<Pending> {
        if !self.pending.contains_key(git_ref) {
            let now = Moment::now();
            self.pending.retain(|_, pending| {
                pending.expire(now);
                pending.bytes() > 0
            });
            if self.pending.len() >= MAX_REFS {
                self.pending.clear();
            }
        }
        Arc::clone(self.pending.entry(git_ref.clone()).or_default())
    }

    fn named<'a>(&self, blobs: impl IntoIterator<Item = &'a Digest> + Clone) {
        for pending in self.pending.values() {
            pending.named(blobs.clone());
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new(
            Quotas::default(),
            Limits::default().keep,
            Metrics::default(),
        )
    }
}

impl Watch {
    pub(super) fn new(quotas: Quotas, keep: Vec<RefPattern>, metrics: Metrics) -> Self {
        Self {
            quotas: Arc::new(quotas),
            keep: keep.into(),
            known: Arc::default(),
            metrics,
        }
    }

    pub(super) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    pub(super) fn keep(&self) -> &[RefPattern] {
        &self.keep
    }

    async fn quota(&self, opened: &Opened, project: &ProjectId) -> Result<Option<u64>, CacheError> {
        let lately = self.known().get(project).and_then(|known| known.quota);
        if let Some((_, quota)) = lately.filter(|(at, _)| at.elapsed() < BELIEVED) {
            return Ok(quota);
        }
        let quota = self.quotas.of(&*opened.catalog, project).await?.max_bytes;
        self.note(project, |known| known.quota = Some((Moment::now(), quota)));
        Ok(quota)
    }

    fn note<T>(&self, project: &ProjectId, note: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known();
        if known.len() >= MAX_PROJECTS && !known.contains_key(project) {
            known.clear();
        }
        note(known.entry(project.clone()).or_default())
    }

    /// These are no uploads of their own any more.
    pub(super) fn forget(&self, project: &ProjectId, blobs: &[Digest]) {
        if let Some(known) = self.known().get_mut(project) {
            known.named(blobs);
        }
    }

    fn refused(&self, project: &ProjectId, quota: u64, needed: u64) -> String {
        self.metrics.refused();
        format!(
            "project {project} is at its quota of {}: with this export it would need {}, even \
             without older exports; raise the quota, or export less (mode=min)",
            ByteSize(quota),
            ByteSize(needed)
        )
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ProjectId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one project may upload.
pub(super) struct Allowance {
    watch: Watch,
    project: ProjectId,
    quota: u64,
    pending: Arc<Pending>,
    /// Bytes that others know of, at other hubs or before this one was started.
    elsewhere: u64,
    /// Bytes whose place an upload takes.
    replaced: u64,
}

impl Allowance {
    /// The same, where so many bytes of the ref are being uploaded, these
    /// included.
    pub(super) fn beside(self, elsewhere: u64) -> Self {
        Self { elsewhere, ..self }
    }

    /// The same, of what takes the place of so many bytes.
    pub(super) fn in_place_of(self, replaced: u64) -> Self {
        Self { replaced, ..self }
    }

    fn needed(&self, size: u64) -> u64 {
        let others = self.pending.bytes().max(self.elsewhere);
        others.saturating_sub(self.replaced).saturating_add(size)
    }

    /// Whether there is room for an upload of that size.
    pub(super) fn fits(&self, size: u64) -> bool {
        self.needed(size) <= self.quota
    }

    /// Whether an upload of that size can be of any use.
    pub(super) fn check(&self, size: u64) -> Result<(), BlobError> {
        let needed = self.needed(size);
        if needed <= self.quota {
            return Ok(());
        }
        self.pending.forgive(Moment::now());
        let refused = self.watch.refused(&self.project, self.quota, needed);
        Err(BlobError::Refused(refused))
    }

    pub(super) fn uploaded(&self, digest: Digest, size: u64) {
        self.pending.add(digest, size, Moment::now());
    }
}

/// Room that an export has, until it is in the log.
pub(super) struct Room {
    _turn: tokio::sync::OwnedMutexGuard<()>,
    at: Moment,
    /// Bytes of the project with the export, at most.
    used: u64,
    /// What has to go for it.
    victims: Vec<Victim>,
}

impl LocalCache {
    /// What an export to `place` may upload; no limit where there is no quota.
    pub(super) async fn allowance(
        &self,
        opened: &Opened,
        place: &Place,
    ) -> Result<Option<Allowance>, CacheError> {
        let quota = self.watch.quota(opened, &place.project).await?;
        let Some(quota) = quota else { return Ok(None) };
        let project = place.project.clone();
        let pending = self
            .watch
            .note(&project, |known| known.pending_of(&place.git_ref));
        pending.expire(Moment::now());
        Ok(Some(Allowance {
            watch: self.watch.clone(),
            project,
            quota,
            pending,
            elsewhere: 0,
            replaced: 0,
        }))
    }

    /// What has to go so that one more export that names `sizes` fits; nothing
    /// goes before [`Self::settle`].
    pub(super) async fn make_room(
        &self,
        opened: &Opened,
        place: &Place,
        sizes: &BTreeMap<Digest, u64>,
    ) -> Result<Option<Room>, CacheError> {
        let project = &place.project;
        let Some(quota) = self.watch.quota(opened, project).await? else {
            return Ok(None);
        };
        let refused = |needed| CacheError::Exhausted(self.watch.refused(project, quota, needed));
        let incoming: u64 = sizes.values().sum();
        if incoming > quota {
            return Err(refused(incoming));
        }
        let turn = self.watch.note(project, |known| Arc::clone(&known.turn));
        let turn = turn.lock_owned().await;
        let lately = self.watch.known().get(project).and_then(|known| known.used);
        let lately = lately.filter(|(at, _)| at.elapsed() < BELIEVED);
        let (used, victims) = match lately {
            Some((_, used)) if used.saturating_add(incoming) <= quota => (used, Vec::new()),
            _ => self
                .victims(opened, place, sizes, quota)
                .await?
                .map_err(|NoRoom { needed }| refused(needed))?,
        };
        Ok(Some(Room {
            _turn: turn,
            at: lately.map_or_else(Moment::now, |(at, _)| at),
            used: used.saturating_add(incoming),
            victims,
        }))
    }

    /// The export is in the log: what it takes the room of goes. What can't go
    /// now is left to the next collection.
    pub(super) async fn settle(
        &self,
        opened: &Opened,
        place: &Place,
        sizes: &BTreeMap<Digest, u64>,
        room: Room,
    ) {
        let ids: Vec<ExportId> = room.victims.iter().map(|victim| victim.id).collect();
        let mut used = Some((room.at, room.used));
        if !ids.is_empty() {
            match opened.catalog.retire(&ids).await {
                Ok(gone) => {
                    self.watch.metrics.evicted(Eviction::Quota, gone);
                    self.note_evicted(room.victims.iter()).await;
                    tracing::info!(project = %place.project, exports = ?ids, "older exports go for a newer one: the project is at its quota");
                }
                Err(error) => {
                    used = None;
                    tracing::warn!(project = %place.project, exports = ?ids, %error, "older exports that are to go for a newer one stay for now");
                }
            }
        }
        self.watch.note(&place.project, |known| {
            known.used = used;
            known.named(sizes.keys());
        });
    }

    /// How many bytes the project has without those that go, at most; and those.
    async fn victims(
        &self,
        opened: &Opened,
        place: &Place,
        sizes: &BTreeMap<Digest, u64>,
        quota: u64,
    ) -> Result<Result<(u64, Vec<Victim>), NoRoom>, CacheError> {
        let (mut log, mut after) = (Log::default(), None);
        loop {
            let filter = KeptFilter {
                project: Some(place.project.clone()),
                after,
                limit: PAGE,
            };
            let page = opened.catalog.kept(&filter).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id);
            page.iter().for_each(|export| log.add(export));
        }
        let now = opened.catalog.now().await?;
        let limits = Limits {
            keep: self.watch.keep().to_vec(),
            ..Limits::default()
        };
        let new: Vec<(Digest, u64)> = sizes.clone().into_iter().collect();
        let at = place.clone();
        let deciding = tokio::task::spawn_blocking(move || {
            let used = log.bytes_of(&at.project);
            let room = make_room(log, (&at, &new), quota, &limits, now);
            (used, room)
        });
        let (used, room) = deciding.await.map_err(|stopped| {
            CacheError::Unavailable(format!("making room was cut off: {stopped}"))
        })?;
        let victims = match room {
            Ok(victims) => victims,
            Err(no_room) => return Ok(Err(no_room)),
        };
        let freed: u64 = victims.iter().map(|victim| victim.frees).sum();
        Ok(Ok((used.saturating_sub(freed), victims)))
    }
}
