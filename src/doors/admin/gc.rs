//! Collection, when somebody says so.
//!
//! It may take longer than anybody waits: so it is begun, goes on whoever has
//! gone, and its report is read later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Office;
use super::admitted::Admin;
use super::asked::{Ask, Json, Nothing};
use super::told::{Failure, Fault};
use crate::cache::CacheError;
use crate::cache::Swept;
use crate::cache::collecting::Collecting;
use crate::cache::retention::{Plan, Victim};
use crate::catalog::ledger::{Action, Details, NewAudit, Origin};
use crate::catalog::{Catalog, ExportId};
use crate::place::Place;

/// Exports that a report names.
const NAMED: usize = 1000;

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What runs, and what was.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GcStatus {
    /// Since when one runs that this hub was told to do.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub running_since: Option<Timestamp>,
    /// How the last one ended.
    pub last: Option<GcReport>,
}

/// How a collection ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GcReport {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub ended: Timestamp,
    /// Whether nothing was to be done.
    pub dry_run: bool,
    /// Who began it.
    pub by: String,
    /// What came of it, unless it failed.
    pub collected: Option<Collected>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What went, or would go.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    /// Exports in the log before.
    pub exports_before: u64,
    /// Exports left.
    pub exports_after: u64,
    /// Exports that went.
    pub exports_gone: u64,
    /// Bytes that nothing named any more then.
    pub frees_bytes: u64,
    /// Layers that left the store.
    pub layers: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// The first thousand of the exports, in the order in which they went.
    pub gone: Vec<Gone>,
}

/// An export that went.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Gone {
    /// Its number.
    pub id: ExportId,
    /// Where it stood.
    #[serde(flatten)]
    pub place: Place,
    /// When it was last of use.
    #[schema(value_type = String, format = DateTime)]
    pub last_use: Timestamp,
    /// Why: subsumed, idle-ref, expired, quota or size.
    pub reason: String,
    /// Bytes of blobs that nothing named once it was gone.
    pub frees: u64,
}

impl From<&Victim> for Gone {
    fn from(victim: &Victim) -> Self {
        let reason = serde_json::to_value(victim.reason);
        Self {
            id: victim.id,
            place: victim.place.clone(),
            last_use: victim.last_use,
            reason: reason
                .ok()
                .and_then(|reason| reason.as_str().map(str::to_owned))
                .unwrap_or_default(),
            frees: victim.frees,
        }
    }
}

impl Collected {
    fn new(plan: &Plan, swept: Swept) -> Self {
        Self {
            exports_before: plan.before.exports,
            exports_after: plan.after.exports,
            exports_gone: plan.victims.len() as u64,
            frees_bytes: plan.victims.iter().map(|victim| victim.frees).sum(),
            layers: swept.blobs,
            bytes: swept.bytes,
            gone: plan.victims.iter().take(NAMED).map(Gone::from).collect(),
        }
    }
}

/// Where collections are begun.
pub(super) struct Desk {
    collecting: Collecting,
    catalog: Arc<dyn Catalog>,
    status: Arc<Mutex<GcStatus>>,
}

impl Desk {
    pub(super) fn new(collecting: Collecting, catalog: Arc<dyn Catalog>) -> Self {
        Self {
            collecting,
            catalog,
            status: Arc::default(),
        }
    }

    fn status(&self) -> MutexGuard<'_, GcStatus> {
        locked(&self.status)
    }

    /// Begins one, unless one runs.
    fn begin(&self, request: GcRequest, origin: Origin) -> Result<GcStatus, Failure> {
        let began = Timestamp::now();
        let mut status = self.status();
        if let Some(since) = status.running_since {
            let text =
                format!("a collection runs since {since}: GET /v1/gc tells when it has ended");
            return Err(Failure::conflict(text));
        }
        status.running_since = Some(began);
        let now = status.clone();
        drop(status);
        let (collecting, catalog) = (self.collecting.clone(), Arc::clone(&self.catalog));
        let status = Arc::clone(&self.status);
        tokio::spawn(async move {
            let running = Running(status);
            let collected = collect(&collecting, request).await;
            if let (Ok(collected), false) = (&collected, request.dry_run) {
                let details = Details::default()
                    .with("exports", collected.exports_gone)
                    .with("layers", collected.layers)
                    .with("bytes", collected.bytes);
                let entry = NewAudit {
                    details,
                    ..NewAudit::new(&origin, Action::Evict)
                };
                if let Err(error) = catalog.note(&entry).await {
                    tracing::warn!(%error, "a collection is not in the audit log");
                }
            }
            let (collected, error) = match collected {
                Ok(collected) => (Some(collected), None),
                Err(error) => (None, Some(error.to_string())),
            };
            running.ended(GcReport {
                began,
                ended: Timestamp::now(),
                dry_run: request.dry_run,
                by: origin.actor.name().to_owned(),
                collected,
                error,
            });
        });
        Ok(now)
    }
}

fn locked(status: &Mutex<GcStatus>) -> MutexGuard<'_, GcStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that runs, until this is dropped.
struct Running(Arc<Mutex<GcStatus>>);

impl Running {
    fn ended(&self, report: GcReport) {
        let mut status = locked(&self.0);
        status.last = Some(report);
        status.running_since = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        locked(&self.0).running_since = None;
    }
}

async fn collect(collecting: &Collecting, request: GcRequest) -> Result<Collected, CacheError> {
    let Collecting { cache, limits } = collecting;
    if request.dry_run {
        let outlook = cache.outlook(limits).await?;
        return Ok(Collected::new(&outlook.plan, outlook.unnamed));
    }
    match cache.collect(limits).await? {
        Some(collected) => Ok(Collected::new(&collected.plan, collected.swept)),
        None => Err(CacheError::collecting()),
    }
}

/// Begins a collection with the limits of the hub, one at a time; it goes on in
/// the background. For administrators of all projects.
#[utoipa::path(post, path = "/v1/gc", tag = "gc", operation_id = "start_gc",
    request_body = GcRequest,
    responses((status = ACCEPTED, body = GcStatus), (status = "default", body = Fault)))]
pub(super) async fn start(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(Nothing {}): Ask<Nothing>,
    Json(request): Json<GcRequest>,
) -> Result<(StatusCode, Answer<GcStatus>), Failure> {
    admin.check_all()?;
    let status = office.gc.begin(request, admin.origin())?;
    Ok((StatusCode::ACCEPTED, Answer(status)))
}

/// What runs, and how the last one ended that this hub was told to do. For
/// administrators of all projects.
#[utoipa::path(get, path = "/v1/gc", tag = "gc", operation_id = "get_gc",
    responses((status = OK, body = GcStatus), (status = "default", body = Fault)))]
pub(super) async fn status(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<Answer<GcStatus>, Failure> {
    admin.check_all()?;
    Ok(Answer(office.gc.status().clone()))
}
