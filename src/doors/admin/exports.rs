//! Exports: lists of them, and single ones.
//!
//! An export is kept as one document and read as one: a page of its layers or
//! steps costs as much as all of them, which an upload's limits bound, and few are
//! read at a time.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::Office;
use super::admitted::{Admin, Unseen};
use super::asked::{Ask, Named, Nothing};
use super::told::{Failure, Fault, Page, limit};
use crate::catalog::ledger::{Action, Details, NewAudit};
use crate::catalog::{Export, ExportHead, ExportId, Filter, Kind, Layer};
use crate::digest::{Digest, RecordDigest};
use crate::place::{GitRef, ProjectId, Scope};
use crate::step::{Origin, Step, StepName};

/// How long it may take to look whether layers are there.
const LOOK: Duration = Duration::from_secs(20);

/// A page of exports.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfExports {
    /// Only of this project.
    #[param(value_type = Option<String>)]
    project: Option<ProjectId>,
    /// Only of this ref.
    #[serde(rename = "ref")]
    #[param(value_type = Option<String>)]
    git_ref: Option<GitRef>,
    /// Only of this scope.
    #[param(value_type = Option<String>)]
    scope: Option<Scope>,
    /// Only of this kind: cache, or entry, which may be called gha.
    kind: Option<Kind>,
    /// Those behind this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<i64>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// A page of what one export has.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfParts {
    /// Those behind this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<u32>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// An export; its layers, its steps and its config are behind it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportDetails {
    /// What it is.
    pub export: ExportHead,
    /// The digest of its cache config, or of what is said of an entry.
    #[schema(value_type = String)]
    pub config: Digest,
}

/// A layer of an export, and whether it can be served.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LayerOf {
    /// What the manifest says of it.
    #[serde(flatten)]
    pub layer: Layer,
    /// Whether the store has it, with that size; not there where the store could
    /// not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// A step of a build.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StepOf {
    /// The record that it made a result of.
    #[schema(value_type = String)]
    pub record: RecordDigest,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// What the build that ran it called it.
    pub name: String,
    /// How long it ran there.
    pub duration_ms: u64,
    /// On which host it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// By which daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<String>,
}

impl From<&Step> for StepOf {
    fn from(step: &Step) -> Self {
        let origin = step.origin.as_ref();
        Self {
            record: step.record.clone(),
            created_at: step.created_at,
            name: step.name.to_string(),
            duration_ms: u64::try_from(step.duration.as_millis()).unwrap_or(u64::MAX),
            builder: origin.map(|origin| origin.builder.clone()),
            daemon: origin.and_then(|origin| origin.daemon.clone()),
        }
    }
}

impl From<StepOf> for Step {
    fn from(step: StepOf) -> Self {
        let daemon = step.daemon;
        Self {
            record: step.record,
            created_at: step.created_at,
            name: StepName::of(&step.name),
            duration: Duration::from_millis(step.duration_ms),
            origin: step.builder.map(|builder| Origin { builder, daemon }),
        }
    }
}

/// Exports, newest first.
#[utoipa::path(get, path = "/v1/exports", tag = "exports", operation_id = "list_exports",
    params(OfExports),
    responses((status = OK, body = Page<ExportHead>), (status = "default", body = Fault)))]
pub(super) async fn list(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfExports>,
) -> Result<Answer<Page<ExportHead>>, Failure> {
    let limit = limit(asked.limit)?;
    let exports = match admin.narrowed(asked.project) {
        Err(Unseen) => Vec::new(),
        Ok(project) => {
            let filter = Filter {
                project,
                git_ref: asked.git_ref,
                scope: asked.scope,
                kind: asked.kind,
                before: asked.after.map(ExportId),
                limit: Some(limit),
                after: None,
            };
            office.catalog.list(&filter).await?
        }
    };
    let next = |head: &ExportHead| head.id.to_string();
    Ok(Answer(Page::of(exports, limit, next)))
}

fn no_export(id: ExportId) -> Failure {
    Failure::missing(format!("there is no export {id}"))
}

/// Refuses an export that is not there or of another project. What it holds is
/// not read for that: nobody is to learn of it by the time that it takes.
async fn check(office: &Office, admin: &Admin, id: ExportId) -> Result<ExportHead, Failure> {
    let (Some(after), Some(before)) = (id.0.checked_sub(1), id.0.checked_add(1)) else {
        return Err(no_export(id));
    };
    let filter = Filter {
        project: admin.only().cloned(),
        after: Some(ExportId(after)),
        before: Some(ExportId(before)),
        limit: Some(1),
        ..Filter::default()
    };
    let found = office.catalog.list(&filter).await?;
    found.into_iter().next().ok_or_else(|| no_export(id))
}

