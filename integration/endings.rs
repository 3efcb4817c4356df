//! Builds that do not succeed end as they do without us: cancelled or failing.

use crate::harness::{Build, Gate, Lab};

const TO: &str = "type=gha-compatible,mode=max";

#[tokio::test]
async fn a_failing_build_has_the_status_and_the_words_that_it_has_without_us() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let build = Build::of(&lab.context("failing"));
    let direct = &runner.buildkitd.address;
    let pairs = [
        (lab.buildx(runner.address()).await, lab.buildx(direct).await),
        (lab.buildctl(runner.address()), lab.buildctl(direct)),
    ];
    for (through, direct) in pairs {
        let without = direct.build(&build).await.failed();
        let plain = through.build(&build).await.failed();
        let exporting = through.build(&build.clone().cache_to(TO)).await.failed();
        for with in [&plain, &exporting] {
            assert_eq!(with.code, without.code);
            assert_eq!(with.verdict(), without.verdict());
        }
        assert!(
            without.verdict().contains("exit code: 7"),
            "{}",
            without.verdict()
        );
    }
}

#[tokio::test]
async fn a_bad_dockerfile_fails_with_the_same_words() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let context = lab.folder("bad");
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nRUNN nothing\n").unwrap();
    let build = Build::of(&context)
        .cache_to(TO)
        .cache_from("type=gha-compatible");
    let with = lab
        .buildx(runner.address())
        .await
        .build(&build)
        .await
        .failed();
    let without = lab
        .buildx(&runner.buildkitd.address)
        .await
        .build(&Build::of(&context))
        .await
        .failed();
    assert_eq!(
        (with.code, with.verdict()),
        (without.code, without.verdict())
    );
}

#[tokio::test]
async fn an_interrupted_build_stops_in_the_daemon_and_exports_nothing() {
    let lab = Lab::new();
    let data = lab.path("data");
    let runner = lab.runner("one", &data).await;
    let slow = Build::of(&lab.context("slow")).cache_to(TO);
    let direct = &runner.buildkitd.address;
    let pairs = [
        (lab.buildx(runner.address()).await, lab.buildx(direct).await),
        (lab.buildctl(runner.address()), lab.buildctl(direct)),
    ];
    for (through, direct) in pairs {
        let with = through.build_interrupted(&slow, "waiting").await.failed();
        let without = direct
            .build_interrupted(&Build::of(&lab.path("contexts/slow")), "waiting")
            .await
            .failed();
        assert_eq!(
            with.code,
            without.code,
            "{}\n{}",
            with.verdict(),
            without.verdict()
        );
    }
    runner.buildkitd.until_idle().await;
    let after = Build::of(&lab.context("multistage")).cache_to(TO);
    let outcome = lab.buildx(runner.address()).await.build(&after).await.ok();
    outcome.assert_no_warning();
    outcome.assert_told("as export 1");
    assert!(
        !runner.sidecar.log().contains("panicked"),
        "{}",
        runner.sidecar.log()
    );
}

#[tokio::test]
async fn an_interrupted_build_leaves_the_one_that_shares_its_steps_alone() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let gate = Gate::closed();
    let client = lab.buildctl(runner.address());
    let build = Build::of(&lab.context("gate"))
        .argument(&gate.buildctl_argument())
        .cache_to(TO);
    let interrupt = async {
        client.build_interrupted(&build, "waiting").await.failed();
        gate.open().await
    };
    let (_open, other) = tokio::join!(interrupt, client.build(&build));
    other.ok().assert_no_warning();
}
