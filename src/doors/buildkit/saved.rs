//! What the imports of a build saved it: added up when its progress ends, told
//! in it, counted and kept.
//!
//! Exports tell which results a build used and did not make, and the catalog
//! how long their steps had run. A build without an export, or one that exports
//! only its result, has its other steps looked up by name among what was served
//! to it: an estimate. What this daemon had itself is no saving: neither the
//! steps that it ran (their origin is its id) nor what was counted for it
//! before.

mod known;
mod reckon;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

pub use self::known::Known;
use self::reckon::{Saved, pair, reckon};
use super::Door;
use super::build::Build;
use super::daemon::Daemon;
use super::grpc::MessageBudget;
use super::metrics::{Basis, Fate};
use super::upstream::Link;
use crate::cache::{Cache, Saving, Want};
use crate::graph::Config;
use crate::place::{GitRef, ProjectId};
use crate::step::{Origin, Step, StepName};
use crate::units::counted;

/// How long the end of a build may wait for an estimate, or for its daemon's
/// id.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long keeping a saving may take; nobody waits for it.
const REPORT_LIMIT: Duration = Duration::from_secs(30);

/// What is noted of one build, until its progress ends.
#[derive(Default)]
pub struct Account {
    daemon: OnceLock<(Arc<Daemon>, Link, MessageBudget)>,
    wanted: OnceLock<Wanted>,
    /// The known steps of what it was given, which are being read.
    served: Mutex<Option<AbortOnDropHandle<Vec<Step>>>>,
    exported: Mutex<Exported>,
    settled: OnceCell<()>,
}

/// What the build asked for.
struct Wanted {
    project: ProjectId,
    git_ref: GitRef,
    projects: BTreeSet<ProjectId>,
    cache: Arc<dyn Cache>,
}

/// The steps of its exports.
#[derive(Clone, Default)]
struct Exported {
    ran: Vec<Step>,
    hits: Vec<Step>,
}

impl Account {
    /// The daemon is `link`'s; it is asked which one it is, meanwhile.
    pub fn begin(&self, door: &Arc<Door>, link: &Link) {
        let (daemon, budget) = (door.daemon.clone(), door.budget.clone());
        let asked = (daemon.clone(), link.clone(), budget.clone());
        if self.daemon.set(asked).is_ok() {
            let link = link.clone();
            tokio::spawn(async move { daemon.id(&link, &budget).await });
        }
    }

    /// The build imports what `wants` see of `cache`.
    pub fn want(&self, wants: &[Want], cache: &Arc<dyn Cache>) {
        if let Some(first) = wants.first() {
            let projects = wants.iter().map(|want| want.place.project.clone());
            self.wanted.get_or_init(|| Wanted {
                project: first.place.project.clone(),
                git_ref: first.place.git_ref.clone(),
                projects: projects.collect(),
                cache: Arc::clone(cache),
            });
        }
    }

    /// The build was given this cache config. Which of its steps are known is
    /// read meanwhile, so that the end of the build need not wait for it.
    pub fn serve(&self, config: &Bytes, cache: &Arc<dyn Cache>) {
        let Some(wanted) = self.wanted.get() else {
            return;
        };
        // A later one may be that of a build which shares the import.
        lock(&self.served).get_or_insert_with(|| {
            let (config, cache) = (config.clone(), Arc::clone(cache));
            let projects = wanted.projects.clone();
            let reading = async move {
                known_steps(config, projects, cache)
                    .await
                    .unwrap_or_else(|error| {
                        tracing::debug!(error, "what the build was saved can't be estimated");
                        Vec::new()
                    })
            };
            AbortOnDropHandle::new(tokio::spawn(reading.in_current_span()))
        });
    }

    /// Who runs the steps of this build.
    pub async fn origin(&self, builder: &str) -> Origin {
        Origin {
            builder: builder.to_owned(),
            daemon: self.daemon().await,
        }
    }

    /// An export of the build has these steps, of which it ran some.
    pub fn export(&self, ran: &[Step], all: &[Step]) {
        let made: BTreeSet<_> = ran.iter().map(result).collect();
        let hits = all.iter().filter(|step| !made.contains(&result(step)));
        let mut exported = lock(&self.exported);
        exported.ran.extend_from_slice(ran);
        exported.hits.extend(hits.cloned());
    }

    async fn daemon(&self) -> Option<String> {
        let (daemon, link, budget) = self.daemon.get()?;
        let asked = tokio::time::timeout(PATIENCE, daemon.id(link, budget));
        asked.await.ok().flatten()
    }

    /// The known steps of what was served, for an estimate; none where they
    /// can't be read in time.
    async fn served_steps(&self) -> Vec<Step> {
        let Some(reading) = lock(&self.served).take() else {
            return Vec::new();
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(steps) => steps.unwrap_or_default(),
            Err(_) => {
                tracing::debug!("what the build was saved can't be estimated in time");
                Vec::new()
            }
        }
    }
}

