//! A union that is larger than any one build: what is served of it hits, and
//! what is left out is said.

use std::path::PathBuf;

use crate::harness::neighbours::{found, publish};
use crate::harness::{Build, Lab, Outcome, Runner, tree};

/// A result that cannot come out twice: its steps write random bytes.
const CONTEXT: &str = "branches";
const STEPS: usize = 12;
/// What buildkitd may have taken in all.
const MEMORY: u64 = 1 << 30;
/// Of the neighbours' layers.
const BLOBS: usize = 500;

/// Builds once and exports to `main`, then has the neighbours export.
async fn project(lab: &Lab, records: usize) -> PathBuf {
    let context = lab.context(CONTEXT);
    let writer = lab.runner("writer", &lab.path("data")).await;
    let made = Build::of(&context)
        .cache_to("type=gha-compatible,mode=max")
        .output_folder(&lab.path("written"));
    let outcome = lab.buildctl(writer.address()).build(&made).await.ok();
    outcome.assert_all_ran(STEPS);
    drop(writer);
    publish(&lab.path("data"), records, BLOBS).await;
    context
}

/// A cold daemon's build of the same, which comes from the cache to the byte.
async fn assert_hits(lab: &Lab, build: Build, arguments: &[&str]) -> Outcome {
    let sidecar = lab.sidecar("reader").data_dir(&lab.path("data"));
    let sidecar = sidecar.arguments(arguments.iter().copied());
    let reader = Runner::start(lab.buildkitd("reader"), sidecar).await;
    let made = build.output_folder(&lab.path("read"));
    let outcome = lab.buildctl(reader.address()).build(&made).await.ok();
    outcome.assert_all_cached(STEPS);
    let [written, read] = ["written", "read"].map(|out| tree(&lab.path(out)));
    assert!(written == read, "the bytes differ");
    let memory = reader.buildkitd.peak_memory();
    assert!(memory < MEMORY, "buildkitd took {memory} bytes");
    outcome
}

fn says_what_is_left_out(outcome: &Outcome) -> bool {
    let messages = outcome.progress.messages();
    let said = |line: &&str| line.contains(" cache records are left out");
    messages.iter().any(said)
}

#[tokio::test]
async fn of_50_000_records_by_pull_those_of_any_ref_hit() {
    let lab = Lab::new();
    let context = project(&lab, 50_000).await;
    let build = Build::of(&context).cache_from("type=gha-compatible,ref=feature");
    let arguments = ["--import-carrier", "pull", "--max-graph-records", "200000"];
    let outcome = assert_hits(&lab, build, &arguments).await;
    assert!(!says_what_is_left_out(&outcome));
    let all = found(&lab.path("data"), u64::MAX).await;
    assert!(all.records >= 50_000);
    outcome.assert_told(&format!(": {} records", all.records));
}

#[tokio::test]
async fn of_5_000_records_by_session_those_of_the_own_ref_hit() {
    let lab = Lab::new();
    let context = project(&lab, 5_000).await;
    let build = Build::of(&context).cache_from("type=gha-compatible");
    let outcome = assert_hits(&lab, build, &["--import-carrier", "session"]).await;
    outcome.assert_told("and 1 MiB over a session");
    assert!(says_what_is_left_out(&outcome));
}

#[tokio::test]
async fn however_little_is_served_the_own_ref_comes_first() {
    let lab = Lab::new();
    let context = project(&lab, 5_000).await;
    let build = Build::of(&context).cache_from("type=gha-compatible");
    let arguments = ["--import-carrier", "pull", "--max-graph-records", "30"];
    let outcome = assert_hits(&lab, build, &arguments).await;
    assert!(says_what_is_left_out(&outcome));
}
