//! A project at its quota, seen by real builds; and the commands that show and
//! do what goes.

use serde_json::Value;

use crate::harness::{Build, Lab, Runner, layerd, until};

const EXPORT: &str = "type=gha-compatible,mode=max";

#[tokio::test]
async fn a_build_goes_on_beyond_the_quota_and_says_so() {
    let lab = Lab::new();
    let data = lab.path("data");
    let sidecar = lab.sidecar("one").data_dir(&data);
    let sidecar = sidecar.arguments(["--quota", "default=1kB"]);
    let runner = Runner::start(lab.buildkitd("one"), sidecar).await;
    let client = lab.buildctl(runner.address());
    let build = Build::of(&lab.context("multistage")).cache_to(EXPORT);
    let outcome = client.build(&build).await.ok();
    outcome.assert_warned("project default is at its quota of 1.0 kB");
    let list = [
        "cache",
        "ls",
        "--json",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let listed = layerd(list).await.ok().stdout;
    assert_eq!(listed.trim(), "[]", "nothing of it is there");
    // Another project has no quota.
    let other = Build::of(&lab.context("multistage"));
    let other = other.cache_to(&format!("{EXPORT},project=other"));
    client.build(&other).await.ok().assert_no_warning();
}

#[tokio::test]
async fn a_hub_refuses_what_is_beyond_a_quota_and_the_build_says_so() {
    let lab = Lab::new();
    let hub = lab.hub("hub").arguments(["--quota", "default=1kB"]);
    let hub = hub.start().await;
    let sidecar = lab.sidecar("one").data_dir(&lab.path("near"));
    let sidecar = sidecar.arguments(["--hub", hub.url()]);
    let runner = Runner::start(lab.buildkitd("one"), sidecar).await;
    let client = lab.buildctl(runner.address());
    let build = Build::of(&lab.context("multistage")).cache_to(EXPORT);
    let outcome = client.build(&build).await.ok();
    outcome.assert_warned("project default is at its quota of 1.0 kB");
}

#[tokio::test]
async fn what_would_go_is_told_and_goes() {
    let lab = Lab::new();
    let data = lab.path("data");
    let runner = lab.runner("one", &data).await;
    let client = lab.buildctl(runner.address());
    let build = Build::of(&lab.context("multistage"));
    for git_ref in ["main", "feature"] {
        let entry = format!("{EXPORT},ref={git_ref}");
        client.build(&build.clone().cache_to(&entry)).await.ok();
    }
    let gc = async |more: &[&str]| {
        let place = ["--data-dir", data.to_str().unwrap()];
        let words = ["cache", "gc"].iter().chain(more).chain(&place);
        layerd(words).await.ok().stdout
    };
    let json = async |more: &[&str]| -> Value {
        let text = gc(&[more, &["--json"]].concat()).await;
        serde_json::from_str(&text).expect("JSON")
    };
    let told = json(&["--dry-run", "--max-bytes", "1"]).await;
    let victims = told["plan"]["victims"].as_array().expect("victims");
    let refs: Vec<_> = victims.iter().map(|victim| &victim["ref"]).collect();
    assert_eq!(refs, ["refs/heads/feature", "refs/heads/main"], "{told:#}");
    assert_eq!(victims[0]["reason"], "size", "{told:#}");
    assert_eq!(victims[0]["frees"], 0, "main has the same: {told:#}");
    let table = gc(&["--dry-run", "--max-bytes", "1"]).await;
    assert!(table.contains("all is too large"), "{table}");
    assert!(table.contains("would take 2 of 2 exports"), "{table}");

    let first = json(&["--max-bytes", "1"]).await;
    assert_eq!(first["plan"]["after"]["exports"], 0, "{first:#}");
    // What the builds were promised stays until they have let go of it.
    until("all layers are gone", async || {
        json(&["--max-bytes", "1"]).await;
        let folder = std::fs::read_dir(data.join("blobs/sha256")).expect("a store");
        (folder.count() == 0).then_some(())
    })
    .await;
    // And the next build starts clean.
    let again = build.cache_from("type=gha-compatible").cache_to(EXPORT);
    client.build(&again).await.ok().assert_no_warning();
}
