//! BuildKit without layerd: what the other tests take for granted about the
//! daemon, the clients and the build contexts.

use crate::harness::{Build, BuildKit, Fate, Lab, MULTISTAGE_STEPS, tree};

#[tokio::test]
async fn a_warm_daemon_runs_no_step_again() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("one").start().await;
    let client = lab.buildx(&daemon.address).await;
    let context = lab.context("multistage");
    let first = client
        .build(&Build::of(&context).output_folder(&lab.path("first")))
        .await
        .ok();
    first.assert_all_ran(MULTISTAGE_STEPS);
    let again = client
        .build(&Build::of(&context).output_folder(&lab.path("again")))
        .await
        .ok();
    again.assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&lab.path("again")));
}

#[tokio::test]
async fn a_step_that_runs_again_shows_in_the_bytes() {
    let lab = Lab::new();
    let mut daemon = lab.buildkitd("one").version(BuildKit::Old).start().await;
    let client = lab.buildctl(&daemon.address);
    let context = lab.context("multistage");
    let first = client
        .build(&Build::of(&context).output_folder(&lab.path("first")))
        .await
        .ok();
    first.assert_all_ran(MULTISTAGE_STEPS);
    daemon.stop().await;
    daemon.start_cold().await;
    let second = client
        .build(&Build::of(&context).output_folder(&lab.path("second")))
        .await
        .ok();
    assert_eq!(second.progress.with(Fate::Ran).len(), MULTISTAGE_STEPS);
    assert_ne!(tree(&lab.path("first")), tree(&lab.path("second")));
}
