//! Which exports go, and why. A pure function of the log and the limits.
//!
//! They go in this order: those that add nothing to a newer one, those of refs
//! that nobody writes to any more, those that nobody has used for too long, the
//! oldest of a project that is over its quota, and then, while all together have
//! too many bytes, the oldest of the project that is furthest over its share.
//!
//! An export of a default branch ages at a quarter of the pace, and the newest
//! one of each goes only when nothing else can. The exception is a project that
//! nobody uses any more: where it has nothing left but those, and all of them
//! have been of no use for too long even at that pace, they go too. Bytes are
//! those of distinct blobs: an export frees what no other one names.

mod ledger;
mod room;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use self::ledger::Ledger;
pub use self::room::{NoRoom, make_room};
use crate::access::RefPattern;
use crate::catalog::{ExportId, KeptExport, Kind};
use crate::place::{GitRef, Place, ProjectId};

/// How much longer exports of a default branch count as young.
const KEPT_LONGER: i64 = 4;

/// What may be kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of all that exports name.
    pub max_bytes: Option<u64>,
    /// How long an export may be of no use.
    pub max_age: Option<Duration>,
    /// How long nothing may be written to a ref that is no default branch.
    pub ref_idle: Option<Duration>,
    /// The default branches.
    pub keep: Vec<RefPattern>,
    /// What counts for one project, in place of what counts for all.
    pub projects: BTreeMap<ProjectId, ProjectLimits>,
}

/// What may be kept of one project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectLimits {
    /// Bytes of all that its exports name.
    pub max_bytes: Option<u64>,
    /// How long an export of it may be of no use.
    pub max_age: Option<Duration>,
}

impl Default for Limits {
    /// No limits; `main` and `master` are the default branches.
    fn default() -> Self {
        let keep = ["refs/heads/main", "refs/heads/master"];
        Self {
            max_bytes: None,
            max_age: None,
            ref_idle: None,
            keep: keep.iter().filter_map(|text| text.parse().ok()).collect(),
            projects: BTreeMap::new(),
        }
    }
}

impl Limits {
    fn max_age(&self, project: &ProjectId) -> Option<Duration> {
        let own = self.projects.get(project);
        own.and_then(|own| own.max_age).or(self.max_age)
    }

    fn quota(&self, project: &ProjectId) -> Option<u64> {
        self.projects.get(project).and_then(|own| own.max_bytes)
    }

    fn keeps(&self, git_ref: &GitRef) -> bool {
        self.keep.iter().any(|pattern| pattern.matches(git_ref))
    }
}

/// Why an export goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A newer one of its place has all that it has.
    Subsumed,
    /// Nothing was written to its ref for too long.
    IdleRef,
    /// It was of no use for too long.
    Expired,
    /// Its project is over its quota.
    Quota,
    /// All together are too large.
    Size,
}

/// An export that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Victim {
    /// Its number.
    pub id: ExportId,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// When it was last of use.
    pub last_use: Timestamp,
    /// Why it goes.
    pub reason: Reason,
    /// Bytes of blobs that nothing names once it and those before it are gone.
    pub frees: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Exports in the log.
    pub exports: u64,
    /// Blobs that they name.
    pub blobs: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The exports that go, in their order.
    pub victims: Vec<Victim>,
    /// What there was.
    pub before: Totals,
    /// What will be left.
    pub after: Totals,
}

/// The log, as far as it matters for what goes; built export by export.
///
/// It takes some 100 bytes for each export, four for each blob that an export
/// names, and at most some 120 for each distinct blob, and 20 more for each further
/// project that has it: 10 MB for 100,000 exports, measured, and 120 MB for a
/// million layers. A plan by which all of 100,000 go takes 30 MB more.
#[derive(Debug, Default)]
pub struct Log {
    ledger: Ledger,
    exports: Vec<Entry>,
    places: BTreeMap<Arc<Place>, Standing>,
}

/// An export.
#[derive(Debug)]
struct Entry {
    id: ExportId,
    place: Arc<Place>,
    last_use: Timestamp,
    blobs: Box<[u32]>,
    project: usize,
}

/// What is known of a place.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Its newest export, entries apart.
    newest: Option<ExportId>,
    /// When anything of it was written last.
    written: Timestamp,
    /// How many it has, entries apart.
    exports: usize,
}

