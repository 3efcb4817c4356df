//! What was flushed, so that the next build can be told.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::Action;
use super::audit::{Details, NewAudit, Origin};
use crate::catalog::CatalogError;
use crate::place::{GitRef, ProjectId, Scope};

/// For how long a flush is told.
pub const NOTED: Duration = Duration::from_secs(7 * 24 * 3600);

/// For how long it is kept: an export may wait for as long as a flush is told,
/// and its build began before.
pub(in crate::catalog) const KEPT: Duration = Duration::from_secs(8 * 24 * 3600);

/// Exports that are to leave the log, and who says so.
#[derive(Clone, Debug)]
pub struct NewFlush {
    /// Of this project.
    pub project: ProjectId,
    /// Only of this ref.
    pub git_ref: Option<GitRef>,
    /// Only of this scope.
    pub scope: Option<Scope>,
    /// Who says so.
    pub origin: Origin,
}

impl NewFlush {
    /// As it is audited, when so many exports went.
    pub(in crate::catalog) fn audit(&self, exports: u64) -> NewAudit {
        NewAudit {
            project: Some(self.project.clone()),
            git_ref: self.git_ref.clone(),
            scope: self.scope.clone(),
            details: Details::default().with("exports", exports),
            ..NewAudit::new(&self.origin, Action::Flush)
        }
    }
}

/// A flush that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlushNote {
    /// Of this project.
    pub project: ProjectId,
    /// Only of this ref.
    #[serde(rename = "ref")]
    pub git_ref: Option<GitRef>,
    /// Only of this scope.
    pub scope: Option<Scope>,
    /// When.
    pub at: Timestamp,
    /// By whom, as people know them.
    pub by: String,
    /// How many exports went.
    pub exports: u64,
}

/// The error of an export that would bring back what was flushed.
pub(in crate::catalog) fn flushed(
    project: &ProjectId,
    (git_ref, scope): (Option<GitRef>, Option<Scope>),
    by: String,
    ago: Duration,
) -> CatalogError {
    let what = match (git_ref, scope) {
        (None, None) => format!("project {project}"),
        (Some(git_ref), None) => format!("{git_ref} of project {project}"),
        (None, Some(scope)) => format!("scope {scope} of project {project}"),
        (Some(git_ref), Some(scope)) => format!("scope {scope} of {git_ref} of project {project}"),
    };
    CatalogError::Flushed { what, by, ago }
}