/// All of one, and the right to hold so much.
async fn whole(
    office: &Office,
    admin: &Admin,
    id: ExportId,
) -> Result<(Export, OwnedSemaphorePermit), Failure> {
    check(office, admin, id).await?;
    let room = Arc::clone(&office.large).acquire_owned().await;
    let room = room.map_err(|_| Failure::busy())?;
    let export = office.catalog.get(id).await?;
    Ok((export.ok_or_else(|| no_export(id))?, room))
}

/// Keeps the right until the last byte is sent.
fn holding(mut response: Response, room: OwnedSemaphorePermit) -> Response {
    let kept: Arc<dyn Any + Send + Sync> = Arc::new(room);
    response.extensions_mut().insert(kept);
    response
}

/// One export.
#[utoipa::path(get, path = "/v1/exports/{id}", tag = "exports", operation_id = "get_export",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = OK, body = ExportDetails), (status = "default", body = Fault)))]
pub(super) async fn one(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(id): Named<ExportId>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<Answer<ExportDetails>, Failure> {
    let (export, _room) = whole(&office, &admin, id).await?;
    Ok(Answer(ExportDetails {
        export: export.head,
        config: export.config_digest,
    }))
}

/// The layer descriptors of an export, in the manifest's order, and whether the
/// layers are there. Each page reads the whole export.
#[utoipa::path(get, path = "/v1/exports/{id}/layers", tag = "exports", operation_id = "list_layers",
    params(("id" = i64, Path, description = "Its number"), OfParts),
    responses((status = OK, body = Page<LayerOf>), (status = "default", body = Fault)))]
pub(super) async fn layers(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(id): Named<ExportId>,
    Ask(asked): Ask<OfParts>,
) -> Result<Answer<Page<LayerOf>>, Failure> {
    let limit = limit(asked.limit)?;
    let (export, room) = whole(&office, &admin, id).await?;
    let page = part(export.layers, asked.after, limit);
    drop(room);
    let blobs: Vec<_> = page
        .items
        .iter()
        .map(|layer| (layer.digest, layer.size))
        .collect();
    let looked = tokio::time::timeout(LOOK, office.cache.are_there(&blobs)).await;
    let present = looked.ok().and_then(Result::ok);
    let layers = page.items.into_iter().enumerate();
    let items = layers.map(|(at, layer)| LayerOf {
        layer,
        present: present
            .as_ref()
            .and_then(|present| present.get(at).copied()),
    });
    Ok(Answer(Page {
        items: items.collect(),
        next: page.next,
    }))
}

/// The steps that made the records of an export, as far as they are known. Each
/// page reads the whole export.
#[utoipa::path(get, path = "/v1/exports/{id}/steps", tag = "exports", operation_id = "list_steps",
    params(("id" = i64, Path, description = "Its number"), OfParts),
    responses((status = OK, body = Page<StepOf>), (status = "default", body = Fault)))]
pub(super) async fn steps(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(id): Named<ExportId>,
    Ask(asked): Ask<OfParts>,
) -> Result<Answer<Page<StepOf>>, Failure> {
    let limit = limit(asked.limit)?;
    let (export, _room) = whole(&office, &admin, id).await?;
    let steps = export.steps.iter().map(StepOf::from).collect();
    Ok(Answer(part(steps, asked.after, limit)))
}

/// A page of a list that is kept as a whole.
fn part<T>(all: Vec<T>, after: Option<u32>, limit: u32) -> Page<T> {
    let after = after.unwrap_or(0);
    let items = all.into_iter().skip(after as usize);
    let items: Vec<T> = items.take(limit as usize).collect();
    let next = u64::from(after) + items.len() as u64;
    Page::of(items, limit, |_| next.to_string())
}

/// The cache config of an export, exactly as it was exported: what a graph is
/// drawn of.
#[utoipa::path(get, path = "/v1/exports/{id}/config", tag = "exports", operation_id = "get_config",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = OK, content_type = "application/json", body = Object), (status = "default", body = Fault)))]
pub(super) async fn config(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(id): Named<ExportId>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<Response, Failure> {
    let (export, room) = whole(&office, &admin, id).await?;
    let json = [(CONTENT_TYPE, "application/json")];
    Ok(holding((json, export.config).into_response(), room))
}

/// Takes one export out of the log.
#[utoipa::path(delete, path = "/v1/exports/{id}", tag = "exports", operation_id = "delete_export",
    params(("id" = i64, Path, description = "Its number")),
    responses((status = NO_CONTENT), (status = "default", body = Fault)))]
pub(super) async fn delete(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(id): Named<ExportId>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<StatusCode, Failure> {
    let head = check(&office, &admin, id).await?;
    if office.catalog.retire(&[id]).await? == 0 {
        return Err(no_export(id));
    }
    let entry = NewAudit {
        project: Some(head.place.project),
        git_ref: Some(head.place.git_ref),
        scope: Some(head.place.scope),
        details: Details::default()
            .with("export", id.0)
            .with("bytes", head.bytes),
        ..NewAudit::new(&admin.origin(), Action::Delete)
    };
    office.catalog.note(&entry).await?;
    Ok(StatusCode::NO_CONTENT)
}
