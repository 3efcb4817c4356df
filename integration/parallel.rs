//! Many builds at once: they share daemons, steps and the data directory, and
//! none disturbs another.

use futures::future::join_all;

use crate::harness::{Build, Lab, MULTISTAGE_STEPS, tree};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

#[tokio::test]
async fn two_daemons_export_at_once_to_one_place() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let two = lab.runner("two", &data).await;
    let context = lab.context("multistage");
    let clients = [
        lab.buildx(one.address()).await,
        lab.buildx(two.address()).await,
    ];
    let builds = clients
        .iter()
        .zip(["one", "two"])
        .map(async |(client, name)| {
            let build = Build::of(&context)
                .cache_to(TO)
                .output_folder(&lab.path(&format!("out-{name}")));
            client.build(&build).await.ok().assert_no_warning();
        });
    join_all(builds).await;
    let three = lab.runner("three", &data).await;
    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("out-three"));
    lab.buildx(three.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
    let served = tree(&lab.path("out-three"));
    let either = [tree(&lab.path("out-one")), tree(&lab.path("out-two"))];
    assert!(
        either.contains(&served),
        "the result is neither of the two that were exported"
    );
}

#[tokio::test]
async fn builds_of_one_daemon_run_side_by_side() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let client = lab.buildctl(one.address());
    let context = lab.context("multistage");
    // The whole last, so that it is what an import gets.
    for stages in [["deps", "compile", "assets"].as_slice(), &["final"]] {
        join_all(stages.iter().map(async |stage| {
            let build = Build::of(&context).target(stage).cache_to(TO);
            client.build(&build).await.ok().assert_no_warning();
        }))
        .await;
    }
    // A vertex that builds share is reported as cached to some of them only,
    // so that it is the bytes that tell whether a step ran again.
    let stages = ["deps", "compile", "assets", "final"];
    let build = |stage: &'static str, runner: &str| {
        let out = lab.path(&format!("{runner}-{stage}"));
        Build::of(&context).target(stage).output_folder(&out)
    };
    for stage in stages {
        client.build(&build(stage, "one")).await.ok();
    }
    let two = lab.runner("two", &data).await;
    let client = lab.buildctl(two.address());
    join_all(stages.map(async |stage| {
        client
            .build(&build(stage, "two").cache_from(FROM))
            .await
            .ok();
    }))
    .await;
    for stage in stages {
        let [ours, theirs] =
            ["one", "two"].map(|runner| tree(&lab.path(&format!("{runner}-{stage}"))));
        assert_eq!(ours, theirs, "{stage}");
    }
}

#[tokio::test]
async fn a_cold_daemon_serves_the_same_build_many_times_at_once() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let context = lab.context("multistage");
    let first = Build::of(&context)
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    lab.buildctl(one.address()).build(&first).await.ok();
    let two = lab.runner("two", &data).await;
    let client = lab.buildctl(two.address());
    join_all((0..4).map(async |number| {
        let out = lab.path(&format!("out-{number}"));
        client
            .build(
                &Build::of(&context)
                    .cache_from(FROM)
                    .cache_to(TO)
                    .output_folder(&out),
            )
            .await
            .ok();
        assert_eq!(tree(&out), tree(&lab.path("first")));
    }))
    .await;
}

#[tokio::test]
async fn bake_shares_every_target() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = lab.context("bake");
    let file = context.join("docker-bake.hcl");
    let mut results = Vec::new();
    for name in ["one", "two"] {
        let runner = lab.runner(name, &data).await;
        let client = lab.buildx(runner.address()).await;
        let out = lab.path(&format!("out-{name}"));
        let mut arguments = vec![
            "bake".to_owned(),
            "--progress=rawjson".to_owned(),
            "--allow=fs=*".to_owned(),
        ];
        arguments.push(format!("--file={}", file.display()));
        arguments.push(format!("--var=OUT={}", out.display()));
        arguments.push(format!("--set=*.context={}", context.display()));
        arguments.push(format!("--var=CACHE_TO={TO}"));
        arguments.push(format!("--var=CACHE_FROM={FROM}"));
        let outcome = client.run(&arguments).await.ok();
        if name == "two" {
            let ran = outcome.progress.with(crate::harness::Fate::Ran);
            assert!(ran.is_empty(), "{ran:?}");
        }
        results.push(tree(&out));
    }
    assert_eq!(results[0], results[1]);
}
