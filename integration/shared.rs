//! Runners with nothing in common but a hub share every step that one of them
//! ran, as far as their tokens go.

use std::path::PathBuf;

use crate::harness::{
    Build, Hub, Lab, MULTISTAGE_STEPS, Metrics, Outcome, Postgres, Runner, Tls, layerd_with,
    objects, tree,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// How long a change of a file may go unseen.
const CHANGED: std::time::Duration = std::time::Duration::from_millis(1100);

/// A runner of its own, whose sidecar is told where the hub is.
pub async fn runner(lab: &Lab, name: &str, arguments: &[&str]) -> Runner {
    let sidecar = lab.sidecar(name).arguments(arguments.iter().copied());
    Runner::start(lab.buildkitd(name), sidecar).await
}

/// Builds on a runner: imports and exports with these entries.
async fn build(lab: &Lab, runner: &Runner, from: &str, to: &str, out: &str) -> Outcome {
    let build = Build::of(&lab.context("multistage"))
        .cache_from(from)
        .cache_to(to)
        .output_folder(&lab.path(out));
    lab.buildx(runner.address()).await.build(&build).await
}

/// A hub that asks for tokens, and the file of its key.
pub async fn guarded(lab: &Lab) -> (Hub, PathBuf) {
    let key = lab.path("ci.pem");
    let path = key.display().to_string();
    let arguments = ["token", "key", "-o", &path];
    layerd_with(&arguments, &[], "").await.ok();
    let arguments = ["--auth", "token", "--token-key-file", &path];
    (lab.hub("hub").arguments(arguments).start().await, key)
}

/// A token of that key.
pub async fn token(key: &std::path::Path, arguments: &[&str]) -> String {
    let key = key.display().to_string();
    let mint = ["token", "mint", "--token-key-file", &key];
    let minted = layerd_with(mint.iter().chain(arguments), &[], "").await;
    minted.ok().stdout.trim().to_owned()
}

#[tokio::test]
async fn a_cold_runner_runs_nothing_that_another_has_run() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let one = runner(&lab, "one", &["--hub", hub.url()]).await;
    let first = build(&lab, &one, FROM, TO, "first").await.ok();
    first.assert_all_ran(MULTISTAGE_STEPS);
    first.assert_no_warning();
    drop(one);
    let two = runner(&lab, "two", &["--hub", hub.url()]).await;
    let second = build(&lab, &two, FROM, TO, "second").await.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    second.assert_no_warning();
    assert!(tree(&lab.path("first")) == tree(&lab.path("second")));
}

#[tokio::test]
async fn a_hub_that_a_build_names_is_asked_with_the_builds_own_token_alone() {
    let lab = Lab::new();
    let (hub, key) = guarded(&lab).await;
    let all = token(
        &key,
        &["--project", "default", "--read", "**", "--write", "**"],
    )
    .await;
    let one = runner(&lab, "one", &["--allow-hub", hub.url()]).await;
    let with = |entry: &str, token: &str| format!("{entry},url={},token={token}", hub.url());
    let first = build(&lab, &one, &with(FROM, &all), &with(TO, &all), "first").await;
    first.ok().assert_no_warning();
    let two = runner(&lab, "two", &["--allow-hub", hub.url()]).await;
    let without = format!("{FROM},url={}", hub.url());
    let refused = build(&lab, &two, &without, &without, "without").await.ok();
    refused.assert_warned("a token is needed");
    refused.assert_all_ran(MULTISTAGE_STEPS);
    let three = runner(&lab, "three", &["--allow-hub", "*"]).await;
    let second = build(&lab, &three, &with(FROM, &all), &with(TO, &all), "second").await;
    second.ok().assert_all_cached(MULTISTAGE_STEPS);
    assert!(tree(&lab.path("first")) == tree(&lab.path("second")));
    // Nobody sees the token.
    for log in [hub.log(), one.sidecar.log(), three.sidecar.log()] {
        assert!(!log.contains(&all));
    }
}

#[tokio::test]
async fn a_token_for_reading_imports_and_the_export_says_why_not() {
    let lab = Lab::new();
    let (hub, key) = guarded(&lab).await;
    let write = ["--project", "default", "--read", "**", "--write", "main"];
    let file = lab.path("token");
    std::fs::write(&file, token(&key, &write).await).unwrap();
    let file_name = file.display().to_string();
    let arguments = ["--hub", hub.url(), "--hub-token-file", &file_name];
    let one = runner(&lab, "one", &arguments).await;
    build(&lab, &one, FROM, TO, "first")
        .await
        .ok()
        .assert_no_warning();
    // The file is read again when it changes.
    let two = runner(&lab, "two", &arguments).await;
    let only = ["--project", "default", "--read", "main"];
    std::fs::write(&file, token(&key, &only).await).unwrap();
    tokio::time::sleep(CHANGED).await;
    let second = build(&lab, &two, FROM, TO, "second").await.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    second.assert_warned("may not write refs/heads/main");
}

