//! The unions that are kept: one for each set of exports that builds have seen
//! together, up to date with the log.
//!
//! The log only grows at its end, or loses exports. So a union that is kept is
//! brought up to date by what came after its last export. Where the count says
//! that something has left, it stays as it is for what newer exports have all
//! of, and is made anew for anything else. Bringing one up to date goes on when
//! whoever asked has given up: the next to ask finds it done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, StreamExt as _};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::open::Opened;
use super::served::LatelyServed;
use crate::blobs::Generation;
use crate::cache::CacheError;
use crate::cache::descriptors::to_descriptor;
use crate::cache::policy::Sight;
use crate::catalog::{CatalogError, Export, ExportHead, ExportId, Filter};
use crate::digest::Digest;
use crate::graph::{Descriptor, ExportSource, GraphError, Parsed, Refused, Union};
use crate::place::Place;

/// Unions that are kept; the one that nobody asked for for longest goes first.
const KEPT: usize = 256;
/// Records that all of them have taken in, as their exports count them; beyond
/// it idle ones go. A record takes some 300 bytes.
const MAX_KEPT: u64 = 2_000_000;
/// Records that one union takes in; of a log with more, the newest exports of
/// every ref count, and what is left out is counted.
const MAX_RECORDS: u64 = 1_000_000;
/// Records that are left of one that had more.
const TRIMMED: u64 = MAX_RECORDS / 4 * 3;
/// Exports read at a time.
const READ_AHEAD: usize = 4;

/// Every union that is kept.
#[derive(Debug, Default)]
pub(super) struct Unions(Mutex<HashMap<Vec<Sight>, Kept>>);

#[derive(Debug)]
struct Kept {
    united: Arc<Mutex<United>>,
    records: u64,
    asked: Instant,
}

/// What nobody was told of a union yet.
pub(super) struct News {
    /// Blobs that are not there.
    pub(super) missing: Vec<Digest>,
    /// Parts of exports that can't be used.
    pub(super) refused: u64,
}

/// The union of what some wants see.
#[derive(Debug, Default)]
pub(super) struct United {
    /// Not to be changed while somebody serves from it: cloned then.
    pub(super) union: Arc<Union>,
    /// The exports that are in it, or could not be read.
    pub(super) heads: BTreeMap<ExportId, ExportHead>,
    /// Those that could not be read.
    pub(super) unreadable: BTreeSet<ExportId>,
    /// Every blob that they name, and its size in bytes.
    pub(super) blobs: Arc<HashMap<Digest, u64>>,
    /// What was served of it lately.
    pub(super) lately: LatelyServed,
    /// Parts of exports that could not be used, and that nobody was told of.
    refused: u64,
    /// Blobs that were gone or of another size when the store was as it is in
    /// that generation.
    pub(super) gone: Option<(Generation, HashSet<Digest>)>,
    /// Blobs that somebody was told are missing.
    announced: HashSet<Digest>,
    /// Exports for which there was no room, and the records that they count.
    pub(super) trimmed: BTreeMap<ExportId, u64>,
    /// Records that were taken in, as their exports count them.
    taken: u64,
    /// By sight: how many exports it had, and the last.
    seen: Vec<(u64, Option<ExportId>)>,
}

impl Unions {
    /// The union of what `sights` see, up to date.
    pub(super) async fn of(
        &self,
        opened: &Arc<Opened>,
        sights: Vec<Sight>,
    ) -> Result<OwnedMutexGuard<United>, CacheError> {
        let united = self.kept(&sights).await;
        let mut united = united.lock_owned().await;
        let (opened, seen) = (Arc::clone(opened), sights.clone());
        let updated = tokio::spawn(async move {
            let updated = united.update(&opened, &seen).await;
            if updated.is_err() {
                // What it lacks is not known any more: to be made anew.
                *united = United::default();
            }
            updated.map(|()| united)
        });
        let united = updated.await.map_err(|stopped| cut_off(&stopped))??;
        self.weigh(&sights, united.taken).await;
        Ok(united)
    }

    /// Notes how large a union is, and drops idle others where all are too
    /// large together.
    async fn weigh(&self, sights: &[Sight], records: u64) {
        let mut kept = self.0.lock().await;
        if let Some(kept) = kept.get_mut(sights) {
            kept.records = records;
        }
        while kept.values().map(|kept| kept.records).sum::<u64>() > MAX_KEPT {
            let others = kept.iter().filter(|(other, _)| other.as_slice() != sights);
            let idle = others.min_by_key(|(_, kept)| kept.asked);
            let Some(idle) = idle.map(|(sights, _)| sights.clone()) else {
                return;
            };
            kept.remove(&idle);
        }
    }

