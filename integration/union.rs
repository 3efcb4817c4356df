//! What many daemons exported is one cache: every step that any of them ran is
//! a hit for the next, and never with another step's content.

use std::path::{Path, PathBuf};

use futures::future::join_all;

use crate::harness::{Build, Fate, Lab, Outcome, Runner};

pub const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";
/// The stages whose sources a branch may change.
const PARTS: [&str; 3] = ["api", "web", "docs"];
/// How often a cold daemon imports the same union: what BuildKit would lose of
/// it, it loses at random.
const COLD_IMPORTS: usize = 8;

/// A cold daemon with a sidecar that stands for a branch.
pub async fn runner(lab: &Lab, name: &str, branch: &str) -> Runner {
    let sidecar = lab.sidecar(name).data_dir(&lab.path("data"));
    let sidecar = sidecar.arguments(["--ref", branch]);
    Runner::start(lab.buildkitd(name), sidecar).await
}

/// The context of a branch on which these parts were changed.
pub fn branch(lab: &Lab, name: &str, changed: &[&str]) -> PathBuf {
    let context = lab.folder(&format!("branch-{name}"));
    let source = lab.context("branches");
    std::fs::remove_dir(&context).unwrap();
    std::fs::rename(source, &context).unwrap();
    for part in changed {
        std::fs::write(
            context.join(format!("{part}.txt")),
            format!("{part} of {name}\n"),
        )
        .unwrap();
    }
    context
}

/// What a part of a result says it was made of, and all of it.
fn part(out: &Path, part: &str) -> (String, Vec<u8>) {
    let bytes = std::fs::read(out.join(part)).unwrap();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
    (String::from_utf8(line.to_vec()).unwrap(), bytes)
}

pub async fn build(lab: &Lab, runner: &Runner, build: &Build) -> Outcome {
    let outcome = lab.buildctl(runner.address()).build(build).await.ok();
    outcome.assert_no_warning();
    outcome
}

/// Four branches, each built and exported by a daemon that knows no other.
pub async fn four_branches(lab: &Lab) {
    let branches = [
        ("main", vec![]),
        ("one", vec!["api"]),
        ("two", vec!["web"]),
        ("three", vec!["docs"]),
    ];
    for (name, changed) in branches {
        let context = branch(lab, name, &changed);
        let daemon = runner(lab, name, name).await;
        let out = lab.path(&format!("out-{name}"));
        let made = Build::of(&context).cache_to(TO).output_folder(&out);
        build(lab, &daemon, &made).await;
    }
}

#[tokio::test]
async fn a_merge_of_two_branches_hits_every_step_that_any_branch_ran() {
    let lab = Lab::new();
    four_branches(&lab).await;
    let merged = lab.folder("merged");
    std::fs::remove_dir(&merged).unwrap();
    std::fs::rename(lab.context("branches"), &merged).unwrap();
    for (name, changed) in [("one", "api.txt"), ("two", "web.txt")] {
        let source = lab.path(&format!("branch-{name}")).join(changed);
        std::fs::copy(source, merged.join(changed)).unwrap();
    }
    let daemon = runner(&lab, "merge", "merge").await;
    let out = lab.path("out");
    let made = Build::of(&merged).cache_from(FROM).output_folder(&out);
    let outcome = build(&lab, &daemon, &made).await;
    // The result of the first COPY is of branch one; the others were never
    // made on top of it.
    let ran = outcome.progress.with(Fate::Ran);
    let on_top = |step: &&str| {
        step.contains("COPY --from=web")
            || step.contains("COPY --from=docs")
            || step.contains("sha256sum")
    };
    assert_eq!(ran.len(), 3, "{ran:?}");
    assert!(ran.iter().all(on_top), "{ran:?}");
    outcome.assert_told("out of 4 exports");
    for (name, of) in [
        ("api", &["one"][..]),
        ("web", &["two"]),
        ("docs", &["main", "one", "two"]),
    ] {
        let made = part(&out, name);
        assert_eq!(made.0, format!("{name} of {}", of[0]));
        let writers = of
            .iter()
            .map(|of| part(&lab.path(&format!("out-{of}")), name));
        assert!(writers.into_iter().any(|writer| writer == made), "{name}");
    }
}

#[tokio::test]
async fn every_tip_is_all_cached_for_every_cold_daemon_however_often_it_is_imported() {
    let lab = Lab::new();
    four_branches(&lab).await;
    let tips = ["main", "one", "two", "three"];
    for number in 0..COLD_IMPORTS {
        let name = tips[number % tips.len()];
        let daemon = runner(&lab, &format!("cold-{number}"), "reader").await;
        let out = lab.path(&format!("cold-out-{number}"));
        let context = lab.path(&format!("branch-{name}"));
        let made = Build::of(&context).cache_from(FROM).output_folder(&out);
        let outcome = build(&lab, &daemon, &made).await;
        // ADD, RUN; COPY and RUN of three parts; three COPY and a RUN.
        outcome.assert_all_cached(12);
        for of in PARTS {
            let branch = std::fs::read_to_string(context.join(format!("{of}.txt"))).unwrap();
            assert_eq!(part(&out, of).0, branch.trim(), "of {name}");
        }
    }
}

