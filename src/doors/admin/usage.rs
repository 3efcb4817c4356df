//! How much there is and was, and what it saved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::{IntoParams, ToSchema};

use super::Office;
use super::admitted::{Admin, Unseen};
use super::asked::Ask;
use super::projects::OfProjects;
use super::told::{Failure, Fault, Page, limit};
use crate::catalog::{
    Catalog, CatalogError, DayUsage, ProjectSize, Saving, SavingFilter, UsageFilter,
};
use crate::place::{GitRef, ProjectId};

/// How old a measurement may be that is told.
const FRESH: Duration = Duration::from_secs(10);

/// What projects have, measured by one at a time and told to many: it counts
/// every layer that the log names.
#[derive(Default)]
pub(super) struct Sizes(Mutex<Option<(Instant, Arc<Vec<ProjectSize>>)>>);

impl Sizes {
    async fn now(&self, catalog: &dyn Catalog) -> Result<Arc<Vec<ProjectSize>>, CatalogError> {
        let mut kept = self.0.lock().await;
        if let Some((at, sizes)) = &*kept
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(sizes));
        }
        let sizes = Arc::new(catalog.project_sizes().await?);
        *kept = Some((Instant::now(), Arc::clone(&sizes)));
        Ok(sizes)
    }
}

/// What there is, as it was within the last ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Exports in the log of all projects that are seen.
    pub exports: u64,
    /// Bytes that they have. A blob that several projects have counts for each.
    pub bytes: u64,
    /// A page of those projects, by name.
    pub projects: Vec<ProjectUsage>,
    /// What to give as `after` for those behind them; not there on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a project has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectUsage {
    /// The project.
    pub project: ProjectId,
    /// Exports in the log.
    pub exports: u64,
    /// Bytes of the distinct blobs that its exports name.
    pub bytes: u64,
}

/// A page of days.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfDays {
    /// Only of this project.
    #[param(value_type = Option<String>)]
    project: Option<ProjectId>,
    /// Only of this day (YYYY-MM-DD, UTC) and later ones.
    #[param(value_type = Option<String>, format = Date)]
    since: Option<Date>,
    /// Those behind this one: `next` of the page before.
    after: Option<String>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// A page of savings.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfSavings {
    /// Only of this project.
    #[param(value_type = Option<String>)]
    project: Option<ProjectId>,
    /// Only of this ref.
    #[serde(rename = "ref")]
    #[param(value_type = Option<String>)]
    git_ref: Option<GitRef>,
    /// Only of this day (YYYY-MM-DD, UTC) and later ones.
    #[param(value_type = Option<String>, format = Date)]
    since: Option<Date>,
    /// Those behind this one: `next` of the page before.
    after: Option<String>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// What there is now.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", operation_id = "get_usage",
    params(OfProjects),
    responses((status = OK, body = Usage), (status = "default", body = Fault)))]
pub(super) async fn now(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfProjects>,
) -> Result<Answer<Usage>, Failure> {
    let limit = limit(asked.limit)?;
    let sizes = office.sizes.now(&*office.catalog).await?;
    let seen = || {
        let own = |size: &&ProjectSize| admin.only().is_none_or(|own| *own == size.project);
        sizes.iter().filter(own)
    };
    let behind = |size: &&ProjectSize| {
        asked
            .after
            .as_ref()
            .is_none_or(|after| size.project > *after)
    };
    let page = seen().filter(behind).take(limit as usize);
    let page = page.map(|size| ProjectUsage {
        project: size.project.clone(),
        exports: size.exports,
        bytes: size.bytes,
    });
    let page = Page::of(page.collect(), limit, |size: &ProjectUsage| {
        size.project.to_string()
    });
    Ok(Answer(Usage {
        exports: seen().map(|size| size.exports).sum(),
        bytes: seen().map(|size| size.bytes).sum(),
        projects: page.items,
        next: page.next,
    }))
}

