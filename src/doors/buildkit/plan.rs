//! What one build gets: its exports as stores that wait to be written, its
//! imports as the one store that it may read.
//!
//! Whatever is wrong with the cache leaves an entry out, with a line in the
//! build's progress; a mistake in what the user wrote is an error, and so is a
//! fault of an export that was asked for with `ignore-error=false`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::Door;
use super::attributes::{Attributes, ExportEntry, ImportEntry, InvalidAttribute};
use super::build::{Build, export_vertex};
use super::content::{Asked, ExportStore, Store};
use super::metrics::{Carrier, ExportCarrier, ExportOutcome, ImportOutcome};
use super::rewrite::{Entry, SolveRequest};
use super::served::{ServedImport, cut, flushed, missing};
use super::stores::Stores;
use super::upstream::Link;
use crate::cache::backends::Backend;
use crate::cache::{Cache, Documents, Flushed, Form, Import, Lease, Limits, LookedUp, Want};
use crate::units::Age;

/// How long a build waits for the store. BuildKit's gateway gives up on a
/// build that it doesn't hear of within three seconds.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// How much longer that may take once the build has something to export.
const LATER: Duration = Duration::from_millis(2500);
/// How long a cache may keep a build waiting in all, and how long a look-up has
/// at least.
const LOOK_UP: Duration = Duration::from_secs(5);
const LEAST: Duration = Duration::from_secs(1);
/// Entries of ours that one build may have, each way.
const MAX_ENTRIES: usize = 64;
/// What BuildKit reads of a manifest or a config over a session, in bytes.
const MAX_DOCUMENT: usize = 1 << 20;
/// Why an entry is left out when the build has no session.
const NO_SESSION: &str = "this build has no session to carry it";

/// The exports of one build; their stores close when this is dropped.
pub struct Exports {
    stores: Arc<Stores>,
    planned: Vec<(String, Entry)>,
}

impl Exports {
    /// No exports.
    pub fn none(door: &Door) -> Self {
        Self {
            stores: door.stores.clone(),
            planned: Vec::new(),
        }
    }

    /// Opens a store for every export of ours that `wanted` lists.
    pub async fn plan(
        door: &Door,
        build: &Arc<Build>,
        wanted: &SolveRequest,
        live: bool,
    ) -> Result<Self, Status> {
        let mut exports = Self::none(door);
        let ours: Vec<&Entry> = wanted
            .exports
            .iter()
            .filter(|entry| entry.is_ours())
            .collect();
        bounded(ours.len())?;
        let parsed = ours
            .into_iter()
            .map(|written| ExportEntry::parse(&written.attributes, &door.defaults));
        let parsed: Vec<ExportEntry> = parsed.collect::<Result<_, _>>().map_err(invalid)?;
        // All at once: however many there are, the build waits no longer.
        let asking = parsed.iter().map(|export| backend(door, export, live));
        let answers = futures::future::join_all(asking).await;
        for (export, answer) in parsed.into_iter().zip(answers) {
            match answer {
                Ok(opening) => exports.open(door, build, wanted, export, opening),
                Err(why) if export.strict => {
                    door.metrics
                        .exports
                        .count((ExportCarrier::Session, ExportOutcome::Failed));
                    return Err(Status::failed_precondition(format!(
                        "cache can't be exported (ignore-error=false): {why}"
                    )));
                }
                Err(why) => {
                    door.metrics
                        .exports
                        .count((ExportCarrier::Session, ExportOutcome::Failed));
                    build.warn(format!("cache not exported to {}: {why}", export.place));
                }
            }
        }
        Ok(exports)
    }