#[tokio::test]
async fn exports_at_the_same_instant_are_both_in_the_next_import() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let daemons = join_all(PARTS.map(|part| runner(&lab, part, "main"))).await;
    let builds = daemons.iter().zip(PARTS).map(async |(daemon, part)| {
        let made = Build::of(&context).target(part).cache_to(TO);
        build(&lab, daemon, &made).await;
    });
    join_all(builds).await;
    let reader = runner(&lab, "reader", "main").await;
    let made = Build::of(&context).cache_from(FROM);
    let outcome = build(&lab, &reader, &made).await;
    let cached = outcome.progress.with(Fate::Cached);
    for part in PARTS {
        let of_stage = cached
            .iter()
            .filter(|step| step.starts_with(&format!("[{part} ")));
        assert_eq!(of_stage.count(), 2, "{part}: {cached:?}");
    }
}

#[tokio::test]
async fn a_stage_of_another_writer_is_copied_from() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let writer = runner(&lab, "writer", "main").await;
    let made = Build::of(&context).target("api").cache_to(TO);
    build(&lab, &writer, &made).await;
    let second = runner(&lab, "second", "feature").await;
    let out = lab.path("second-out");
    let made = Build::of(&context)
        .cache_from(FROM)
        .cache_to(TO)
        .output_folder(&out);
    let outcome = build(&lab, &second, &made).await;
    for (step, fate) in [
        ("[api 2/2]", Fate::Cached),
        ("COPY --from=api", Fate::Ran),
        ("[web 2/2]", Fate::Ran),
    ] {
        assert_eq!(outcome.progress.fate(step), fate, "{step}");
    }
    // And a step after a step that only the other ref has.
    let third = runner(&lab, "third", "main").await;
    let again = lab.path("third-out");
    let made = Build::of(&context).cache_from(FROM).output_folder(&again);
    build(&lab, &third, &made).await.assert_all_cached(12);
    for of in PARTS {
        assert_eq!(part(&out, of), part(&again, of));
    }
}

#[tokio::test]
async fn build_arguments_and_platforms_stand_beside_each_other() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let variants = [
        [
            "--opt=build-arg:FLAVOUR=sweet",
            "--opt=platform=linux/amd64",
        ],
        ["--opt=build-arg:FLAVOUR=sour", "--opt=platform=linux/amd64"],
        ["--opt=build-arg:FLAVOUR=sweet", "--opt=platform=linux/386"],
    ];
    let variant = |number: usize| {
        let made = Build::of(&context).target("flavour");
        let [argument, platform] = variants[number];
        made.argument(argument).argument(platform)
    };
    for number in 0..variants.len() {
        let daemon = runner(&lab, &format!("writer-{number}"), "main").await;
        let out = lab.path(&format!("written-{number}"));
        let made = variant(number).cache_to(TO).output_folder(&out);
        build(&lab, &daemon, &made).await;
    }
    let reader = runner(&lab, "reader", "main").await;
    for number in 0..variants.len() {
        let out = lab.path(&format!("read-{number}"));
        let made = variant(number).cache_from(FROM).output_folder(&out);
        build(&lab, &reader, &made).await.assert_all_cached(2);
        let written = part(&lab.path(&format!("written-{number}")), "flavour");
        assert_eq!(written, part(&out, "flavour"));
    }
}

#[tokio::test]
async fn a_command_that_is_repeated_keeps_each_of_its_results() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let writer = runner(&lab, "writer", "main").await;
    let out = lab.path("written");
    let twice = || Build::of(&context).target("twice");
    build(&lab, &writer, &twice().cache_to(TO).output_folder(&out)).await;
    let reader = runner(&lab, "reader", "main").await;
    let again = lab.path("read");
    let made = twice().cache_from(FROM).output_folder(&again);
    build(&lab, &reader, &made).await.assert_all_cached(4);
    let [written, read] = [&out, &again].map(|out| std::fs::read(out.join("twice")).unwrap());
    assert_eq!(written.len(), 2000);
    assert_eq!(written, read);
}

#[tokio::test]
async fn an_old_result_is_made_anew_where_that_is_asked_for() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let writer = runner(&lab, "writer", "main").await;
    build(&lab, &writer, &Build::of(&context).cache_to(TO)).await;
    let reader = runner(&lab, "reader", "main").await;
    let made = Build::of(&context).cache_from("type=gha-compatible,max-age=7d");
    build(&lab, &reader, &made).await.assert_all_cached(12);
    let reader = runner(&lab, "late", "main").await;
    let made = Build::of(&context).cache_from("type=gha-compatible,max-age=0s");
    let outcome = build(&lab, &reader, &made).await;
    outcome.assert_all_ran(12);
    outcome.assert_told("new enough");
}
