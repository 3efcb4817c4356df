//! Projects: what they have, what is settled for them, and flushing them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Office;
use super::admitted::{Admin, no_project};
use super::asked::{Ask, Json, Named, Nothing};
use super::limits::ProjectLimitsInForce;
use super::told::{Failure, Fault, Page, limit};
use crate::cache::flushes::Source;
use crate::cache::retention::ProjectLimits;
use crate::catalog::Filter;
use crate::catalog::ledger::{self, NewFlush, ProjectHead, ProjectSettings, RefHead, Settled};
use crate::place::{GitRef, ProjectId, Scope};

/// The longest note, in characters.
const MAX_NOTE: usize = 256;

/// A page of projects.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfProjects {
    /// Those behind this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    pub(super) after: Option<ProjectId>,
    /// At most so many; 100 unless given, 1000 at most.
    pub(super) limit: Option<u32>,
}

/// A page of refs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfRefs {
    /// Those behind this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<GitRef>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectDetails {
    /// What it has.
    #[serde(flatten)]
    pub head: ProjectHead,
    /// What is settled for it, if anything.
    pub settings: Option<Settings>,
    /// What counts for it, settled or not. A hub of before says nothing of it.
    #[serde(default)]
    #[schema(required = true)]
    pub limits: ProjectLimitsInForce,
}

impl ProjectDetails {
    /// Of a project for which the hub says that, where nothing is settled.
    pub fn of(head: ProjectHead, settings: Option<Settings>, hub: ProjectLimits) -> Self {
        let settled = settings.as_ref().map(|settings| ProjectLimits {
            max_bytes: settings.max_bytes,
            max_age: settings.max_age_seconds.map(Duration::from_secs),
        });
        Self {
            head,
            limits: ProjectLimitsInForce::of(settled.unwrap_or_default(), hub),
            settings,
        }
    }
}

/// What is settled for a project, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// The project.
    pub project: ProjectId,
    /// What its layers may take, in bytes; that of the hub unless given.
    pub max_bytes: Option<u64>,
    /// How old its exports may get unused, in seconds; that of the hub unless
    /// given.
    pub max_age_seconds: Option<u64>,
    /// What somebody wants others to know.
    pub note: String,
    /// When it was settled.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By whom.
    pub by: String,
}

impl From<Settled> for Settings {
    fn from(settled: Settled) -> Self {
        Self {
            project: settled.project,
            max_bytes: settled.settings.max_bytes,
            max_age_seconds: settled.settings.max_age.map(|age| age.as_secs()),
            note: settled.settings.note,
            at: settled.at,
            by: settled.by,
        }
    }
}

/// What is to be settled, in place of all that was.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSettings {
    /// What its layers may take, in bytes; that of the hub unless given.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// How old its exports may get unused, in seconds; that of the hub unless
    /// given.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
    /// What somebody wants others to know; at most 256 characters.
    #[serde(default)]
    pub note: String,
}

/// What of a project is to be flushed: all that is not narrowed down.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceToFlush {
    /// Only this ref.
    #[serde(default, rename = "ref")]
    pub git_ref: Option<GitRef>,
    /// Only this scope.
    #[serde(default)]
    pub scope: Option<Scope>,
}

/// What was flushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// Of this project.
    pub project: ProjectId,
    /// Only of this ref.
    #[serde(rename = "ref")]
    pub git_ref: Option<GitRef>,
    /// Only of this scope.
    pub scope: Option<Scope>,
    /// How many exports went.
    pub exports: u64,
}

/// Projects, by name.
#[utoipa::path(get, path = "/v1/projects", tag = "projects", operation_id = "list_projects",
    params(OfProjects),
    responses((status = OK, body = Page<ProjectHead>), (status = "default", body = Fault)))]
pub(super) async fn list(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfProjects>,
) -> Result<Answer<Page<ProjectHead>>, Failure> {
    let limit = limit(asked.limit)?;
    let heads = match admin.only() {
        None => office.catalog.projects(asked.after.as_ref(), limit).await?,
        Some(own) if asked.after.as_ref().is_none_or(|after| after < own) => {
            vec![head(&office, own).await?]
        }
        Some(_) => Vec::new(),
    };
    let limit = if admin.only().is_some() {
        u32::MAX
    } else {
        limit
    };
    let next = |head: &ProjectHead| head.project.to_string();
    Ok(Answer(Page::of(heads, limit, next)))
}

async fn head(office: &Office, project: &ProjectId) -> Result<ProjectHead, Failure> {
    let filter = Filter {
        project: Some(project.clone()),
        limit: Some(1),
        ..Filter::default()
    };
    let exports = office.catalog.count(&filter).await?;
    let newest = office.catalog.list(&filter).await?.into_iter().next();
    Ok(ProjectHead {
        project: project.clone(),
        exports,
        written: newest.as_ref().map(|newest| newest.time),
        newest: newest.map(|newest| newest.id),
    })
}

/// What is settled and says something.
async fn settled(office: &Office, project: &ProjectId) -> Result<Option<Settings>, Failure> {
    let settled = office.catalog.settings(project).await?;
    let settled = settled.filter(|settled| settled.settings != ProjectSettings::default());
    Ok(settled.map(Settings::from))
}

/// One project: its name is a segment of the path, with `/` as `%2F`.
#[utoipa::path(get, path = "/v1/projects/{project}", tag = "projects", operation_id = "get_project",
    params(("project" = String, Path, description = "A project, percent-encoded")),
    responses((status = OK, body = ProjectDetails), (status = "default", body = Fault)))]
