//! What builds were saved.

use super::*;

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