    async fn kept(&self, sights: &[Sight]) -> Arc<Mutex<United>> {
        let mut kept = self.0.lock().await;
        if kept.len() >= KEPT && !kept.contains_key(sights) {
            let idle = kept.iter().min_by_key(|(_, kept)| kept.asked);
            let idle = idle.map(|(sights, _)| sights.clone());
            idle.map(|sights| kept.remove(&sights));
        }
        let asked = Instant::now();
        let kept = kept.entry(sights.to_vec()).or_insert_with(|| Kept {
            united: Arc::default(),
            records: 0,
            asked,
        });
        kept.asked = asked;
        Arc::clone(&kept.united)
    }
}

impl United {
    /// What is new, now that these blobs are found absent; it is told once.
    pub(super) fn news(&mut self, absent: HashSet<Digest>) -> News {
        let missing = absent.difference(&self.announced);
        let mut missing: Vec<Digest> = missing.copied().collect();
        missing.sort_unstable();
        self.announced = absent;
        News {
            missing,
            refused: std::mem::take(&mut self.refused),
        }
    }

    async fn update(&mut self, opened: &Opened, sights: &[Sight]) -> Result<(), CacheError> {
        self.seen.resize(sights.len(), (0, None));
        let mut new = BTreeMap::new();
        for (sight, seen) in sights.iter().zip(&mut self.seen) {
            let filter = Filter {
                after: seen.1,
                ..sight.filter()
            };
            let heads = opened.catalog.list(&filter).await?;
            let last = heads.first().map(|head| head.id).or(seen.1);
            // What came in meanwhile is not counted: it would stand for what has
            // left.
            let listed = Filter {
                before: last.map(|last| ExportId(last.0.saturating_add(1))),
                ..sight.filter()
            };
            let count = opened.catalog.count(&listed).await?;
            if count != seen.0 + heads.len() as u64 {
                // Something has left the log.
                return self.catch_up(opened, sights).await;
            }
            *seen = (count, last);
            let seen = heads.into_iter().filter(|head| sight.has(head));
            new.extend(seen.map(|head| (head.id, head)));
        }
        new.retain(|id, _| !self.heads.contains_key(id));
        let with = self.taken + new.values().map(|head| head.records).sum::<u64>();
        if with > MAX_RECORDS {
            return self.catch_up(opened, sights).await;
        }
        self.take_in(opened, new).await
    }

    /// Follows a log that exports have left. Those that others have all of may
    /// stay in the union: it is the same without them.
    async fn catch_up(&mut self, opened: &Opened, sights: &[Sight]) -> Result<(), CacheError> {
        let mut all = BTreeMap::new();
        self.seen.clear();
        for sight in sights {
            let heads = opened.catalog.list(&sight.filter()).await?;
            let last = heads.first().map(|head| head.id);
            self.seen.push((heads.len() as u64, last));
            let seen = heads.into_iter().filter(|head| sight.has(head));
            all.extend(seen.map(|head| (head.id, head)));
        }
        let gone = self.heads.keys().filter(|id| !all.contains_key(id));
        let gone: Vec<ExportId> = gone.copied().collect();
        let harmless = opened.catalog.subsumed(&gone).await?.len() == gone.len();
        let known = |id: &ExportId| self.heads.contains_key(id) || self.trimmed.contains_key(id);
        let new = || all.iter().filter(|(id, _)| !known(id));
        let with = self.taken + new().map(|(_, head)| head.records).sum::<u64>();
        if harmless && with <= MAX_RECORDS {
            let new = new().map(|(id, head)| (*id, head.clone())).collect();
            self.trimmed.retain(|id, _| all.contains_key(id));
            for id in &gone {
                self.heads.remove(id);
                self.unreadable.remove(id);
            }
            return self.take_in(opened, new).await;
        }
        self.rebuild(opened, all).await
    }

    async fn rebuild(
        &mut self,
        opened: &Opened,
        all: BTreeMap<ExportId, ExportHead>,
    ) -> Result<(), CacheError> {
        *self = Self {
            seen: std::mem::take(&mut self.seen),
            announced: std::mem::take(&mut self.announced),
            ..Self::default()
        };
        let mut records = 0;
        let (mut newest, mut trimmed) = (BTreeMap::new(), BTreeMap::new());
        for (id, head) in by_turns(all) {
            // One that is too large does not keep out what is older.
            if records + head.records <= TRIMMED {
                records += head.records;
                newest.insert(id, head);
            } else {
                trimmed.insert(id, head.records);
            }
        }
        self.trimmed = trimmed;
        self.take_in(opened, newest).await
    }

