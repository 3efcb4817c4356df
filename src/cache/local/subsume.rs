//! Exports that add nothing to a newer one of their place leave the log.
//!
//! Each publication is held against the few exports before it, one publication
//! at a time and after its build has been told that all is well: what fails
//! here, or is cut off, leaves an export in the log that the next publication
//! is held against again. Only an older export ever leaves for a newer one, so
//! that of two writers at once never both lose theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;

use super::open::Opened;
use super::pinning::Names;
use crate::cache::CacheError;
use crate::cache::descriptors::to_descriptor;
use crate::catalog::{CatalogError, Export, ExportId, Filter, Kind};
use crate::digest::{Digest, RecordDigest};
use crate::graph::{Descriptor, ExportSource, GraphError, Newer, Parsed};
use crate::place::Place;

/// Older exports of the place that one publication is held against.
const COMPARED: u32 = 16;
/// Publications that wait to be compared; one more is not.
const WAITING: usize = 64;
/// Exports of which it is remembered that they were compared.
const MAX_KNOWN: usize = 100_000;

/// How many exports have left the log for newer ones; clones count into the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Subsumed(Counter);

impl Subsumed {
    /// How many, until now.
    pub fn count(&self) -> u64 {
        self.0.get()
    }

    /// A new one, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let subsumed = Self::default();
        registry.register(
            "layerd_exports_subsumed",
            "Exports that left the log because a newer one of their place has all that they had",
            subsumed.0.clone(),
        );
        subsumed
    }
}

/// The comparisons of one process, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Subsuming {
    running: Mutex<JoinSet<()>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    subsumed: Subsumed,
    /// Exports that subsume nothing any more.
    compared: Mutex<BTreeSet<ExportId>>,
}

impl Subsuming {
    /// Counts what leaves in `subsumed`.
    pub(super) fn new(subsumed: Subsumed) -> Self {
        Self {
            subsumed,
            ..Self::default()
        }
    }

    /// Whether a collection has to compare this one.
    pub(super) fn is_new(&self, id: ExportId) -> bool {
        !self.known().contains(&id)
    }

    /// It has been compared.
    pub(super) fn compared(&self, id: ExportId) {
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.pop_first();
        }
        known.insert(id);
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<ExportId>> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A panic elsewhere has harmed nothing in there.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what was pinned for an export, and where that has `ended`, of
    /// what was uploaded for it.
    pub(super) fn let_go(&self, opened: Arc<Opened>, names: Names, ended: bool) {
        let letting_go = async move {
            match ended {
                true => names.let_go(&opened).await,
                false => names.give_up(&opened).await,
            }
        };
        self.running().spawn(letting_go);
    }

    /// Holds the export against older ones of its place, later.
    pub(super) fn begin(&self, opened: Arc<Opened>, place: Place, id: ExportId) {
        let mut running = self.running();
        while running.try_join_next().is_some() {}
        if running.len() >= WAITING {
            return;
        }
        let (turn, subsumed) = (Arc::clone(&self.turn), self.subsumed.clone());
        running.spawn(async move {
            let _turn = turn.lock().await;
            match subsume(&opened, &place, id).await {
                Ok(gone) => {
                    subsumed.0.inc_by(gone);
                }
                Err(error) => tracing::warn!(export = %id, %error, "older exports of the place were not compared with this one"),
            }
        });
    }
}

/// Takes what the export subsumes out of the log; how many.
async fn subsume(opened: &Opened, place: &Place, id: ExportId) -> Result<u64, CacheError> {
    let subsumed = find(opened, place, id).await?;
    if subsumed.is_empty() {
        return Ok(0);
    }
    let gone = opened.catalog.subsume(&subsumed, id).await?;
    let subsumed: Vec<i64> = subsumed.iter().map(|id| id.0).collect();
    tracing::info!(export = %id, ?subsumed, "older exports of the place add nothing to this one, and left the log");
    Ok(gone)
}

/// What the export subsumes.
pub(super) async fn find(
    opened: &Opened,
    place: &Place,
    id: ExportId,
) -> Result<Vec<ExportId>, CacheError> {
    let Some(newer) = opened.catalog.get(id).await? else {
        return Ok(Vec::new());
    };
    if !is_whole(opened, &newer).await? {
        return Ok(Vec::new());
    }
    let records = newer.head.records;
    let names = names(&newer);
    let newer = compare(newer, Newer::new).await?;
    let Ok(newer) = newer.map(Arc::new) else {
        return Ok(Vec::new());
    };
    let older = Filter {
        project: Some(place.project.clone()),
        git_ref: Some(place.git_ref.clone()),
        scope: Some(place.scope.clone()),
        kind: Some(Kind::Cache),
        before: Some(id),
        limit: Some(COMPARED),
        after: None,
    };
    let mut subsumed = Vec::new();
    for head in opened.catalog.list(&older).await? {
        if head.records > records {
            continue;
        }
        let older = match opened.catalog.get(head.id).await {
            Ok(Some(older)) => older,
            Ok(None) | Err(CatalogError::Corrupt { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        // A name that is known of a step stays known.
        let known = |(record, count)| names.get(&record).is_some_and(|known| *known >= count);
        if !self::names(&older).into_iter().all(known) {
            continue;
        }
        let newer = Arc::clone(&newer);
        if let Ok(true) = compare(older, move |source| newer.subsumes(source)).await? {
            subsumed.push(head.id);
        }
    }
    Ok(subsumed)
}

/// Whether every layer is there: else an older export may have the only result
/// that can be delivered.
async fn is_whole(opened: &Opened, export: &Export) -> Result<bool, CacheError> {
    let blobs: Vec<Digest> = export.layers.iter().map(|layer| layer.digest).collect();
    let found = opened.blobs.sizes(&blobs).await?;
    let mut layers = export.layers.iter().zip(found);
    Ok(layers.all(|(layer, found)| found == Some(layer.size)))
}

/// How many steps an export names of each record digest, which is not unique.
fn names(export: &Export) -> BTreeMap<RecordDigest, usize> {
    let mut names = BTreeMap::new();
    for step in &export.steps {
        *names.entry(step.record.clone()).or_default() += 1;
    }
    names
}

/// Does something with an export, which takes time. One that can't be read
/// subsumes none and is subsumed by none.
async fn compare<T: Send + 'static>(
    export: Export,
    with: impl FnOnce(&ExportSource<'_>) -> T + Send + 'static,
) -> Result<Result<T, GraphError>, CacheError> {
    let compared = tokio::task::spawn_blocking(move || {
        let config = Parsed::read(&export.config)?;
        let layers: Vec<Descriptor> = export.layers.into_iter().map(to_descriptor).collect();
        Ok(with(&ExportSource {
            id: export.head.id.0.unsigned_abs(),
            time: Some(export.head.time),
            config: &config,
            layers: &layers,
        }))
    });
    compared.await.map_err(|stopped| {
        CacheError::Unavailable(format!("comparing exports was cut off: {stopped}"))
    })
}