/// What there was: one row for each day and project, the newest day first. Today's
/// are as they were within the last ten seconds.
#[utoipa::path(get, path = "/v1/usage/days", tag = "usage", operation_id = "list_usage_days",
    params(OfDays),
    responses((status = OK, body = Page<DayUsage>), (status = "default", body = Fault)))]
pub(super) async fn days(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfDays>,
) -> Result<Answer<Page<DayUsage>>, Failure> {
    let limit = limit(asked.limit)?;
    let after = asked.after.as_deref().map(|after| {
        let (day, project) = after.split_once(' ')?;
        Some((day.parse().ok()?, project.parse().ok()?))
    });
    let after = match after {
        Some(None) => return Err(no_cursor()),
        after => after.flatten(),
    };
    let rows = match admin.narrowed(asked.project) {
        Err(Unseen) => Vec::new(),
        Ok(project) => {
            let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
            let asked = UsageFilter {
                project,
                since: asked.since,
                before: None,
                after,
                limit: Some(limit),
            };
            let sizes = office.sizes.now(&*office.catalog).await?;
            let mut rows = present(&sizes, today, &asked);
            let filter = UsageFilter {
                before: Some(today),
                limit: Some(limit - u32::try_from(rows.len()).unwrap_or(limit)),
                ..asked
            };
            if filter.limit > Some(0) {
                rows.extend(office.catalog.usage(&filter).await?);
            }
            rows
        }
    };
    let next = |row: &DayUsage| format!("{} {}", row.day, row.project);
    Ok(Answer(Page::of(rows, limit, next)))
}

/// What imports saved builds: one row for each day, project and ref, the newest
/// day first.
#[utoipa::path(get, path = "/v1/savings", tag = "usage", operation_id = "list_savings",
    params(OfSavings),
    responses((status = OK, body = Page<Saving>), (status = "default", body = Fault)))]
pub(super) async fn savings(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfSavings>,
) -> Result<Answer<Page<Saving>>, Failure> {
    let limit = limit(asked.limit)?;
    let after = asked.after.as_deref().map(|after| {
        let mut parts = after.splitn(3, ' ');
        let day = parts.next()?.parse().ok()?;
        let project = parts.next()?.parse().ok()?;
        Some((day, project, parts.next()?.parse().ok()?))
    });
    let after = match after {
        Some(None) => return Err(no_cursor()),
        after => after.flatten(),
    };
    let rows = match admin.narrowed(asked.project) {
        Err(Unseen) => Vec::new(),
        Ok(project) => {
            let filter = SavingFilter {
                project,
                git_ref: asked.git_ref,
                since: asked.since,
                after,
                limit: Some(limit),
            };
            office.catalog.savings(&filter).await?
        }
    };
    // No project and no ref has a space.
    let next = |row: &Saving| format!("{} {} {}", row.day, row.project, row.git_ref);
    Ok(Answer(Page::of(rows, limit, next)))
}

/// The rows of today, which are measured when they are asked for: what is kept of
/// a day is so only now and then.
fn present(sizes: &[ProjectSize], today: Date, asked: &UsageFilter) -> Vec<DayUsage> {
    let is_asked = |size: &&ProjectSize| {
        let of_project = asked
            .project
            .as_ref()
            .is_none_or(|own| *own == size.project);
        let behind = asked.after.as_ref().is_none_or(|(day, project)| {
            *day > today || (*day == today && size.project > *project)
        });
        of_project && behind && asked.since.is_none_or(|since| since <= today)
    };
    let rows = sizes.iter().filter(is_asked).map(|size| DayUsage {
        day: today,
        project: size.project.clone(),
        exports: size.exports,
        bytes: size.bytes,
    });
    rows.take(asked.limit.map_or(usize::MAX, |limit| limit as usize))
        .collect()
}

fn no_cursor() -> Failure {
    Failure::request("after has to be `next` of the page before")
}