#[tokio::test]
async fn a_wrong_project_or_an_expired_token_costs_hits_and_says_so() {
    let lab = Lab::new();
    let (hub, key) = guarded(&lab).await;
    let own = token(
        &key,
        &["--project", "default", "--read", "**", "--write", "**"],
    )
    .await;
    let foreign = token(
        &key,
        &["--project", "other", "--read", "**", "--write", "**"],
    )
    .await;
    let one = runner(&lab, "one", &["--hub", hub.url()]).await;
    let with = |entry: &str, token: &str| format!("{entry},token={token}");
    build(&lab, &one, &with(FROM, &own), &with(TO, &own), "first")
        .await
        .ok();
    let two = runner(&lab, "two", &["--hub", hub.url()]).await;
    let refused = build(
        &lab,
        &two,
        &with(FROM, &foreign),
        &with(TO, &foreign),
        "second",
    )
    .await;
    let refused = refused.ok();
    refused.assert_warned("the token is for project other");
    refused.assert_all_ran(MULTISTAGE_STEPS);
    let three = runner(&lab, "three", &["--hub", hub.url()]).await;
    let mut parts: Vec<&str> = own.split('.').collect();
    let cut = &parts[2][..parts[2].len() - 4];
    let wrong = format!("{cut}AAAA");
    parts[2] = &wrong;
    let forged = parts.join(".");
    let refused = build(
        &lab,
        &three,
        &with(FROM, &forged),
        &with(TO, &forged),
        "third",
    )
    .await;
    let refused = refused.ok();
    refused.assert_warned("signature is wrong");
    refused.assert_all_ran(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn what_a_runner_has_had_is_not_fetched_again() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let one = runner(&lab, "one", &["--hub", hub.url()]).await;
    build(&lab, &one, FROM, TO, "first").await.ok();
    let data = lab.path("kept");
    let mut read = Vec::new();
    for round in ["second", "third"] {
        let sidecar = lab.sidecar(round).data_dir(&data);
        let sidecar = sidecar.arguments(["--hub", hub.url()]);
        let two = Runner::start(lab.buildkitd(round), sidecar).await;
        let outcome = build(&lab, &two, FROM, TO, round).await.ok();
        outcome.assert_all_cached(MULTISTAGE_STEPS);
        let metrics = Metrics::of(&two.sidecar).await;
        read.push(metrics.value("layerd_tier_fetched_bytes_total"));
    }
    assert!(read[0] > 0.0, "{read:?}");
    assert_eq!(read[1], 0.0, "{read:?}");
}

#[tokio::test]
async fn runners_share_through_different_hubs_on_one_database_and_bucket() {
    let lab = Lab::new();
    let postgres = Postgres::start();
    let catalog = postgres.database("shared");
    let s3 = objects::s3().await;
    let hub = async |name: &str| {
        let arguments = [
            "--catalog",
            &catalog,
            "--blobs",
            "s3://layerd/shared-runners",
        ];
        let spec = lab.hub(name).arguments(arguments);
        let spec = spec.environment("AWS_ACCESS_KEY_ID", "layerd");
        let spec = spec.environment("AWS_SECRET_ACCESS_KEY", "layerd");
        let spec = spec.environment("AWS_ENDPOINT_URL", &format!("http://{}", s3.host));
        let spec = spec.environment("AWS_REGION", "us-east-1");
        spec.environment("AWS_ALLOW_HTTP", "true").start().await
    };
    let (first_hub, second_hub) = (hub("first-hub").await, hub("second-hub").await);
    let one = runner(&lab, "one", &["--hub", first_hub.url()]).await;
    let first = build(&lab, &one, FROM, TO, "first").await.ok();
    first.assert_no_warning();
    let two = runner(&lab, "two", &["--hub", second_hub.url()]).await;
    let second = build(&lab, &two, FROM, TO, "second").await.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    second.assert_no_warning();
    assert!(tree(&lab.path("first")) == tree(&lab.path("second")));
    // The largest layer was read straight from the bucket, at an address that
    // the hub gave.
    let metrics = Metrics::at(second_hub.metrics_address()).await;
    let through = r#"layerd_store_transferred_bytes_total{direction="read"}"#;
    assert!(metrics.value(through) < 1_000_000.0);
}

#[tokio::test]
async fn a_hub_speaks_tls_and_wants_a_certificate_where_it_is_told_to() {
    let lab = Lab::new();
    let tls = Tls::make(lab.folder("tls"));
    let path = |path: PathBuf| path.display().to_string();
    let (ca, cert, key) = (
        path(tls.ca()),
        path(tls.server_cert()),
        path(tls.server_key()),
    );
    let arguments = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ];
    let hub = lab.hub("hub").arguments(arguments).start().await;
    assert!(hub.url().starts_with("https://"), "{}", hub.url());
    let (own_cert, own_key) = (path(tls.client_cert()), path(tls.client_key()));
    let arguments = [
        "--hub",
        hub.url(),
        "--hub-ca",
        &ca,
        "--hub-cert",
        &own_cert,
        "--hub-key",
        &own_key,
    ];
    let one = runner(&lab, "one", &arguments).await;
    build(&lab, &one, FROM, TO, "first")
        .await
        .ok()
        .assert_no_warning();
    let two = runner(&lab, "two", &arguments).await;
    let second = build(&lab, &two, FROM, TO, "second").await.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    let three = runner(&lab, "three", &["--hub", hub.url(), "--hub-ca", &ca]).await;
    let refused = build(&lab, &three, FROM, TO, "third").await.ok();
    refused.assert_all_ran(MULTISTAGE_STEPS);
    refused.assert_warned("the hub");
}
