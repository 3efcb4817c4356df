//! BuildKit without layerd: what the other tests take for granted about the
//! daemon, the clients and the build contexts.

use crate::harness::{Build, BuildKit, Fate, Lab, tree};

/// How many steps `testdata/multistage` has.
const STEPS: usize = 10;

#[tokio::test]
async fn a_build_runs_every_step_once_and_then_none() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("one").start().await;
    let context = lab.context("multistage");
    for client in [lab.buildx(&daemon.address).await, lab.buildctl(&daemon.address)] {
        client.run(["prune"]).await;
        let first = client.build(&Build::of(&context).output_folder(&lab.path("first"))).await.ok();
        let again = client.build(&Build::of(&context).output_folder(&lab.path("again"))).await.ok();
        again.assert_all_cached(STEPS);
        assert_eq!(first.progress.steps().len(), STEPS);
        assert_eq!(tree(&lab.path("first")), tree(&lab.path("again")));
    }
}

#[tokio::test]
async fn a_rerun_of_a_step_shows_in_its_bytes() {
    let lab = Lab::new();
    let mut daemon = lab.buildkitd("one").version(BuildKit::Old).start().await;
    let context = lab.context("multistage");
    let client = lab.buildctl(&daemon.address);
    let first = client.build(&Build::of(&context).output_folder(&lab.path("first"))).await.ok();
    first.assert_all_ran(STEPS);
    daemon.stop().await;
    daemon.start_cold().await;
    let second = client.build(&Build::of(&context).output_folder(&lab.path("second"))).await.ok();
    assert_eq!(second.progress.with(Fate::Ran).len(), STEPS);
    assert_ne!(tree(&lab.path("first")), tree(&lab.path("second")));
}