    /// Adds exports; one that can't be read is noted, and costs itself.
    async fn take_in(
        &mut self,
        opened: &Opened,
        new: BTreeMap<ExportId, ExportHead>,
    ) -> Result<(), CacheError> {
        let ids: Vec<ExportId> = new.keys().copied().collect();
        let mut exports = stream::iter(ids)
            .map(|id| async move { (id, opened.catalog.get(id).await) })
            .buffered(READ_AHEAD);
        let mut heads = new;
        while let Some((id, export)) = exports.next().await {
            let Some(head) = heads.remove(&id) else {
                continue;
            };
            match export {
                Ok(Some(export)) => match self.add(export).await? {
                    Ok(refused) => self.refused += refused.count(),
                    Err(error) => {
                        tracing::warn!(export = %id, %error, "the export is not used");
                        self.unreadable.insert(id);
                    }
                },
                Ok(None) => {
                    // It has left the log this moment: the next count tells.
                    continue;
                }
                Err(error @ CatalogError::Corrupt { .. }) => {
                    tracing::warn!(export = %id, %error, "the export can't be read: passed over");
                    self.unreadable.insert(id);
                }
                Err(error) => return Err(error.into()),
            }
            self.taken += head.records;
            self.heads.insert(id, head);
        }
        Ok(())
    }

    async fn add(&mut self, export: Export) -> Result<Result<Refused, GraphError>, CacheError> {
        let mut union = std::mem::take(&mut self.union);
        let mut blobs = std::mem::take(&mut self.blobs);
        let added = tokio::task::spawn_blocking(move || {
            let added = add(&mut union, &mut blobs, export);
            (union, blobs, added)
        });
        match added.await {
            Ok((union, blobs, added)) => {
                (self.union, self.blobs) = (union, blobs);
                self.gone = None;
                Ok(added)
            }
            Err(stopped) => {
                // What it had is lost, and is made anew by the next to ask.
                *self = Self::default();
                Err(cut_off(&stopped))
            }
        }
    }
}

/// The newest export of every ref and scope, then the next of each, and so on:
/// what a ref has last is not cut for what another had before.
fn by_turns(all: BTreeMap<ExportId, ExportHead>) -> Vec<(ExportId, ExportHead)> {
    let mut turns: HashMap<Place, usize> = HashMap::new();
    let newest_first = all.into_iter().rev();
    let mut turned: Vec<_> = newest_first
        .map(|(id, head)| {
            let turn = turns.entry(head.place.clone()).or_default();
            *turn += 1;
            (*turn, id, head)
        })
        .collect();
    turned.sort_by_key(|(turn, ..)| *turn);
    let turned = turned.into_iter();
    turned.map(|(_, id, head)| (id, head)).collect()
}

fn add(
    union: &mut Arc<Union>,
    blobs: &mut Arc<HashMap<Digest, u64>>,
    export: Export,
) -> Result<Refused, GraphError> {
    let config = Parsed::read(&export.config)?;
    let sizes = export.layers.iter().map(|layer| (layer.digest, layer.size));
    Arc::make_mut(blobs).extend(sizes);
    let layers: Vec<Descriptor> = export.layers.into_iter().map(to_descriptor).collect();
    let refused = Arc::make_mut(union).add(&ExportSource {
        id: export.head.id.0.unsigned_abs(),
        time: Some(export.head.time),
        config: &config,
        layers: &layers,
    });
    if refused.count() > 0 {
        tracing::info!(export = %export.head.id, ?refused, "parts of the export are not used");
    }
    Ok(refused)
}

fn cut_off(stopped: &tokio::task::JoinError) -> CacheError {
    CacheError::Unavailable(format!("uniting the exports was cut off: {stopped}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_a_ref_has_last_goes_before_what_another_had_earlier() {
        let head = |id, git_ref: &str| ExportHead {
            id: ExportId(id),
            time: Timestamp::UNIX_EPOCH,
            place: Place {
                project: "p".parse().unwrap(),
                git_ref: git_ref.parse().unwrap(),
                scope: "s".parse().unwrap(),
            },
            kind: Default::default(),
            entry: None,
            builder: "b".to_owned(),
            records: 1,
            layers: 0,
            bytes: 0,
        };
        let all = [
            (1, "quiet"),
            (2, "main"),
            (3, "busy"),
            (4, "busy"),
            (5, "busy"),
        ];
        let all = all.map(|(id, git_ref)| (ExportId(id), head(id, git_ref)));
        let turned = by_turns(BTreeMap::from(all));
        let turned: Vec<i64> = turned.into_iter().map(|(id, _)| id.0).collect();
        assert_eq!(turned, [5, 2, 1, 4, 3]);
    }
}
