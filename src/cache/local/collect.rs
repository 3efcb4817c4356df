//! Collection: exports that are to go leave the log, and blobs that nothing
//! names leave the store.
//!
//! One process at a time does it, and any number may build meanwhile. Whatever
//! moment it is cut off at, the next one goes on: what has left the log is
//! purged from the catalog when no lease keeps it, its blobs are candidates
//! until they are gone, and what is condemned is so for half a minute only.

mod orphans;
mod sweep;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

pub use self::orphans::Orphans;
pub use self::sweep::Swept;
pub(in crate::cache) use self::sweep::{REMOVAL, in_time};
use super::LocalCache;
use super::open::Opened;
use super::subsume;
use crate::cache::CacheError;
use crate::cache::collecting::Eviction;
use crate::cache::retention::{Limits, Log, Plan, Reason, Victim};
use crate::catalog::ledger::{Action, Actor, Details, NewAudit, Origin};
use crate::catalog::{ExportId, KeptFilter, Ownership};
use crate::place::{Place, ProjectId};

/// What the right to collect is called.
const TASK: &str = "collect";
/// Exports read at a time; each may name ten thousand blobs.
pub(super) const PAGE: u32 = 64;
/// Exports that leave the log at a time.
const RETIRED: usize = 64;
/// Places whose newest export is compared with older ones in one collection.
const COMPARED: usize = 64;

/// What a collection did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Collected {
    /// What was decided. Leases may keep blobs of what went for a while.
    pub plan: Plan,
    /// What left the store.
    pub swept: Swept,
}

/// What a collection would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outlook {
    /// What would be decided.
    pub plan: Plan,
    /// Blobs that nothing names already, and their bytes.
    pub unnamed: Swept,
}

/// What is decided, and how it is done.
struct Decided {
    plan: Plan,
    /// Exports that others have all of, by the newest of their place.
    subsumed: Vec<(ExportId, Vec<ExportId>)>,
}

impl LocalCache {
    /// What a collection with these limits would do now.
    pub async fn outlook(&self, limits: &Limits) -> Result<Outlook, CacheError> {
        let opened = self.opener.opened().await?;
        let decided = self.decide(&opened, limits).await?;
        Ok(Outlook {
            plan: decided.plan,
            unnamed: sweep::due(&opened).await?,
        })
    }

    /// Collects; none where another process does.
    pub async fn collect(&self, limits: &Limits) -> Result<Option<Collected>, CacheError> {
        let opened = self.opener.opened_for_writing().await?;
        let Some(right) = opened.catalog.try_own(TASK).await? else {
            return Ok(None);
        };
        let metrics = self.watch.metrics.clone();
        metrics
            .measured(self.collect_with(&opened, &right, limits))
            .await
            .map(Some)
    }

    async fn collect_with(
        &self,
        opened: &Opened,
        right: &Ownership,
        limits: &Limits,
    ) -> Result<Collected, CacheError> {
        phase("begun");
        opened.bind().await?;
        if let Err(error) = self.note_uses().await {
            tracing::warn!(%error, "what was read lately is not noted");
        }
        opened.catalog.purge().await?;
        let decided = self.decide(opened, limits).await?;
        phase("decided");
        self.retire(opened, right, &decided).await?;
        phase("retired");
        opened.catalog.purge().await?;
        phase("purged");
        let swept = sweep::sweep(opened, right).await?;
        self.watch.metrics.freed(swept);
        self.measure(opened).await;
        Ok(Collected {
            plan: decided.plan,
            swept,
        })
    }

    /// Shows what projects have, now and then: it counts every layer that the
    /// log names.
    async fn measure(&self, opened: &Opened) {
        if !self.watch.metrics.projects_are_due() {
            return;
        }
        match opened.catalog.project_sizes().await {
            Ok(sizes) => self.watch.metrics.projects(sizes),
            Err(error) => tracing::warn!(%error, "what projects have could not be measured"),
        }
    }

    /// The limits, with what is settled for projects.
    pub(super) async fn limits(
        &self,
        opened: &Opened,
        limits: Limits,
    ) -> Result<Limits, CacheError> {
        let mut projects = self.watch.quotas().all(&*opened.catalog).await?;
        projects.extend(limits.projects);
        Ok(Limits { projects, ..limits })
    }

