//! Where an export goes and where an import looks: project, ref and scope,
//! from flags and attributes.

use crate::harness::{Build, Fate, Lab, MULTISTAGE_STEPS, Outcome, Runner};

/// Whether this build of `multistage` hit the cache.
fn hit(outcome: &Outcome) -> bool {
    outcome.progress.with(Fate::Cached).len() == MULTISTAGE_STEPS
}

/// What one cold daemon gets with these sidecar flags and import entries.
async fn cold(lab: &Lab, name: &str, flags: &[&str], imports: &[&str]) -> Outcome {
    let spec = lab
        .sidecar(name)
        .data_dir(&lab.path("data"))
        .arguments(flags.iter().copied());
    let runner = Runner::start(lab.buildkitd(name), spec).await;
    let build = imports
        .iter()
        .fold(Build::of(&lab.context("multistage")), |build, entry| {
            build.cache_from(entry)
        });
    lab.buildctl(runner.address()).build(&build).await.ok()
}

/// Exports `multistage` from one daemon.
async fn export(lab: &Lab, flags: &[&str], entries: &[&str]) {
    let spec = lab
        .sidecar("writer")
        .data_dir(&lab.path("data"))
        .arguments(flags.iter().copied());
    let runner = Runner::start(lab.buildkitd("writer"), spec).await;
    let build = entries
        .iter()
        .fold(Build::of(&lab.context("multistage")), |build, entry| {
            build.cache_to(entry)
        });
    lab.buildctl(runner.address()).build(&build).await.ok();
}

#[tokio::test]
async fn a_scope_is_a_name_of_its_own() {
    let lab = Lab::new();
    export(&lab, &[], &["type=gha-compatible,scope=linux"]).await;
    assert!(!hit(&cold(&lab, "a", &[], &["type=gha-compatible"]).await));
    assert!(hit(&cold(
        &lab,
        "b",
        &[],
        &["type=gha-compatible,scope=linux"]
    )
    .await));
}

#[tokio::test]
async fn projects_never_meet() {
    let lab = Lab::new();
    export(&lab, &["--project", "acme/shop"], &["type=gha-compatible"]).await;
    assert!(!hit(&cold(&lab, "a", &[], &["type=gha-compatible"]).await));
    assert!(!hit(&cold(
        &lab,
        "b",
        &["--project", "acme/other"],
        &["type=gha-compatible"]
    )
    .await));
    assert!(hit(&cold(
        &lab,
        "c",
        &[],
        &["type=gha-compatible,project=acme/shop"]
    )
    .await));
}

#[tokio::test]
async fn a_build_sees_every_ref_unless_it_is_narrowed_to_its_own_and_fallbacks() {
    let lab = Lab::new();
    export(
        &lab,
        &["--ref", "refs/heads/main"],
        &["type=gha-compatible"],
    )
    .await;
    let feature = ["--ref", "refs/heads/feature"];
    assert!(hit(
        &cold(&lab, "a", &feature, &["type=gha-compatible"]).await
    ));
    let elsewhere = "type=gha-compatible,fallback=refs/heads/other";
    let missed = cold(&lab, "b", &feature, &[elsewhere]).await;
    assert!(!hit(&missed));
    missed.assert_told("refs/heads/feature");
    // The flag gives an order, and hides nothing.
    let flags = [feature.as_slice(), &["--fallback", "refs/heads/other"]].concat();
    assert!(hit(&cold(&lab, "c", &flags, &["type=gha-compatible"]).await));
    let entry = "type=gha-compatible,ref=refs/heads/feature,fallback=refs/heads/main";
    assert!(hit(&cold(&lab, "d", &[], &[entry]).await));
}

#[tokio::test]
async fn of_several_imports_each_adds_what_it_has() {
    let lab = Lab::new();
    export(&lab, &[], &["type=gha-compatible,scope=b"]).await;
    let entries = ["type=gha-compatible,scope=a", "type=gha-compatible,scope=b"];
    assert!(hit(&cold(&lab, "a", &[], &entries).await));
}

#[tokio::test]
async fn one_build_exports_to_several_scopes() {
    let lab = Lab::new();
    export(
        &lab,
        &[],
        &[
            "type=gha-compatible,scope=a,mode=max",
            "type=gha-compatible,scope=b,mode=min",
        ],
    )
    .await;
    assert!(hit(
        &cold(&lab, "a", &[], &["type=gha-compatible,scope=a"]).await
    ));
    assert!(hit(
        &cold(&lab, "b", &[], &["type=gha-compatible,scope=b"]).await
    ));
}
