//! `layerd cache savings`: what imports saved builds.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Serialize;

use super::display::{print, print_json, table};
use super::seen::Seen;
use crate::catalog::{Saving, SavingFilter};
use crate::place::{GitRef, ProjectId};
use crate::units::Spent;

/// List what imports saved builds: by project, git ref and day.
///
/// SAVED is how long the steps had run, where they ran, that builds took from
/// an import instead of running them: machine time, not waiting time, since
/// steps of one build run side by side. What a daemon had itself, since it ran
/// it or was given it before, does not count. OF IT ABOUT is the part that is
/// estimated, by the names of steps: of builds that exported nothing, and of
/// steps that an export leaves out (mode=min). FROM CACHE counts steps, as the
/// progress of each build did at its end: those that the daemon had included.
///
/// Builds count under the project and ref of their first import, on the day in
/// UTC on which they ended; builds that import nothing of layerd, and those that
/// were canceled, don't.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache savings --data-dir /var/lib/layerd
  layerd cache savings --project acme/shop --days 7
  layerd cache savings --days 0 --json | jq '.total.saved_ms / 3600000'")]
pub(super) struct SavingsArgs {
    #[command(flatten)]
    seen: Seen,

    /// Only of this project.
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,

    /// Only of this git ref; `main` is short for `refs/heads/main`.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Only of so many days, today included; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u32,

    /// Print JSON: the list `savings` and their `total`; times in milliseconds.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Listed {
    savings: Vec<Saving>,
    total: Total,
}

/// The sum of a list.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Total {
    builds: u64,
    steps: u64,
    cached: u64,
    saved_ms: u64,
    estimated_ms: u64,
}

impl Total {
    fn of(savings: &[Saving]) -> Self {
        savings.iter().fold(Self::default(), |sum, saving| Self {
            builds: sum.builds.saturating_add(saving.builds),
            steps: sum.steps.saturating_add(saving.steps),
            cached: sum.cached.saturating_add(saving.cached),
            saved_ms: sum.saved_ms.saturating_add(saving.saved_ms),
            estimated_ms: sum.estimated_ms.saturating_add(saving.estimated_ms),
        })
    }
}

pub(super) async fn run(args: SavingsArgs) -> anyhow::Result<ExitCode> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let since = match args.days.checked_sub(1) {
        None => None,
        Some(before) => {
            let before = Span::new().try_days(before);
            let since = before.and_then(|before| today.checked_sub(before));
            Some(since.context("--days goes back too far; 0 is for all")?)
        }
    };
    let cache = args.seen.open().await?;
    let filter = SavingFilter {
        project: args.project,
        git_ref: args.git_ref,
        since,
        ..SavingFilter::default()
    };
    let savings = cache.savings(&filter).await;
    cache.close().await;
    let savings = savings?;
    let total = Total::of(&savings);
    if args.json {
        print_json(&Listed { savings, total })?;
        return Ok(ExitCode::SUCCESS);
    }
    if savings.is_empty() {
        print("no builds that imported")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(
        [
            "DAY",
            "PROJECT",
            "REF",
            "BUILDS",
            "STEPS",
            "FROM CACHE",
            "SAVED",
            "OF IT ABOUT",
        ],
        &[3, 4, 5, 6, 7],
    );
    for saving in &savings {
        let place = [
            saving.day.to_string(),
            saving.project.to_string(),
            saving.git_ref.to_string(),
        ];
        rows.add_row(row(place, &Total::of(std::slice::from_ref(saving))));
    }
    rows.add_row(row(["total", "", ""].map(str::to_owned), &total));
    print(rows.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

fn row(place: [String; 3], sums: &Total) -> Vec<String> {
    let counts = [sums.builds, sums.steps, sums.cached].map(|count| count.to_string());
    let spent = |milliseconds| Spent(Duration::from_millis(milliseconds)).to_string();
    let times = [sums.saved_ms, sums.estimated_ms].map(spent);
    place.into_iter().chain(counts).chain(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_the_sum_of_all_rows() {
        let saving = |saved_ms| Saving {
            project: ProjectId::default(),
            git_ref: GitRef::default(),
            day: "2026-11-22".parse().unwrap(),
            builds: 1,
            steps: 16,
            cached: 14,
            saved_ms,
            estimated_ms: 1,
        };
        let total = Total {
            builds: 2,
            steps: 32,
            cached: 28,
            saved_ms: 70,
            estimated_ms: 2,
        };
        assert_eq!(Total::of(&[saving(30), saving(40)]), total);
        assert_eq!(Total::of(&[]), Total::default());
    }
}
