//! The steps that exports keep.

use super::*;

pub(in crate::catalog) async fn steps_are_kept_by_record_and_date_and_for_their_project_alone(
    catalog: &dyn Catalog,
) {
    let by = |builder: &str, daemon: Option<&str>| {
        Some(Origin {
            builder: builder.to_owned(),
            daemon: daemon.map(str::to_owned),
        })
    };
    let one = Step {
        origin: by("runner-7", Some("x1")),
        ..step("sha256:a", 1, "one")
    };
    let unsaid = step("sha256:a", 2, "other");
    let elsewhere = Step {
        origin: by("runner-8", None),
        ..step("sha256:b", 1, "elsewhere")
    };
    for (project, steps) in [
        ("p", vec![one.clone(), unsaid.clone()]),
        ("p", vec![one.clone()]),
        ("q", vec![elsewhere.clone()]),
    ] {
        let mut export = export(place(project, "main"), &["a"]);
        export.steps = steps;
        catalog.append(export).await.unwrap();
    }
    // Where nobody says who ran a step, whoever exported it did.
    let other = Step {
        origin: by("runner-1", None),
        ..unsaid
    };
    let result = |step: &Step| (step.record.clone(), step.created_at);
    let nobody = result(&step("sha256:a", 3, ""));
    let asked = [
        result(&other),
        nobody.clone(),
        result(&elsewhere),
        result(&one),
    ];
    let kept = async |project: &str, asked: &[_]| {
        let project = project.parse().unwrap();
        let mut kept = catalog.steps(&project, None, asked).await.unwrap();
        kept.sort_by_key(|step| step.created_at);
        kept
    };
    assert_eq!(kept("p", &asked).await, [one.clone(), other]);
    assert_eq!(kept("q", &asked).await, [elsewhere]);
    assert_eq!(kept("absent", &asked).await, []);
    // More than one question of them.
    let mut many = vec![nobody; 2500];
    many.push(result(&one));
    assert_eq!(kept("p", &many).await, [one]);
}

pub(in crate::catalog) async fn steps_are_told_of_the_refs_that_are_asked_for_alone(
    catalog: &dyn Catalog,
) {
    let shared = step("sha256:a", 1, "shared");
    let own = step("sha256:b", 1, "of one alone");
    for (git_ref, steps) in [
        ("one", vec![shared.clone(), own.clone()]),
        ("two", vec![shared.clone()]),
    ] {
        let mut export = export(place("p", git_ref), &["a"]);
        export.steps = steps;
        catalog.append(export).await.unwrap();
    }
    let asked = [&shared, &own].map(|step| (step.record.clone(), step.created_at));
    for (refs, expected) in [
        (vec!["one", "two"], vec!["of one alone", "shared"]),
        (vec!["two", "absent"], vec!["shared"]),
        (vec!["absent"], vec![]),
        (vec![], vec![]),
    ] {
        let refs: Vec<GitRef> = refs.iter().map(|text| text.parse().unwrap()).collect();
        let project = "p".parse().unwrap();
        let kept = catalog.steps(&project, Some(&refs), &asked).await.unwrap();
        let mut names: Vec<String> = kept.iter().map(|step| step.name.to_string()).collect();
        names.sort();
        assert_eq!(names, expected, "{refs:?}");
    }
}
