//! What builds were saved, and how much of it is kept.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::place::{GitRef, ProjectId};

/// Refs that a project has on one day, each in a row of its own.
pub const MAX_REFS_A_DAY: u32 = 1000;
/// Under what the builds of all further refs are counted.
pub const OTHER_REFS: &str = "refs/layerd/others";

/// What builds were saved by their imports: of one build, or of all that a
/// project and ref had on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Saving {
    /// The project that they imported first.
    pub project: ProjectId,
    /// And the ref.
    #[serde(rename = "ref")]
    pub git_ref: GitRef,
    /// The day on which they ended, in UTC.
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The builds.
    pub builds: u64,
    /// Steps that they had.
    pub steps: u64,
    /// Those of them that came from a cache.
    pub cached: u64,
    /// How long steps had run elsewhere that did not run for them, in
    /// milliseconds.
    pub saved_ms: u64,
    /// What of `saved_ms` is an estimate.
    pub estimated_ms: u64,
}

/// Which savings to list.
#[derive(Clone, Debug, Default)]
pub struct SavingFilter {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only of this ref.
    pub git_ref: Option<GitRef>,
    /// Only of this day and later ones.
    pub since: Option<Date>,
    /// Only those behind this one: the last of the page before.
    pub after: Option<(Date, ProjectId, GitRef)>,
    /// At most so many; all unless given.
    pub limit: Option<u32>,
}
