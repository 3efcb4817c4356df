//! How much each project had, day by day.

use async_trait::async_trait;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CatalogError, ProjectSize};
use crate::place::ProjectId;

/// Days of usage, and of savings, that are kept.
pub const KEPT_DAYS: i64 = 800;
/// Rows of one page, at most, whatever is asked for.
pub const MAX_ROWS: u32 = 1000;

/// What a catalog keeps of how much there was.
#[async_trait]
pub trait Usages {
    /// Keeps what projects have on that day, in place of what was kept of it
    /// before, and drops what is older than `KEPT_DAYS` then, of savings too.
    async fn keep_usage(&self, day: Date, sizes: &[ProjectSize]) -> Result<(), CatalogError>;

    /// What was kept, the newest day first, then by project; a page.
    async fn usage(&self, filter: &UsageFilter) -> Result<Vec<DayUsage>, CatalogError>;
}

/// What a project had on a day, as it was last looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayUsage {
    /// The day, in UTC.
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The project.
    pub project: ProjectId,
    /// Exports in the log.
    pub exports: u64,
    /// Bytes of the distinct blobs that they name.
    pub bytes: u64,
}

/// Which rows to list.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only of this day and later ones.
    pub since: Option<Date>,
    /// Only of days before this one.
    pub before: Option<Date>,
    /// Only behind this row: the last of the page before.
    pub after: Option<(Date, ProjectId)>,
    /// At most so many; a page unless given.
    pub limit: Option<u32>,
}

impl UsageFilter {
    pub(super) fn rows(&self) -> u32 {
        self.limit.map_or(MAX_ROWS, |limit| limit.min(MAX_ROWS))
    }
}

/// The first day that is kept.
pub(super) fn kept_from(day: Date) -> Date {
    day.checked_sub(jiff::Span::new().days(KEPT_DAYS))
        .unwrap_or(Date::MIN)
}