impl Log {
    /// Takes an export in; newer ones come later.
    pub fn add(&mut self, export: &KeptExport) {
        let project = self.ledger.project(&export.place.project);
        let blobs = self.ledger.name(project, &export.blobs);
        let known = self.places.get_key_value(&export.place);
        let place = match known {
            Some((place, _)) => Arc::clone(place),
            None => Arc::new(export.place.clone()),
        };
        let standing = self.places.entry(Arc::clone(&place));
        let standing = standing.or_insert(Standing {
            newest: None,
            written: export.time,
            exports: 0,
        });
        if export.kind == Kind::Cache {
            standing.exports += 1;
            standing.newest = standing.newest.max(Some(export.id));
        }
        standing.written = standing.written.max(export.time);
        self.exports.push(Entry {
            id: export.id,
            place,
            last_use: export.last_use(),
            blobs,
            project,
        });
    }

    /// Bytes of the distinct blobs that the exports of a project name.
    pub fn bytes_of(&mut self, project: &ProjectId) -> u64 {
        let project = self.ledger.project(project);
        self.ledger.bytes_of(project)
    }

    /// The newest export of every place that has more than one.
    pub fn newest_of_many(&self) -> Vec<(Place, ExportId)> {
        let many = self.places.iter().filter(|(_, place)| place.exports > 1);
        many.filter_map(|(place, standing)| Some((Place::clone(place), standing.newest?)))
            .collect()
    }

    /// What goes, where `subsumed` add nothing to newer ones.
    pub fn plan(self, limits: &Limits, subsumed: &HashSet<ExportId>, now: Timestamp) -> Plan {
        let before = self.ledger.totals();
        let mut planning = Planning::new(self, limits, now);
        planning.subsumed(subsumed);
        planning.idle();
        planning.expired();
        planning.over_quota();
        planning.too_large();
        Plan {
            before,
            after: planning.ledger.totals(),
            victims: planning.victims,
        }
    }
}

/// What is left of the log while it is decided.
struct Planning<'a> {
    limits: &'a Limits,
    now: Timestamp,
    ledger: Ledger,
    places: BTreeMap<Arc<Place>, Standing>,
    /// Those that are left, by project: what goes last comes first.
    left: Vec<Vec<Entry>>,
    victims: Vec<Victim>,
}

impl<'a> Planning<'a> {
    fn new(log: Log, limits: &'a Limits, now: Timestamp) -> Self {
        let mut left: Vec<Vec<Entry>> = Vec::new();
        left.resize_with(log.ledger.projects(), Vec::new);
        for entry in log.exports {
            left[entry.project].push(entry);
        }
        let mut planning = Self {
            limits,
            now,
            ledger: log.ledger,
            places: log.places,
            left: Vec::new(),
            victims: Vec::new(),
        };
        for entries in &mut left {
            entries.sort_by_cached_key(|entry| {
                let (last, age) = planning.rank(entry);
                (Reverse(last), age, Reverse(entry.id))
            });
        }
        planning.left = left;
        planning
    }

    fn is_last_of_default(&self, entry: &Entry) -> bool {
        let standing = self.places.get(&entry.place);
        self.limits.keeps(&entry.place.git_ref)
            && standing.is_some_and(|standing| standing.newest == Some(entry.id))
    }

    /// Whether it goes only when nothing else can, and how old it is.
    fn rank(&self, entry: &Entry) -> (bool, i64) {
        let pace = match self.limits.keeps(&entry.place.git_ref) {
            true => KEPT_LONGER,
            false => 1,
        };
        let age = self.now.as_microsecond() - entry.last_use.as_microsecond();
        (self.is_last_of_default(entry), age.max(0) / pace)
    }

