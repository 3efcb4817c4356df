//! Projects and their refs, and what was settled for a project.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::AuditFilter;
use super::audit::{Action, Details, NewAudit, Origin};
use crate::catalog::{Catalog, CatalogError, ExportId, Filter};
use crate::place::{GitRef, ProjectId};

/// What can be settled for a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProjectSettings {
    /// What its layers may take, in bytes; that of the hub unless given.
    pub max_bytes: Option<u64>,
    /// How old its exports may get, to the second; that of the hub unless given.
    pub max_age: Option<Duration>,
    /// What somebody wants others to know; some hundred characters.
    pub note: String,
}

impl ProjectSettings {
    /// As it is audited.
    pub(in crate::catalog) fn audit(&self, project: &ProjectId, origin: &Origin) -> NewAudit {
        let seconds = self.max_age.map(|age| age.as_secs());
        let details = Details::default()
            .with("max_bytes", self.max_bytes)
            .with("max_age_seconds", seconds)
            .with("note", self.note.as_str());
        NewAudit {
            project: Some(project.clone()),
            details,
            ..NewAudit::new(origin, Action::Quota)
        }
    }
}

/// What was settled for a project, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// The project.
    pub project: ProjectId,
    /// What.
    #[serde(flatten)]
    pub settings: ProjectSettings,
    /// When.
    pub at: Timestamp,
    /// By whom, as people know them.
    pub by: String,
}

/// A project, and how much of it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectHead {
    /// Its name.
    pub project: ProjectId,
    /// Exports in the log.
    pub exports: u64,
    /// The newest of them.
    pub newest: Option<ExportId>,
    /// When that was written.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub written: Option<Timestamp>,
}

/// A ref, and how much of it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefHead {
    /// Its name.
    #[serde(rename = "ref")]
    pub git_ref: GitRef,
    /// Exports in the log.
    pub exports: u64,
    /// The newest of them.
    pub newest: ExportId,
    /// When that was written.
    #[schema(value_type = String, format = DateTime)]
    pub written: Timestamp,
}

/// Whether anything was ever kept or said of a project, as far as the log and
/// the ledger go back. A name that was mistyped is of none.
pub async fn is_known(catalog: &dyn Catalog, project: &ProjectId) -> Result<bool, CatalogError> {
    let newest = Filter {
        project: Some(project.clone()),
        limit: Some(1),
        ..Filter::default()
    };
    let last = AuditFilter {
        project: Some(project.clone()),
        limit: Some(1),
        ..AuditFilter::default()
    };
    Ok(!catalog.list(&newest).await?.is_empty()
        || catalog.settings(project).await?.is_some()
        || !catalog.audit(&last).await?.is_empty())
}
