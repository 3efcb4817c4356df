//! The daemon's build history shows what the user wrote, not what the sidecar
//! made of it, and no secret.

use serde_json::Value;

use crate::harness::{Build, Lab};

#[tokio::test]
async fn history_shows_the_users_own_import_without_its_token() {
    let lab = Lab::new();
    let data = lab.path("data");
    let runner = lab.runner("one", &data).await;
    let client = lab.buildx(runner.address()).await;
    let context = lab.context("multistage");
    client
        .build(&Build::of(&context).cache_to("type=gha-compatible,mode=max"))
        .await
        .ok();
    let entry = "type=gha-compatible,url=local,scope=buildkit,token=s3cr3t-one,ghtoken=s3cr3t-two";
    client
        .build(&Build::of(&context).cache_from(entry))
        .await
        .ok()
        .assert_no_warning();

    let text = client
        .run(["history", "inspect", "--format=json"])
        .await
        .ok()
        .stdout;
    let record: Value = serde_json::from_str(&text).unwrap();
    assert!(text.contains("gha-compatible"), "{record:#}");
    assert!(
        !text.contains("type=local") && !text.contains("\"local\""),
        "{record:#}"
    );
    assert!(!text.contains("s3cr3t"), "{record:#}");

    let listed = lab
        .buildctl(runner.address())
        .run(["debug", "histories", "--format={{json .}}"])
        .await
        .ok()
        .stdout;
    assert!(listed.contains("gha-compatible"), "{listed}");
    assert!(!listed.contains("s3cr3t"), "{listed}");
}

#[tokio::test]
async fn an_import_keeps_its_title_in_the_log_of_a_build_that_is_over() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let client = lab.buildx(runner.address()).await;
    let build = Build::of(&lab.context("multistage")).cache_from("type=gha-compatible");
    client.build(&build).await.ok();
    let log = client.run(["history", "logs", "--progress=plain"]).await;
    let log = log.ok();
    let text = log.stdout + &log.stderr;
    assert!(text.contains("layerd: importing cache of"), "{text}");
    assert!(!text.contains("importing cache manifest"), "{text}");
}

#[tokio::test]
async fn no_secret_is_logged() {
    let lab = Lab::new();
    let spec = lab.sidecar("one").arguments(["--log-format=json"]);
    let runner = crate::harness::Runner::start(lab.buildkitd("one"), spec).await;
    let entry = "type=gha-compatible,token=s3cr3t-one,ghtoken=s3cr3t-two";
    let build = Build::of(&lab.context("multistage"))
        .cache_from(entry)
        .cache_to(entry);
    lab.buildx(runner.address()).await.build(&build).await.ok();
    let log = runner.sidecar.log();
    assert!(!log.contains("s3cr3t"), "{log}");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
