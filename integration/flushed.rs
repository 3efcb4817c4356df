//! A build after a flush starts clean, and says why.

use crate::harness::{Build, Gate, Lab, MULTISTAGE_STEPS, Outcome, Runner, layerd};
use crate::shared::{guarded, runner, token};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

async fn build(lab: &Lab, runner: &Runner, out: &str) -> Outcome {
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO)
        .output_folder(&lab.path(out));
    lab.buildx(runner.address()).await.build(&build).await.ok()
}

#[tokio::test]
async fn a_flush_of_a_hub_is_seen_by_the_next_build_and_by_no_later_one() {
    let lab = Lab::new();
    let (hub, key) = guarded(&lab).await;
    let all = ["--project", "default", "--read", "**", "--write", "**"];
    let file = lab.path("token").display().to_string();
    let alice = token(&key, &[&all[..], &["--subject", "alice"]].concat()).await;
    std::fs::write(&file, alice).unwrap();
    let arguments = ["--hub", hub.url(), "--hub-token-file", &file];
    let one = runner(&lab, "one", &arguments).await;
    let first = build(&lab, &one, "first").await;
    first.assert_told("no cache yet for project default");
    first.assert_all_ran(MULTISTAGE_STEPS);

    let flush = ["cache", "flush", "--project", "default", "--ref", "main"];
    let flushed = layerd(flush.iter().chain(&arguments)).await.ok();
    assert!(
        flushed.stdout.starts_with("flushed 1 export of"),
        "{}",
        flushed.stdout
    );
    let two = runner(&lab, "two", &arguments).await;
    let second = build(&lab, &two, "second").await;
    second.assert_all_ran(MULTISTAGE_STEPS);
    second.assert_told("cache flushed ");
    second.assert_told(" by alice: none yet since for project default");
    second.assert_no_warning();
    let three = runner(&lab, "three", &arguments).await;
    let third = build(&lab, &three, "third").await;
    third.assert_all_cached(MULTISTAGE_STEPS);
    assert!(!third.told().contains("cache flushed"), "{}", third.told());

    // Another ref has all that main had, and main is flushed once more.
    let client = lab.buildx(three.address()).await;
    let topic = Build::of(&lab.context("multistage")).cache_to(&format!("{TO},ref=topic"));
    client.build(&topic).await.ok().assert_no_warning();
    layerd(flush.iter().chain(&arguments)).await.ok();
    for (name, is_told) in [("four", true), ("five", false)] {
        let runner = runner(&lab, name, &arguments).await;
        let built = build(&lab, &runner, name).await;
        built.assert_all_cached(MULTISTAGE_STEPS);
        match is_told {
            true => built.assert_told(" by alice: what went is not in it"),
            false => assert!(!built.told().contains("cache flushed"), "{}", built.told()),
        }
    }
}

#[tokio::test]
async fn a_flush_of_a_runners_own_store_is_seen_while_its_sidecar_runs() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    build(&lab, &one, "first").await;
    let dir = data.display().to_string();
    let flush = ["cache", "flush", "--project", "default", "--data-dir", &dir];
    let flushed = layerd(flush).await.ok();
    assert!(
        flushed.stdout.starts_with("flushed 1 export of"),
        "{}",
        flushed.stdout
    );
    let two = lab.runner("two", &data).await;
    let second = build(&lab, &two, "second").await;
    second.assert_all_ran(MULTISTAGE_STEPS);
    second.assert_told("cache flushed ");
    second.assert_told("none yet since for project default");
    let audit = layerd(["audit", "--data-dir", &dir]).await.ok();
    assert!(audit.stdout.contains("flush"), "{}", audit.stdout);
}

/// A build that waits in one of its steps for the gate.
fn gated(lab: &Lab, gate: &Gate) -> Build {
    Build::of(&lab.context("gate"))
        .argument(&gate.buildx_argument())
        .cache_from(FROM)
        .cache_to(TO)
}

/// A build that begins before `flush` and ends after it exports nothing, and the
/// next one starts clean.
async fn nothing_comes_back(lab: &Lab, runners: [&Runner; 3], flush: &[&str]) {
    let [one, two, three] = runners;
    let gate = Gate::closed();
    let open = gate.open().await;
    let client = lab.buildx(one.address()).await;
    client
        .build(&gated(lab, &gate))
        .await
        .ok()
        .assert_no_warning();
    drop(open);

    let gate = Gate::closed();
    let flushing = async {
        two.buildkitd.until_busy().await;
        let flushed = layerd(flush).await.ok();
        assert!(
            flushed.stdout.starts_with("flushed 1 export of"),
            "{}",
            flushed.stdout
        );
        gate.open().await
    };
    let client = lab.buildx(two.address()).await;
    let second = gated(lab, &gate);
    let (_open, second) = tokio::join!(flushing, client.build(&second));
    let second = second.ok();
    second.assert_warned("refs/heads/main of project default was flushed");
    second.assert_warned("after this build began: its export would bring that back");

    let client = lab.buildx(three.address()).await;
    let third = client.build(&gated(lab, &gate)).await.ok();
    third.assert_told("cache flushed ");
    third.assert_told("none yet since for project default");
    third.assert_no_warning();
}

#[tokio::test]
async fn what_is_flushed_from_a_hub_while_a_build_runs_does_not_come_back_by_it() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let arguments = ["--hub", hub.url()];
    let one = runner(&lab, "one", &arguments).await;
    let two = runner(&lab, "two", &arguments).await;
    let three = runner(&lab, "three", &arguments).await;
    let flush = ["cache", "flush", "--project", "default", "--ref", "main"];
    let flush = [&flush[..], &arguments].concat();
    nothing_comes_back(&lab, [&one, &two, &three], &flush).await;
}

#[tokio::test]
async fn what_is_flushed_from_a_runners_own_store_while_a_build_runs_does_not_come_back_by_it() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let two = lab.runner("two", &data).await;
    let three = lab.runner("three", &data).await;
    let dir = data.display().to_string();
    let flush = ["cache", "flush", "--project", "default", "--ref", "main"];
    let flush = [&flush[..], &["--data-dir", &dir]].concat();
    nothing_comes_back(&lab, [&one, &two, &three], &flush).await;
}
