//! The main job: daemons that never meet share every step that one of them
//! ran, intermediate stages included.

use crate::harness::{Build, BuildKit, Client, Fate, Lab, MULTISTAGE_STEPS, Runner, tree};

/// The user's whole interface.
const TO: &str = "type=gha-compatible,url=local,mode=max";
const FROM: &str = "type=gha-compatible,url=local";

/// A runner with this BuildKit, on the lab's one data directory.
async fn runner(lab: &Lab, name: &str, version: BuildKit) -> Runner {
    Runner::start(
        lab.buildkitd(name).version(version),
        lab.sidecar(name).data_dir(&lab.path("data")),
    )
    .await
}

/// Builds on `one`, then on the cold `two`: nothing runs there, and the result
/// has the same bytes.
async fn tells(lab: &Lab, one: &Client, two: &Client) {
    let context = lab.context("multistage");
    let build = Build::of(&context)
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    one.build(&build)
        .await
        .ok()
        .assert_all_ran(MULTISTAGE_STEPS);
    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("second"));
    two.build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&lab.path("second")));
}

#[tokio::test]
async fn a_cold_daemon_runs_nothing_with_buildx() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Current).await;
    let two = runner(&lab, "two", BuildKit::Current).await;
    tells(
        &lab,
        &lab.buildx(one.address()).await,
        &lab.buildx(two.address()).await,
    )
    .await;
}

#[tokio::test]
async fn a_cold_daemon_runs_nothing_with_buildctl() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Current).await;
    let two = runner(&lab, "two", BuildKit::Current).await;
    tells(
        &lab,
        &lab.buildctl(one.address()),
        &lab.buildctl(two.address()),
    )
    .await;
}

#[tokio::test]
async fn old_daemons_share_as_well_with_buildx() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Old).await;
    let two = runner(&lab, "two", BuildKit::Old).await;
    tells(
        &lab,
        &lab.buildx(one.address()).await,
        &lab.buildx(two.address()).await,
    )
    .await;
}

#[tokio::test]
async fn old_daemons_share_as_well_with_buildctl() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Old).await;
    let two = runner(&lab, "two", BuildKit::Old).await;
    tells(
        &lab,
        &lab.buildctl(one.address()),
        &lab.buildctl(two.address()),
    )
    .await;
}

#[tokio::test]
async fn an_old_daemon_and_a_new_one_share() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Old).await;
    let two = runner(&lab, "two", BuildKit::Current).await;
    tells(
        &lab,
        &lab.buildx(one.address()).await,
        &lab.buildx(two.address()).await,
    )
    .await;
}

#[tokio::test]
async fn a_new_daemon_and_an_old_one_share() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Current).await;
    let two = runner(&lab, "two", BuildKit::Old).await;
    tells(
        &lab,
        &lab.buildx(one.address()).await,
        &lab.buildx(two.address()).await,
    )
    .await;
}

#[tokio::test]
async fn mode_max_keeps_intermediate_stages_and_mode_min_only_the_result() {
    let lab = Lab::new();
    let context = lab.context("multistage");
    for (mode, intermediate) in [("max", Fate::Cached), ("min", Fate::Ran)] {
        let data = lab.path(&format!("data-{mode}"));
        let one = lab.runner(&format!("one-{mode}"), &data).await;
        let to = format!("type=gha-compatible,url=local,mode={mode}");
        let first = lab.path(&format!("first-{mode}"));
        let build = Build::of(&context).cache_to(&to).output_folder(&first);
        lab.buildx(one.address()).await.build(&build).await.ok();
        drop(one);

        let two = lab.runner(&format!("two-{mode}"), &data).await;
        let client = lab.buildx(two.address()).await;
        let stage = client
            .build(&Build::of(&context).target("deps").cache_from(FROM))
            .await
            .ok();
        assert_eq!(stage.progress.fate("second"), intermediate, "mode={mode}");
        drop(two);

        let three = lab.runner(&format!("three-{mode}"), &data).await;
        let second = lab.path(&format!("second-{mode}"));
        let build = Build::of(&context).cache_from(FROM).output_folder(&second);
        lab.buildx(three.address())
            .await
            .build(&build)
            .await
            .ok()
            .assert_all_cached(MULTISTAGE_STEPS);
        assert_eq!(tree(&first), tree(&second), "mode={mode}");
    }
}

#[tokio::test]
async fn a_changed_source_reruns_only_what_hangs_on_it() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Current).await;
    let context = lab.context("multistage");
    lab.buildx(one.address())
        .await
        .build(&Build::of(&context).cache_to(TO))
        .await
        .ok();
    std::fs::write(context.join("src/main.txt"), "another program\n").unwrap();
    let two = runner(&lab, "two", BuildKit::Current).await;
    let build = lab
        .buildx(two.address())
        .await
        .build(&Build::of(&context).cache_from(FROM))
        .await
        .ok();
    for cached in [
        "deps/first",
        "deps/second",
        "COPY src/assets",
        "RUN mkdir /out && cat /src/assets",
    ] {
        assert_eq!(build.progress.fate(cached), Fate::Cached, "{cached}");
    }
    for ran in [
        "COPY src/main",
        "RUN mkdir /out && cat /src/main",
        "COPY --from=compile",
        "RUN cat /app",
    ] {
        assert_eq!(build.progress.fate(ran), Fate::Ran, "{ran}");
    }
}

#[tokio::test]
async fn an_import_for_which_there_is_nothing_yet_is_one_line_and_the_build_runs() {
    let lab = Lab::new();
    let one = runner(&lab, "one", BuildKit::Current).await;
    let context = lab.context("multistage");
    for client in [lab.buildx(one.address()).await, lab.buildctl(one.address())] {
        let build = client
            .build(&Build::of(&context).cache_from(FROM))
            .await
            .ok();
        let said: Vec<_> = build
            .progress
            .messages()
            .into_iter()
            .filter(|line| line.contains("no cache yet"))
            .collect();
        assert_eq!(said.len(), 1, "{:#?}", build.progress.lines());
        assert!(
            said[0].contains("project default, ref refs/heads/main, scope buildkit"),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn a_cold_daemon_can_read_and_write_in_one_build() {
    let lab = Lab::new();
    let context = lab.context("multistage");
    let build = Build::of(&context).cache_from(FROM).cache_to(TO);
    let mut results = Vec::new();
    for name in ["one", "two", "three"] {
        let runner = runner(&lab, name, BuildKit::Current).await;
        let out = lab.path(&format!("out-{name}"));
        let outcome = lab
            .buildx(runner.address())
            .await
            .build(&build.clone().output_folder(&out))
            .await
            .ok();
        if name != "one" {
            outcome.assert_all_cached(MULTISTAGE_STEPS);
        }
        results.push(tree(&out));
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}
