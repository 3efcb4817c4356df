//! The error of a failed build is held back while its cache is exported: for a
//! bounded time, for a client that waits, and as it was.

use std::time::Duration;

use crate::harness::{Build, Client, Fault, FaultyRunner, Lab, Runner, until};

const TO: &str = "type=gha-compatible,mode=max";
/// Longer than any read here.
const PATIENT: Duration = Duration::from_secs(60);
/// What the user is told first of `testdata/mended`.
const TOLD: &str =
    "layerd: the build failed; exporting the cache of the 5 steps that did not, for at most 5 s";

#[tokio::test]
async fn with_a_time_out_of_zero_nothing_is_exported() {
    let lab = Lab::new();
    let data = lab.path("data");
    let sidecar = lab.sidecar("one").data_dir(&data);
    let sidecar = sidecar.arguments(["--failed-export-timeout=0s"]);
    let one = Runner::start(lab.buildkitd("one"), sidecar).await;
    let build = Build::of(&lab.context("failing")).cache_to(TO);
    let outcome = lab.buildctl(one.address()).build(&build).await.failed();
    assert!(outcome.progress.messages().is_empty(), "{outcome:#?}");
    assert!(
        !data.join("blobs").exists()
            || std::fs::read_dir(data.join("blobs/sha256"))
                .unwrap()
                .count()
                == 0
    );
}

/// A runner whose exports hang once they are written, a build that fails on it,
/// and the same straight to its daemon.
async fn hanging(lab: &Lab) -> (FaultyRunner, Build, Client) {
    let runner = FaultyRunner::start(lab, "one", &lab.path("data"), PATIENT).await;
    runner.fail(Fault::PublishHangs);
    let build = Build::of(&lab.context("mended")).cache_to(TO);
    let client = lab.buildctl(&runner.address);
    (runner, build, client)
}

#[tokio::test]
async fn an_export_that_hangs_is_cut_off_and_the_error_comes() {
    let lab = Lab::new();
    let (runner, build, client) = hanging(&lab).await;
    let outcome = client.build(&build).await.failed();
    outcome.assert_told(TOLD);
    outcome.assert_warned("it took longer than 5 s (--failed-export-timeout)");
    assert_eq!(runner.waiting(), 1);
    let direct = Build::of(&lab.path("contexts/mended"));
    let without = lab.buildctl(runner.daemon()).build(&direct).await.failed();
    assert_eq!(
        (outcome.code, outcome.verdict()),
        (without.code, without.verdict())
    );
}

#[tokio::test]
async fn a_daemon_that_dies_meanwhile_leaves_the_error_as_it_was() {
    let lab = Lab::new();
    let (mut runner, build, client) = hanging(&lab).await;
    let mut building = Box::pin(client.build(&build));
    tokio::select! {
        outcome = &mut building => panic!("it did not wait: {outcome:#?}"),
        () = until_hanging(&runner) => {}
    }
    runner.kill_buildkitd().await;
    let outcome = building.await.failed();
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
}

async fn until_hanging(runner: &FaultyRunner) {
    until("the export is written", async || {
        (runner.waiting() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_meanwhile_ends_it() {
    let lab = Lab::new();
    let (runner, build, client) = hanging(&lab).await;
    client.build_interrupted(&build, TOLD).await.failed();
    // The daemon is as it was: the next build comes through.
    runner.fail(Fault::None);
    let outcome = client.build(&build).await.failed();
    outcome.assert_told("as export 1");
}

#[tokio::test]
async fn a_door_that_closes_waits_for_it() {
    let lab = Lab::new();
    let (runner, build, client) = hanging(&lab).await;
    let closing = async {
        until_hanging(&runner).await;
        runner.drain();
    };
    let (outcome, ()) = tokio::join!(client.build(&build), closing);
    let outcome = outcome.failed();
    outcome.assert_warned("it took longer than 5 s");
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
}

#[tokio::test]
async fn an_interrupted_build_keeps_nothing() {
    let lab = Lab::new();
    let one = lab.runner("one", &lab.path("data")).await;
    let slow = Build::of(&lab.context("slow")).cache_to(TO);
    for client in [lab.buildx(one.address()).await, lab.buildctl(one.address())] {
        let outcome = client.build_interrupted(&slow, "waiting").await.failed();
        let messages = outcome.progress.messages();
        assert!(messages.is_empty(), "{messages:#?}");
    }
    one.buildkitd.until_idle().await;
    let after = Build::of(&lab.context("multistage")).cache_to(TO);
    let outcome = lab.buildctl(one.address()).build(&after).await.ok();
    outcome.assert_told("as export 1");
}
