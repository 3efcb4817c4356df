//! What was flushed, so that the next build can be told.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::Action;
use super::audit::{Details, NewAudit, Origin};
use crate::place::{GitRef, ProjectId, Scope};

/// For how long a flush is told.
pub const NOTED: Duration = Duration::from_secs(7 * 24 * 3600);

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