    /// All go that `goes` says, the oldest first, whatever their project.
    fn take_all(&mut self, reason: Reason, goes: impl Fn(&Self, &Entry) -> bool) {
        let mut taken = Vec::new();
        for project in 0..self.left.len() {
            let entries = std::mem::take(&mut self.left[project]);
            let (gone, left): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| goes(self, entry));
            self.left[project] = left;
            taken.extend(gone);
        }
        taken.sort_by_key(|entry| (self.is_last_of_default(entry), entry.last_use, entry.id));
        for entry in taken {
            self.take(entry, reason);
        }
    }

    fn take(&mut self, entry: Entry, reason: Reason) {
        let frees = self.ledger.release(entry.project, &entry.blobs);
        self.victims.push(Victim {
            id: entry.id,
            place: Place::clone(&entry.place),
            last_use: entry.last_use,
            reason,
            frees,
        });
    }

    fn subsumed(&mut self, subsumed: &HashSet<ExportId>) {
        self.take_all(Reason::Subsumed, |_, entry| subsumed.contains(&entry.id));
    }

    fn idle(&mut self) {
        let Some(idle) = self.limits.ref_idle else {
            return;
        };
        let mut written: BTreeMap<(&ProjectId, &GitRef), Timestamp> = BTreeMap::new();
        for (place, standing) in &self.places {
            let latest = written.entry((&place.project, &place.git_ref));
            let latest = latest.or_insert(standing.written);
            *latest = standing.written.max(*latest);
        }
        let quiet: BTreeSet<(ProjectId, GitRef)> = written
            .into_iter()
            .filter(|((_, git_ref), at)| {
                !self.limits.keeps(git_ref) && is_older(*at, idle, self.now)
            })
            .map(|((project, git_ref), _)| (project.clone(), git_ref.clone()))
            .collect();
        self.take_all(Reason::IdleRef, |_, entry| {
            quiet.contains(&(entry.place.project.clone(), entry.place.git_ref.clone()))
        });
    }

    fn expired(&mut self) {
        self.take_all(Reason::Expired, |planning, entry| {
            planning.is_expired(entry) && !planning.is_last_of_default(entry)
        });
        // Of a project that nobody uses any more, nothing is left.
        let abandoned = self.left.iter().map(|left| {
            left.iter()
                .all(|entry| self.is_last_of_default(entry) && self.is_expired(entry))
        });
        let abandoned: Vec<bool> = abandoned.collect();
        self.take_all(Reason::Expired, |_, entry| abandoned[entry.project]);
    }

    fn is_expired(&self, entry: &Entry) -> bool {
        let pace = match self.limits.keeps(&entry.place.git_ref) {
            true => KEPT_LONGER,
            false => 1,
        };
        let limit = self.limits.max_age(&entry.place.project);
        limit.is_some_and(|limit| {
            let limit = limit.saturating_mul(u32::try_from(pace).unwrap_or(1));
            is_older(entry.last_use, limit, self.now)
        })
    }

    fn over_quota(&mut self) {
        for (name, project) in self.ledger.by_name() {
            let Some(quota) = self.limits.quota(&name) else {
                continue;
            };
            while self.ledger.bytes_of(project) > quota {
                let Some(entry) = self.left[project].pop() else {
                    break;
                };
                self.take(entry, Reason::Quota);
            }
        }
    }

    fn too_large(&mut self) {
        let Some(limit) = self.limits.max_bytes else {
            return;
        };
        let names = self.ledger.by_name();
        while self.ledger.totals().bytes > limit {
            let Some(entry) = self.next_for_size(limit, &names) else {
                break;
            };
            self.take(entry, Reason::Size);
        }
    }

    /// The oldest export of the project that is furthest over its share; the
    /// last of a default branch only where there are no others in any project.
    fn next_for_size(&mut self, limit: u64, names: &[(ProjectId, usize)]) -> Option<Entry> {
        let sharing = self.left.iter().filter(|left| !left.is_empty()).count();
        let share = limit / (sharing.max(1) as u64);
        let mut furthest: Option<((bool, i128), usize)> = None;
        for (name, project) in names {
            let Some(oldest) = self.left[*project].last() else {
                continue;
            };
            let share = self
                .limits
                .quota(name)
                .map_or(share, |quota| quota.min(share));
            let over = i128::from(self.ledger.bytes_of(*project)) - i128::from(share);
            let rank = (!self.is_last_of_default(oldest), over);
            if furthest.is_none_or(|(other, _)| rank > other) {
                furthest = Some((rank, *project));
            }
        }
        self.left[furthest?.1].pop()
    }
}

/// Whether that time is further away than that.
fn is_older(time: Timestamp, than: Duration, now: Timestamp) -> bool {
    let age = now.as_microsecond() - time.as_microsecond();
    i128::from(age) > i128::try_from(than.as_micros()).unwrap_or(i128::MAX)
}
