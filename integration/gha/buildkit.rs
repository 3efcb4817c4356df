//! Stock BuildKit with stock `type=gha`, and no sidecar: alone, and together
//! with builds that have one.

use crate::harness::{
    Build, Hub, Lab, MULTISTAGE_STEPS, Metrics, Outcome, Runner, runtime_token, tree,
};

pub const MAIN: [(&str, u8); 1] = [("refs/heads/main", 3)];

/// An entry of a build, for this version of the protocol.
pub fn gha(hub: &Hub, token: &str, version: u8) -> String {
    let url = hub.url();
    format!("type=gha,url={url}/,url_v2={url}/,token={token},version={version}")
}

/// Builds on a stock daemon of its own, which ends with this.
pub async fn build(lab: &Lab, name: &str, from: Option<&str>, to: Option<&str>) -> Outcome {
    let daemon = lab.buildkitd(name).start().await;
    let mut build =
        Build::of(&lab.context("multistage")).output_folder(&lab.path(name).join("out"));
    if let Some(from) = from {
        build = build.cache_from(from);
    }
    if let Some(to) = to {
        build = build.cache_to(&format!("{to},mode=max"));
    }
    lab.buildx(&daemon.address).await.build(&build).await.ok()
}

pub fn out(
    lab: &Lab,
    name: &str,
) -> std::collections::BTreeMap<std::path::PathBuf, (u32, Vec<u8>)> {
    tree(&lab.path(name).join("out"))
}

async fn alone(version: u8) {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let entry = gha(&hub, &runtime_token("acme/shop", &MAIN), version);
    let first = build(&lab, "one", Some(&entry), Some(&entry)).await;
    first.assert_all_ran(MULTISTAGE_STEPS);
    let second = build(&lab, "two", Some(&entry), None).await;
    second.assert_all_cached(MULTISTAGE_STEPS);
    assert!(out(&lab, "one") == out(&lab, "two"));
    // Once more, with an export of what is there already.
    let third = build(&lab, "three", Some(&entry), Some(&entry)).await;
    third.assert_all_cached(MULTISTAGE_STEPS);
    // Another project has nothing of it.
    let other = gha(&hub, &runtime_token("acme/other", &MAIN), version);
    let fourth = build(&lab, "four", Some(&other), None).await;
    fourth.assert_all_ran(MULTISTAGE_STEPS);
    let metrics = Metrics::at(hub.metrics_address()).await;
    let kept = |kind: &str| metrics.value(&format!("layerd_gha_entries_total{{kind=\"{kind}\"}}"));
    assert!(kept("blob") >= 1.0 && kept("index") >= 1.0, "{version}");
    assert_eq!(kept("entry"), 0.0);
    let failed = "layerd_gha_requests_total{operation=\"download\",outcome=\"failed\"}";
    assert_eq!(metrics.value(failed), 0.0);
}

#[tokio::test]
async fn the_first_version_exports_and_a_cold_daemon_runs_nothing() {
    alone(1).await;
}

#[tokio::test]
async fn the_second_version_exports_and_a_cold_daemon_runs_nothing() {
    alone(2).await;
}

async fn with_sidecar(lab: &Lab, hub: &Hub, name: &str, from: &str, to: &str) -> Outcome {
    let sidecar = lab
        .sidecar(name)
        .arguments(["--hub", hub.url(), "--project", "acme/shop"]);
    let runner = Runner::start(lab.buildkitd(name), sidecar).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_from(from)
        .cache_to(to)
        .output_folder(&lab.path(name).join("out"));
    lab.buildx(runner.address()).await.build(&build).await.ok()
}

#[tokio::test]
pub async fn builds_with_a_sidecar_and_builds_without_hit_each_others_steps() {
    const SIDECAR: &str = "type=gha-compatible";
    for version in [1, 2] {
        let lab = Lab::new();
        let hub = lab.hub("hub").start().await;
        let entry = gha(&hub, &runtime_token("acme/shop", &MAIN), version);
        build(&lab, "stock", None, Some(&entry)).await;
        let to = format!("{SIDECAR},mode=max");
        let second = with_sidecar(&lab, &hub, "sidecar", SIDECAR, &to).await;
        second.assert_all_cached(MULTISTAGE_STEPS);
        second.assert_no_warning();
        assert!(out(&lab, "stock") == out(&lab, "sidecar"));

        let lab = Lab::new();
        let hub = lab.hub("hub").start().await;
        let entry = gha(&hub, &runtime_token("acme/shop", &MAIN), version);
        let first = with_sidecar(&lab, &hub, "sidecar", SIDECAR, &to).await;
        first.assert_all_ran(MULTISTAGE_STEPS);
        let second = build(&lab, "stock", Some(&entry), Some(&entry)).await;
        second.assert_all_cached(MULTISTAGE_STEPS);
        assert!(out(&lab, "stock") == out(&lab, "sidecar"));
    }
}

/// A branch of its own: nothing of main's is written by it.
#[tokio::test]
async fn a_pull_request_reads_its_base_and_writes_what_its_base_does_not_read() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let pull = [("refs/pull/7/merge", 3), ("refs/heads/main", 1)];
    let (pull, main) = (
        gha(&hub, &runtime_token("acme/shop", &pull), 2),
        gha(&hub, &runtime_token("acme/shop", &MAIN), 2),
    );
    build(&lab, "pull", None, Some(&pull))
        .await
        .assert_all_ran(MULTISTAGE_STEPS);
    build(&lab, "main", Some(&main), Some(&main))
        .await
        .assert_all_ran(MULTISTAGE_STEPS);
    let other = [("refs/pull/8/merge", 3), ("refs/heads/main", 1)];
    let other = gha(&hub, &runtime_token("acme/shop", &other), 2);
    build(&lab, "other", Some(&other), Some(&other))
        .await
        .assert_all_cached(MULTISTAGE_STEPS);
    assert!(out(&lab, "main") == out(&lab, "other"));
}

/// Gitea's jobs, and act's, have a scope without a name, which they may write.
#[tokio::test]
async fn jobs_whose_scope_has_no_name_share_the_default_ref() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let unnamed = gha(&hub, &runtime_token("acme/shop", &[("", 2)]), 2);
    build(&lab, "one", Some(&unnamed), Some(&unnamed))
        .await
        .assert_all_ran(MULTISTAGE_STEPS);
    build(&lab, "two", Some(&unnamed), None)
        .await
        .assert_all_cached(MULTISTAGE_STEPS);
    let main = gha(&hub, &runtime_token("acme/shop", &MAIN), 1);
    build(&lab, "three", Some(&main), None)
        .await
        .assert_all_cached(MULTISTAGE_STEPS);
}
