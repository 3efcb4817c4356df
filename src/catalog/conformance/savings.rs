//! What builds were saved.

use jiff::ToSpan as _;

use super::*;
use crate::catalog::usage::KEPT_DAYS;

fn one_build(git_ref: &str) -> Saving {
    Saving {
        project: "p".parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        day: "2026-11-22".parse().unwrap(),
        builds: 1,
        steps: 2,
        cached: 1,
        saved_ms: 40,
        estimated_ms: 4,
    }
}

async fn all(catalog: &dyn Catalog) -> Vec<Saving> {
    catalog.savings(&SavingFilter::default()).await.unwrap()
}

pub(in crate::catalog) async fn sums_of_savings_stay_the_largest_there_is(catalog: &dyn Catalog) {
    const MOST: u64 = i64::MAX as u64;
    let huge = Saving {
        builds: u64::MAX,
        steps: MOST,
        cached: MOST - 1,
        saved_ms: MOST - 40,
        ..one_build("main")
    };
    catalog.add_saving(&huge).await.unwrap();
    for _ in 0..2 {
        catalog.add_saving(&one_build("main")).await.unwrap();
    }
    let sum = Saving {
        builds: MOST,
        steps: MOST,
        cached: MOST,
        saved_ms: MOST,
        estimated_ms: 12,
        ..huge.clone()
    };
    assert_eq!(all(catalog).await, std::slice::from_ref(&sum));
    catalog.add_saving(&huge).await.unwrap();
    let sum = Saving {
        estimated_ms: 16,
        ..sum
    };
    assert_eq!(all(catalog).await, [sum]);
}

pub(in crate::catalog) async fn a_day_has_so_many_refs_and_the_others_count_together(
    catalog: &dyn Catalog,
) {
    catalog.add_saving(&one_build("first")).await.unwrap();
    for n in 1..MAX_REFS_A_DAY + 5 {
        let saving = one_build(&format!("b{n}"));
        catalog.add_saving(&saving).await.unwrap();
    }
    catalog.add_saving(&one_build("first")).await.unwrap();
    let kept = all(catalog).await;
    assert_eq!(kept.len(), MAX_REFS_A_DAY as usize + 1);
    let builds = |git_ref: &str| {
        let git_ref = git_ref.parse().unwrap();
        let found = kept.iter().find(|saving| saving.git_ref == git_ref);
        found.map(|saving| saving.builds)
    };
    assert_eq!(builds("first"), Some(2));
    assert_eq!(builds(OTHER_REFS), Some(5));
    // Neither another day nor another project has those.
    let next = Saving {
        day: "2026-11-23".parse().unwrap(),
        ..one_build("new")
    };
    let other = Saving {
        project: "q".parse().unwrap(),
        ..one_build("new")
    };
    for saving in [&next, &other] {
        catalog.add_saving(saving).await.unwrap();
        assert!(all(catalog).await.contains(saving));
    }
}

pub(in crate::catalog) async fn savings_of_long_ago_go_with_the_usage_of_then(
    catalog: &dyn Catalog,
) {
    let old = one_build("main");
    let new = Saving {
        day: old.day.tomorrow().unwrap(),
        ..old.clone()
    };
    catalog.add_saving(&old).await.unwrap();
    catalog.add_saving(&new).await.unwrap();
    let day = |days: i64| new.day.checked_add(days.days()).unwrap();
    catalog.keep_usage(day(KEPT_DAYS - 1), &[]).await.unwrap();
    assert_eq!(all(catalog).await, [new.clone(), old]);
    catalog.keep_usage(day(KEPT_DAYS), &[]).await.unwrap();
    assert_eq!(all(catalog).await, [new]);
}

pub(in crate::catalog) async fn savings_add_up_by_project_ref_and_day(catalog: &dyn Catalog) {
    let saving = |project: &str, git_ref: &str, day: &str, builds| Saving {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        day: day.parse().unwrap(),
        builds,
        steps: 16 * builds,
        cached: 14 * builds,
        saved_ms: 212_345 * builds,
        estimated_ms: 45 * builds,
    };
    for (project, git_ref, day) in [
        ("p", "main", "2026-11-21"),
        ("p", "main", "2026-11-22"),
        ("p", "main", "2026-11-21"),
        ("p", "dev", "2026-11-21"),
        ("a", "main", "2026-11-21"),
    ] {
        let one = saving(project, git_ref, day, 1);
        catalog.add_saving(&one).await.unwrap();
    }
    let all = [
        saving("p", "main", "2026-11-22", 1),
        saving("a", "main", "2026-11-21", 1),
        saving("p", "dev", "2026-11-21", 1),
        saving("p", "main", "2026-11-21", 2),
    ];
    let listed = async |filter: SavingFilter| catalog.savings(&filter).await.unwrap();
    assert_eq!(listed(SavingFilter::default()).await, all);
    let since = SavingFilter {
        since: "2026-11-22".parse().ok(),
        ..SavingFilter::default()
    };
    assert_eq!(listed(since).await, all[..1]);
    let of_main = SavingFilter {
        project: "p".parse().ok(),
        git_ref: "main".parse().ok(),
        ..SavingFilter::default()
    };
    assert_eq!(listed(of_main).await, [all[0].clone(), all[3].clone()]);
    for limit in 1..=5 {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = SavingFilter {
                after: after.take(),
                limit: Some(limit),
                ..SavingFilter::default()
            };
            let page = listed(page).await;
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = Some((last.day, last.project.clone(), last.git_ref.clone()));
            paged.extend(page);
        }
        assert_eq!(paged, all, "{limit}");
    }
}
