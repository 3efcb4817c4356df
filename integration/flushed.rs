//! A build after a flush starts clean, and says why.

use crate::harness::{Build, Lab, MULTISTAGE_STEPS, Outcome, Runner, layerd};
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