/// The steps of a config's results that exports of those projects have kept.
async fn known_steps(
    config: Bytes,
    projects: BTreeSet<ProjectId>,
    cache: Arc<dyn Cache>,
) -> Result<Vec<Step>, String> {
    let results = tokio::task::spawn_blocking(move || {
        let results = Config::parse(&config).map(|config| config.results());
        results.map(Vec::from_iter)
    });
    let results = results.await.map_err(|stopped| stopped.to_string())?;
    let results = results.map_err(|error| error.to_string())?;
    let mut steps = Vec::new();
    for project in &projects {
        let known = cache.steps(project, &results).await;
        steps.extend(known.map_err(|error| error.to_string())?);
    }
    Ok(steps)
}

/// Adds up, once for a build whose progress ends; within a moment, whatever the
/// cache does.
pub async fn settle(door: &Arc<Door>, build: &Build) {
    let account = &build.account;
    account
        .settled
        .get_or_init(|| add_up(door, build).instrument(build.span().clone()))
        .await;
}

async fn add_up(door: &Arc<Door>, build: &Build) {
    let account = &build.account;
    let steps = build.steps();
    if steps.is_empty() || !build.is_forwarded() {
        return;
    }
    let named = |wanted: fn(Fate) -> bool| -> Vec<StepName> {
        let of = steps.iter().filter(|(fate, _)| wanted(*fate));
        of.filter_map(|(_, name)| name.clone()).collect()
    };
    let cached = named(|fate| fate == Fate::Cached);
    let count = steps.iter().filter(|(fate, _)| *fate == Fate::Cached);
    let count = count.count();
    let exported = lock(&account.exported).clone();
    let paired = pair(cached.clone(), exported.hits);
    let daemon = account.daemon().await;
    let is_open = door.known.with(daemon.as_deref(), |had| {
        let mut unlisted = paired.unlisted.iter();
        unlisted.any(|name| !had.name(name))
    });
    let served = if is_open {
        account.served_steps().await
    } else {
        Vec::new()
    };
    let saved = door.known.with(daemon.as_deref(), |had| {
        let saved = reckon(&paired, &served, had);
        had.add(&exported.ran, &named(|fate| fate != Fate::Cached));
        had.add(&saved.steps, &cached);
        saved
    });
    let Some(wanted) = account.wanted.get() else {
        return;
    };
    build.tell(line(count, steps.len(), &saved));
    for (basis, seconds) in [
        (Basis::Recorded, saved.recorded),
        (Basis::Estimated, saved.estimated),
    ] {
        door.metrics.saved.add(basis, seconds);
    }
    report(door, build, wanted, (count, steps.len()), &saved);
}

/// Has it kept, which nobody waits for.
fn report(
    door: &Arc<Door>,
    build: &Build,
    wanted: &Wanted,
    (cached, steps): (usize, usize),
    saved: &Saved,
) {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let saving = Saving {
        project: wanted.project.clone(),
        git_ref: wanted.git_ref.clone(),
        day: Timestamp::now().to_zoned(TimeZone::UTC).date(),
        builds: 1,
        steps: steps as u64,
        cached: cached as u64,
        saved_ms: milliseconds(saved.recorded + saved.estimated),
        estimated_ms: milliseconds(saved.estimated),
    };
    let cache = Arc::clone(&wanted.cache);
    let keeping = async move {
        match tokio::time::timeout(REPORT_LIMIT, cache.report(&saving)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what the build was saved is not kept"),
            Err(_) => tracing::warn!("what the build was saved is not kept: it takes too long"),
        }
    };
    door.tasks.spawn(keeping.instrument(build.span().clone()));
}

/// What the user reads.
fn line(cached: usize, steps: usize, saved: &Saved) -> String {
    let told = format!("{cached} of {steps} steps from cache");
    if saved.steps.is_empty() {
        return told;
    }
    let about = if saved.estimated.is_zero() {
        ""
    } else {
        "about "
    };
    let builders = counted(saved.builders(), "builder");
    let seconds = (saved.recorded + saved.estimated).as_secs_f64();
    let seconds = if seconds < 10.0 {
        format!("{seconds:.1}")
    } else {
        format!("{seconds:.0}")
    };
    format!("{told}, from {builders}, {about}{seconds} s saved")
}

fn result(step: &Step) -> (&crate::digest::RecordDigest, Timestamp) {
    (&step.record, step.created_at)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_many_from_whom_and_how_long() {
        let step = |builder: &str| Step {
            record: "sha256:a".parse().unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            name: StepName::of("RUN make"),
            duration: Duration::from_secs(1),
            origin: Some(Origin {
                builder: builder.to_owned(),
                daemon: None,
            }),
        };
        let mut saved = Saved {
            recorded: Duration::from_millis(212_300),
            estimated: Duration::ZERO,
            steps: vec![step("a"), step("b"), step("a")],
        };
        assert_eq!(
            line(14, 16, &saved),
            "14 of 16 steps from cache, from 2 builders, 212 s saved"
        );
        saved.recorded = Duration::ZERO;
        saved.estimated = Duration::from_millis(2130);
        saved.steps.truncate(1);
        assert_eq!(
            line(1, 1, &saved),
            "1 of 1 steps from cache, from 1 builder, about 2.1 s saved"
        );
        assert_eq!(line(0, 16, &Saved::default()), "0 of 16 steps from cache");
    }
}