    async fn decide(&self, opened: &Opened, limits: &Limits) -> Result<Decided, CacheError> {
        let mut limits = self.limits(opened, limits.clone()).await?;
        if let Some(most) = &mut limits.max_bytes {
            // What is being uploaded is stored, too.
            let unfinished = opened.catalog.unfinished().await?;
            let bytes: u64 = unfinished.iter().map(|of_ref| of_ref.bytes).sum();
            *most = most.saturating_sub(bytes);
        }
        let now = opened.catalog.now().await?;
        let (mut log, mut after) = (Log::default(), None);
        loop {
            let filter = KeptFilter {
                after,
                limit: PAGE,
                ..KeptFilter::default()
            };
            let page = opened.catalog.kept(&filter).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id);
            page.iter().for_each(|export| log.add(export));
        }
        let subsumed = self.compare(opened, log.newest_of_many()).await?;
        let gone = subsumed.iter().flat_map(|(_, gone)| gone).copied();
        let gone: HashSet<ExportId> = gone.collect();
        let planning = tokio::task::spawn_blocking(move || log.plan(&limits, &gone, now));
        let plan = planning.await.map_err(|stopped| {
            CacheError::Unavailable(format!("deciding what goes was cut off: {stopped}"))
        })?;
        Ok(Decided { plan, subsumed })
    }

    /// What the newest exports of some places subsume: a comparison after a
    /// publication may have been cut off. Each is compared once by a process.
    async fn compare(
        &self,
        opened: &Opened,
        newest: Vec<(Place, ExportId)>,
    ) -> Result<Vec<(ExportId, Vec<ExportId>)>, CacheError> {
        let mut found = Vec::new();
        let new = newest
            .into_iter()
            .filter(|(_, id)| self.subsuming.is_new(*id));
        for (place, id) in new.take(COMPARED) {
            let subsumed = subsume::find(opened, &place, id).await?;
            match subsumed.is_empty() {
                true => self.subsuming.compared(id),
                false => found.push((id, subsumed)),
            }
        }
        Ok(found)
    }

    async fn retire(
        &self,
        opened: &Opened,
        right: &Ownership,
        decided: &Decided,
    ) -> Result<(), CacheError> {
        for (newest, gone) in &decided.subsumed {
            still_ours(right)?;
            let gone = opened.catalog.subsume(gone, *newest).await?;
            self.watch.metrics.evicted(Eviction::Subsumed, gone);
        }
        let victims = decided.plan.victims.iter();
        let victims: Vec<_> = victims
            .filter(|victim| victim.reason != Reason::Subsumed)
            .collect();
        for some in victims.chunks(RETIRED) {
            still_ours(right)?;
            let ids: Vec<ExportId> = some.iter().map(|victim| victim.id).collect();
            opened.catalog.retire(&ids).await?;
            for victim in some {
                self.watch.metrics.evicted(victim.reason.into(), 1);
                tracing::info!(export = %victim.id, place = %victim.place, reason = ?victim.reason, frees = victim.frees, "an export goes");
            }
            self.note_evicted(some.iter().copied()).await;
            phase("retiring");
        }
        Ok(())
    }
}

impl LocalCache {
    /// Has the audit log tell what went, an entry for each project.
    pub(super) async fn note_evicted(&self, victims: impl Iterator<Item = &Victim> + Send) {
        let mut gone = BTreeMap::<&ProjectId, Vec<&Victim>>::new();
        for victim in victims {
            gone.entry(&victim.place.project).or_default().push(victim);
        }
        for (project, victims) in gone {
            let freed: u64 = victims.iter().map(|victim| victim.frees).sum();
            let which: Vec<i64> = victims.iter().map(|victim| victim.id.0).collect();
            let entry = NewAudit {
                project: Some(project.clone()),
                details: Details::default()
                    .with("exports", which)
                    .with("bytes", freed),
                ..NewAudit::new(&Origin::here(Actor::Layerd), Action::Evict)
            };
            self.note(&entry).await;
        }
    }
}

fn still_ours(right: &Ownership) -> Result<(), CacheError> {
    match right.holds() {
        true => Ok(()),
        false => Err(CacheError::Unavailable(
            "another process may collect by now".to_owned(),
        )),
    }
}

/// Ends the process here where a test wants that.
#[cfg(debug_assertions)]
fn phase(name: &str) {
    if std::env::var("LAYERD_KILLED_WHEN").is_ok_and(|when| when == name) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .ok();
    }
}

#[cfg(not(debug_assertions))]
fn phase(_name: &str) {}