    /// What buildkitd gets in place of what the user wrote.
    pub fn entries(&self) -> Vec<Entry> {
        self.planned
            .iter()
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Those of them that are neither published nor failed.
    pub fn untried(&self) -> Vec<Entry> {
        let untried = self.planned.iter().filter(|(id, _)| {
            let store = self.stores.get(id);
            matches!(store.as_deref(), Some(Store::Export(store)) if store.is_untried())
        });
        untried.map(|(_, entry)| entry.clone()).collect()
    }

    fn open(
        &mut self,
        door: &Door,
        build: &Arc<Build>,
        wanted: &SolveRequest,
        export: ExportEntry,
        opening: Opening,
    ) {
        let title = format!("layerd: exporting cache to {}", export.place);
        let vertex = export_vertex(&wanted.session, self.planned.len());
        build.titles().insert(vertex.to_string(), title);

        let store = ExportStore::new(
            export.place,
            door.builder.clone(),
            opening.backend.cache().clone(),
            build.clone(),
            vertex,
            door.metrics.export(),
            opening.lease,
        );
        let store = match opening.asked {
            None => store,
            Some(asked) => store.once(asked, LATER),
        };
        let id = door.stores.open(Store::Export(store));
        let mut attributes = export.passed_on;
        attributes.extend(attribute("dest", &id));
        attributes.extend(attribute(
            "ignore-error",
            if export.strict { "false" } else { "true" },
        ));
        attributes.extend(attribute("oci-mediatypes", "true"));
        attributes.extend(attribute("image-manifest", "true"));
        self.planned.push((
            id,
            Entry {
                kind: "local".to_owned(),
                attributes,
            },
        ));
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        self.planned
            .iter()
            .for_each(|(id, _)| self.stores.close(id));
    }
}

/// An export that can be begun.
struct Opening {
    backend: Backend,
    /// Whether it is taken, where that has no answer yet.
    asked: Option<Asked>,
    lease: Lease,
}

/// Where an export goes, or why it can't even be begun.
async fn backend(door: &Door, export: &ExportEntry, live: bool) -> Result<Opening, String> {
    let resolved = door.caches.resolve(&export.address, export.token.as_ref());
    let backend = resolved.map_err(|error| error.to_string())?;
    if !live {
        return Err(NO_SESSION.to_owned());
    }
    let asked = Asked::of(backend.cache().clone(), export.place.clone());
    let (answer, lease) = tokio::join!(
        asked.within(STORE_LIMIT),
        leased(backend.cache().clone(), STORE_LIMIT)
    );
    let asked = match answer {
        Some(Ok(())) => None,
        Some(Err(error)) => return Err(error.to_string()),
        None => Some(asked),
    };
    Ok(Opening {
        backend,
        asked,
        lease,
    })
}

/// A lease of what is there now. One that is not given within `limit` is still
/// waited for, beside the build.
async fn leased(cache: Arc<dyn Cache>, limit: Duration) -> Lease {
    let (tell, told) = oneshot::channel();
    let keeping = tokio::spawn(async move {
        let _lease = cache.lease().await;
        let _ = tell.send(());
        std::future::pending::<()>().await;
    });
    let keeping = AbortOnDropHandle::new(keeping);
    let _ = tokio::time::timeout(limit, told).await;
    Lease::of(Some(Arc::new(keeping)))
}

/// The one import that all of a build's `imports` become; decided by whoever
/// asks first.
pub async fn import(
    door: &Door,
    link: &Link,
    build: &Arc<Build>,
    imports: &[Entry],
    live: bool,
) -> Result<Option<Arc<ServedImport>>, Status> {
    let ours: Vec<Entry> = imports
        .iter()
        .filter(|entry| entry.is_ours())
        .cloned()
        .collect();
    if ours.is_empty() {
        return Ok(None);
    }
    bounded(ours.len())?;
    let decided = build
        .import
        .get_or_try_init(|| decide(door, link, build, &ours, live))
        .await;
    decided.cloned().map_err(invalid)
}

async fn decide(
    door: &Door,
    link: &Link,
    build: &Arc<Build>,
    ours: &[Entry],
    live: bool,
) -> Result<Option<Arc<ServedImport>>, InvalidAttribute> {
    let now = Timestamp::now();
    let mut seen: Option<(Backend, Vec<Want>)> = None;
    let mut timeout = None;
    for entry in ours {
        let entry = ImportEntry::parse(&entry.attributes, &door.defaults, now)?;
        timeout = [timeout, entry.timeout].into_iter().flatten().min();
        let resolved = door.caches.resolve(&entry.address, entry.token.as_ref());
        match (resolved, &mut seen) {
            (Err(error), _) => build.warn(format!("cache not imported: {error}")),
            (Ok(backend), None) => seen = Some((backend, vec![entry.want])),
            (Ok(backend), Some((first, wants))) if backend == *first => wants.push(entry.want),
            (Ok(_), Some(_)) => build.warn(format!(
                "cache not imported from {}: a build imports from one hub, by one token, and an entry before names another",
                entry.want.place
            )),
        }
    }
    // A cache that has kept the build waiting already has the less time now.
    if let Some(waited) = build.waited.get() {
        let rest = LOOK_UP.saturating_sub(*waited).max(LEAST);
        timeout = Some(timeout.unwrap_or(rest).min(rest));
    }
    let Some((backend, wants)) = seen else {
        door.metrics
            .imports
            .count((Carrier::Session, ImportOutcome::Failed));
        door.left_out.remember(&build.id, ours);
        return Ok(None);
    };
    build.account.want(&wants, backend.cache());
    if let Some(pull) = door.pull.as_ref() {
        let reached = pull.is_reached(link).await;
        if reached || pull.forced {
            if !reached {
                if build.has_imported() {
                    door.metrics
                        .imports
                        .count((Carrier::Pull, ImportOutcome::Failed));
                }
                build.warn(format!(
                    "imports are pulled from {} (--import-carrier pull), which buildkitd did not reach when that was tried: name an address that it reaches with --pull-advertise",
                    pull.advertised
                ));
            }
            let pulled = door
                .imports
                .by_pull(pull, (&backend, wants), timeout, ours, door, build);
            return Ok(Some(pulled));
        }
        build.tell(format!(
            "importing over the session, which loads more than is needed: buildkitd does not reach {} (--pull-advertise)",
            pull.advertised
        ));
    }
    let import = if live {
        look_up(
            door,
            build,
            (&backend, &wants),
            timeout.unwrap_or(STORE_LIMIT).min(STORE_LIMIT),
        )
        .await
    } else {
        build.warn(format!("cache not imported: {NO_SESSION}"));
        Err(ImportOutcome::Failed)
    };
    let outcome = import.as_ref().err().copied();
    door.metrics
        .imports
        .count((Carrier::Session, outcome.unwrap_or(ImportOutcome::Served)));
    let Ok(import) = import else {
        door.left_out.remember(&build.id, ours);
        return Ok(None);
    };
    Ok(Some(
        door.imports.by_session(import, ours, &backend, build, now),
    ))
}

/// What the cache has for `wants` within `limit`, or what became of them
/// instead; whatever it hasn't is said.
async fn look_up(
    door: &Door,
    build: &Arc<Build>,
    (backend, wants): (&Backend, &[Want]),
    limit: Duration,
) -> Result<Import, ImportOutcome> {
    let limits = Limits {
        records: door.max_graph_records,
        form: Form::Parts {
            max_bytes: MAX_DOCUMENT,
        },
    };
    let looking = backend.cache().look_up(wants, &limits);
    let import = match tokio::time::timeout(limit, looking).await {
        Ok(Ok(LookedUp::Import(import))) => *import,
        Ok(Ok(LookedUp::Nothing(flushed))) => {
            build.tell(nothing_for(wants, flushed.as_ref(), Timestamp::now()));
            return Err(ImportOutcome::Empty);
        }
        Ok(Err(error)) => {
            build.warn(format!("cache not imported: {error}"));
            return Err(ImportOutcome::Failed);
        }
        Err(_) => {
            build.warn(format!(
                "cache not imported: the look-up took longer than {} s",
                shown(limit)
            ));
            return Err(ImportOutcome::Failed);
        }
    };
    if let Documents::Parts { config, .. } = &import.documents {
        build.account.serve(&config.bytes, backend.cache());
    }
    if let Some(missing) = missing(&import) {
        build.warn(missing);
    }
    if let Some(flushed) = flushed(&import, Timestamp::now()) {
        build.tell(flushed);
    }
    if let Some(cut) = cut(&import) {
        build.tell(cut);
    }
    Ok(import)
}

/// Seconds, as people are told them.
pub fn shown(limit: Duration) -> f32 {
    (limit.as_secs_f32() * 10.0).round() / 10.0
}

/// What a build is told that finds nothing, and why, where somebody has flushed
/// it.
pub fn nothing_for(wants: &[Want], flushed: Option<&Flushed>, now: Timestamp) -> String {
    let Some(first) = wants.first() else {
        return "no cache yet".to_owned();
    };
    let age = if first.not_before.is_some() {
        " that is new enough"
    } else {
        ""
    };
    let more = if wants.len() > 1 {
        format!(", nor for {} more", wants.len() - 1)
    } else {
        String::new()
    };
    let place = &first.place;
    match flushed {
        None => format!("no cache yet{age} for {place}{more}"),
        Some(Flushed { at, by }) => {
            let ago = now.duration_since(*at).try_into().unwrap_or_default();
            format!(
                "cache flushed {} by {by}: none yet since for {place}{more}",
                Age(ago)
            )
        }
    }
}

fn attribute(key: &str, value: &str) -> Attributes {
    Attributes::from([(key.to_owned(), value.to_owned())])
}

fn bounded(entries: usize) -> Result<(), Status> {
    if entries > MAX_ENTRIES {
        return Err(Status::invalid_argument(format!(
            "{entries} cache entries of layerd in one build; at most {MAX_ENTRIES}"
        )));
    }
    Ok(())
}

fn invalid(error: InvalidAttribute) -> Status {
    Status::invalid_argument(error.to_string())
}
