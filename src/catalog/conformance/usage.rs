//! How much there was, day by day.

use jiff::ToSpan as _;

use super::*;
use crate::catalog::usage::{DayUsage, KEPT_DAYS, UsageFilter};

pub(in crate::catalog) async fn usage_is_kept_by_day_and_listed_in_pages(catalog: &dyn Catalog) {
    // Names that are known to the log.
    for project in ["a", "b", "c"] {
        let saving = Saving {
            project: project.parse().unwrap(),
            git_ref: Default::default(),
            day: "2026-11-21".parse().unwrap(),
            builds: 1,
            steps: 1,
            cached: 1,
            saved_ms: 1,
            estimated_ms: 0,
        };
        catalog.add_saving(&saving).await.unwrap();
    }
    let size = |project: &str, bytes| ProjectSize {
        project: project.parse().unwrap(),
        exports: 1,
        bytes,
    };
    let row = |day: &str, project: &str, bytes| DayUsage {
        day: day.parse().unwrap(),
        project: project.parse().unwrap(),
        exports: 1,
        bytes,
    };
    let listed = async |filter: UsageFilter| catalog.usage(&filter).await.unwrap();
    assert_eq!(listed(UsageFilter::default()).await, []);
    for (day, sizes) in [
        ("2026-11-21", &[size("a", 1), size("b", 2)][..]),
        ("2026-11-22", &[size("a", 3)]),
        ("2026-11-22", &[size("a", 4), size("c", 5)]),
        ("2026-11-22", &[]),
    ] {
        let day = day.parse().unwrap();
        catalog.keep_usage(day, sizes).await.unwrap();
    }
    let all = [
        row("2026-11-22", "a", 4),
        row("2026-11-22", "c", 5),
        row("2026-11-21", "a", 1),
        row("2026-11-21", "b", 2),
    ];
    assert_eq!(listed(UsageFilter::default()).await, all);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let filter = UsageFilter {
            after,
            limit: Some(1),
            ..UsageFilter::default()
        };
        let page = listed(filter).await;
        let Some(last) = page.last() else { break };
        after = Some((last.day, last.project.clone()));
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let of_a = UsageFilter {
        project: "a".parse().ok(),
        since: "2026-11-22".parse().ok(),
        ..UsageFilter::default()
    };
    assert_eq!(listed(of_a).await, all[..1]);
    let earlier = UsageFilter {
        before: "2026-11-22".parse().ok(),
        ..UsageFilter::default()
    };
    assert_eq!(listed(earlier).await, all[2..]);
    // What is old goes.
    let later = all[0].day.checked_add(KEPT_DAYS.days()).unwrap();
    catalog.keep_usage(later, &[]).await.unwrap();
    assert_eq!(listed(UsageFilter::default()).await, all[..2]);
}