pub(super) async fn one(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(project): Named<ProjectId>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<Answer<ProjectDetails>, Failure> {
    admin.check(&project)?;
    let head = head(&office, &project).await?;
    let settings = settled(&office, &project).await?;
    let said = office.cache.quotas().said(&project);
    let is_known = head.exports > 0 || settings.is_some() || said.is_some();
    if !is_known && admin.only().is_none() {
        return Err(no_project(&project));
    }
    let said = said.unwrap_or_default();
    let hub = ProjectLimits {
        max_age: said.max_age.or(office.max_age),
        ..said
    };
    Ok(Answer(ProjectDetails::of(head, settings, hub)))
}

/// What is settled for a project.
#[utoipa::path(get, path = "/v1/projects/{project}/settings", tag = "projects", operation_id = "get_settings",
    params(("project" = String, Path, description = "A project, percent-encoded")),
    responses((status = OK, body = Settings), (status = "default", body = Fault)))]
pub(super) async fn settings(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(project): Named<ProjectId>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<Answer<Settings>, Failure> {
    admin.check(&project)?;
    let settings = settled(&office, &project).await?;
    let nothing = || Failure::missing(format!("nothing is settled for project {project}"));
    // Of one that is not seen, `check` speaks: here it may be told apart.
    settings.map(Answer).ok_or_else(nothing)
}

/// Settles something for a project, in place of what was settled before. For
/// administrators of all projects.
#[utoipa::path(put, path = "/v1/projects/{project}/settings", tag = "projects", operation_id = "put_settings",
    params(("project" = String, Path, description = "A project, percent-encoded")),
    request_body = NewSettings,
    responses((status = OK, body = Settings), (status = "default", body = Fault)))]
pub(super) async fn settle(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(project): Named<ProjectId>,
    Ask(Nothing {}): Ask<Nothing>,
    Json(new): Json<NewSettings>,
) -> Result<Answer<Settings>, Failure> {
    admin.check(&project)?;
    admin.check_all()?;
    if new.note.chars().count() > MAX_NOTE {
        let text = format!("a note has at most {MAX_NOTE} characters");
        return Err(Failure::request(text));
    }
    let too_large =
        |number: Option<u64>| number.is_some_and(|number| i64::try_from(number).is_err());
    if too_large(new.max_bytes) || too_large(new.max_age_seconds) {
        return Err(Failure::request("that is more than there can be"));
    }
    // What is there already is settled, whatever it is called.
    if let Err(unwritable) = project.check_new()
        && head(&office, &project).await?.exports == 0
    {
        return Err(Failure::request(unwritable.to_string()));
    }
    let settings = ProjectSettings {
        max_bytes: new.max_bytes,
        max_age: new.max_age_seconds.map(Duration::from_secs),
        note: new.note,
    };
    let origin = admin.origin();
    office.catalog.settle(&project, &settings, &origin).await?;
    let settled = office.catalog.settings(&project).await?;
    let settled = settled.ok_or_else(|| Failure::conflict("somebody else settled it meanwhile"))?;
    Ok(Answer(settled.into()))
}

/// Settles nothing for a project any more: what counts for the hub counts for
/// it. For administrators of all projects.
#[utoipa::path(delete, path = "/v1/projects/{project}/settings", tag = "projects", operation_id = "delete_settings",
    params(("project" = String, Path, description = "A project, percent-encoded")),
    responses((status = NO_CONTENT), (status = "default", body = Fault)))]
pub(super) async fn unsettle(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(project): Named<ProjectId>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<StatusCode, Failure> {
    admin.check(&project)?;
    admin.check_all()?;
    if !ledger::is_known(&*office.catalog, &project).await? {
        return Err(no_project(&project));
    }
    if settled(&office, &project).await?.is_some() {
        let nothing = ProjectSettings::default();
        let origin = admin.origin();
        office.catalog.settle(&project, &nothing, &origin).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Refs of a project with exports, by name.
#[utoipa::path(get, path = "/v1/projects/{project}/refs", tag = "projects", operation_id = "list_refs",
    params(("project" = String, Path, description = "A project, percent-encoded"), OfRefs),
    responses((status = OK, body = Page<RefHead>), (status = "default", body = Fault)))]
pub(super) async fn refs(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(project): Named<ProjectId>,
    Ask(asked): Ask<OfRefs>,
) -> Result<Answer<Page<RefHead>>, Failure> {
    admin.check(&project)?;
    let limit = limit(asked.limit)?;
    let refs = office.catalog.refs(&project, asked.after.as_ref(), limit);
    let next = |head: &RefHead| head.git_ref.to_string();
    Ok(Answer(Page::of(refs.await?, limit, next)))
}

/// Takes exports out of the log, for readers all at once: the next build starts
/// clean, and is told who flushed and when.
#[utoipa::path(post, path = "/v1/projects/{project}/flush", tag = "projects", operation_id = "flush",
    params(("project" = String, Path, description = "A project, percent-encoded")),
    request_body = PlaceToFlush,
    responses((status = OK, body = Flushed), (status = "default", body = Fault)))]
pub(super) async fn flush(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Named(project): Named<ProjectId>,
    Ask(Nothing {}): Ask<Nothing>,
    Json(what): Json<PlaceToFlush>,
) -> Result<Answer<Flushed>, Failure> {
    admin.check(&project)?;
    if admin.only().is_none() && !ledger::is_known(&*office.catalog, &project).await? {
        return Err(no_project(&project));
    }
    let flush = NewFlush {
        project,
        git_ref: what.git_ref,
        scope: what.scope,
        origin: admin.origin(),
    };
    let exports = office.catalog.flush(&flush).await?;
    office.flushes.count(Source::Admin, exports);
    Ok(Answer(Flushed {
        project: flush.project,
        git_ref: flush.git_ref,
        scope: flush.scope,
        exports,
    }))
}
