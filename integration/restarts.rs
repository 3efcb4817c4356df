//! Daemons come and go: the sidecar, between builds and in the middle of one,
//! and the buildkitd behind it.

use std::path::Path;

use crate::harness::{Build, Gate, Lab, MULTISTAGE_STEPS, layerd, tree, until};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// `layerd cache fsck` finds nothing wrong.
async fn assert_sound(data: &Path) {
    layerd(["cache", "fsck", "--data-dir", data.to_str().unwrap()])
        .await
        .ok();
}

#[tokio::test]
async fn a_sidecar_restarted_between_two_builds_serves_the_second() {
    let lab = Lab::new();
    let data = lab.path("data");
    let mut one = lab.runner("one", &data).await;
    let context = lab.context("multistage");
    let client = lab.buildx(one.address()).await;
    client.build(&Build::of(&context).cache_to(TO)).await.ok();
    assert!(one.sidecar.terminate().await.success());
    one.buildkitd.stop().await;
    one.buildkitd.start_cold().await;
    one.sidecar = one.sidecar.start_again().await;
    client
        .build(&Build::of(&context).cache_from(FROM))
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn a_sidecar_that_is_told_to_end_finishes_its_builds_first() {
    let lab = Lab::new();
    let data = lab.path("data");
    let mut one = lab.runner("one", &data).await;
    let gate = Gate::closed();
    let client = lab.buildx(one.address()).await;
    let build = Build::of(&lab.context("gate"))
        .argument(&gate.buildx_argument())
        .cache_to(TO);
    let end = async {
        one.buildkitd.until_busy().await;
        let (status, _open) = tokio::join!(one.sidecar.terminate(), gate.open());
        status
    };
    let (status, outcome) = tokio::join!(end, client.build(&build));
    outcome.ok().assert_no_warning();
    assert!(status.success(), "{status}");
    assert_sound(&data).await;
}

#[tokio::test]
async fn a_sidecar_killed_in_the_middle_of_an_export_leaves_a_sound_store() {
    let lab = Lab::new();
    let data = lab.path("data");
    let mut one = lab.runner("one", &data).await;
    let context = lab.context("big");
    let client = lab.buildx(one.address()).await;
    let build = Build::of(&context).cache_to(&format!("{TO},compression=uncompressed"));
    let kill = async {
        until("bytes of the large layer arrive", async || {
            (size(&data) > 16 << 20).then_some(())
        })
        .await;
        one.sidecar.kill().await;
    };
    let ((), outcome) = tokio::join!(kill, client.build(&build));
    outcome.failed();
    assert_sound(&data).await;
    one.sidecar = one.sidecar.start_again().await;
    client.build(&build).await.ok().assert_no_warning();
    assert_sound(&data).await;

    let two = lab.runner("two", &data).await;
    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("out"));
    lab.buildx(two.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_all_cached(3);
}

/// The bytes of all files below `folder`, which may change meanwhile.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                size(&entry.path())
            } else {
                entry.metadata().map_or(0, |file| file.len())
            }
        })
        .sum()
}

#[tokio::test]
async fn without_its_buildkitd_a_client_sees_what_it_would_see_without_us() {
    let lab = Lab::new();
    let data = lab.path("data");
    let mut one = lab.runner("one", &data).await;
    let context = lab.context("multistage");
    let build = Build::of(&context)
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    let (through, direct) = (
        lab.buildctl(one.address()),
        lab.buildctl(&one.buildkitd.address),
    );
    through.build(&build).await.ok();
    one.buildkitd.stop().await;
    let with = through.build(&build).await.failed();
    let without = direct.build(&build).await.failed();
    assert_eq!(
        with.code,
        without.code,
        "{}\n{}",
        with.verdict(),
        without.verdict()
    );
    assert!(
        with.verdict().contains("Unavailable") || with.verdict().contains("connection"),
        "{}",
        with.verdict()
    );

    one.buildkitd.start_cold().await;
    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("second"));
    through
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&lab.path("second")));
}

#[tokio::test]
async fn a_buildkitd_that_dies_under_a_build_fails_it_and_serves_the_next() {
    let lab = Lab::new();
    let mut one = lab.runner("one", &lab.path("data")).await;
    let gate = Gate::closed();
    let client = lab.buildx(one.address()).await;
    let build = Build::of(&lab.context("gate"))
        .argument(&gate.buildx_argument())
        .cache_to(TO);
    let die = async {
        one.buildkitd.until_busy().await;
        one.buildkitd.kill().await;
    };
    let ((), outcome) = tokio::join!(die, client.build(&build));
    outcome.failed();
    one.buildkitd.start_cold().await;
    let _open = gate.open().await;
    client.build(&build).await.ok().assert_no_warning();
}
