//! A failed build's cache is kept: what succeeded is there for the next
//! attempt, nothing ran twice for it, and the client got its error all the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{
    Build, BuildKit, Client, Fate, Fault, FaultyRunner, Lab, MULTISTAGE_STEPS, Metrics, Outcome,
    Runner, Tap, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";
/// The steps of `testdata/mended` that succeed: ADD, two on the left, two on
/// the right.
const SUCCEEDED: usize = 5;
/// Longer than any read here.
const PATIENT: Duration = Duration::from_secs(60);

/// What the user is told first.
fn told(steps: usize, limit: &str) -> String {
    format!(
        "layerd: the build failed; exporting the cache of the {steps} steps that did not, for at most {limit} s"
    )
}

/// Every step that succeeded came from a cache, and the rest failed or was not
/// begun.
#[track_caller]
fn assert_kept(outcome: &Outcome, steps: usize) {
    let progress = &outcome.progress;
    let (cached, ran) = (progress.with(Fate::Cached), progress.with(Fate::Ran));
    assert!(
        cached.len() == steps && ran.is_empty(),
        "{cached:#?} {ran:#?}\n{}",
        outcome.stderr
    );
}

/// Lets the failing step of `testdata/mended` succeed.
fn mend(context: &Path) {
    std::fs::write(context.join("verdict"), "true\n").unwrap();
}

/// What `build` gives on a daemon, without its last words.
async fn result(client: &Client, build: Build, out: PathBuf) -> (Outcome, [Vec<u8>; 2]) {
    let outcome = client.build(&build.output_folder(&out)).await.ok();
    let read = |name| std::fs::read(out.join(name)).unwrap();
    (outcome, [read("left.bin"), read("right.bin")])
}

/// How often the counted steps ran on a daemon.
async fn runs(lab: &Lab, context: &Path, daemon: &str) -> usize {
    let out = lab.path("count");
    let build = Build::of(context)
        .target("count")
        .argument("--opt=build-arg:NOW=1")
        .output_folder(&out);
    lab.buildctl(daemon).build(&build).await.ok();
    let log = std::fs::read_to_string(out.join("log")).unwrap();
    log.lines().count()
}

/// A build of two stages fails above both; then a cold daemon fails at once
/// where it failed, and a third one ends it, with the very bytes of the first.
async fn next_attempt_hits(version: BuildKit, buildx: bool) {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let runner = async |name: &str| {
        let buildkitd = lab.buildkitd(name).version(version);
        Runner::start(buildkitd, lab.sidecar(name).data_dir(&data)).await
    };
    let client = async |address: &str| {
        if buildx {
            lab.buildx(address).await
        } else {
            lab.buildctl(address)
        }
    };
    let plain = Build::of(&context);
    let build = plain.clone().cache_from(FROM).cache_to(TO);

    let one = runner("one").await;
    let first = client(one.address()).await.build(&build).await.failed();
    first.assert_told(&told(SUCCEEDED, "30"));
    first.assert_told("layerd: exported ");
    first.assert_no_warning();
    let direct = client(&one.buildkitd.address).await;
    let without = direct.build(&plain).await.failed();
    assert_eq!(first.code, without.code);
    assert_eq!(first.verdict(), without.verdict());
    assert!(first.verdict().contains("exit code: 7"), "{first:#?}");

    let two = runner("two").await;
    let again = client(two.address()).await.build(&build).await.failed();
    assert_kept(&again, SUCCEEDED);
    assert_eq!(again.verdict(), without.verdict());

    mend(&context);
    let (_, made) = result(&direct, plain.clone(), lab.path("made")).await;
    let three = runner("three").await;
    let client = client(three.address()).await;
    let (mended, kept) = result(&client, build, lab.path("kept")).await;
    assert_eq!(made, kept, "what is kept is what was made");
    let cached = mended.progress.with(Fate::Cached);
    assert_eq!(cached.len(), SUCCEEDED - 1, "{cached:#?}");
    assert_eq!(runs(&lab, &context, &one.buildkitd.address).await, 2);
}

#[tokio::test]
async fn the_next_attempt_with_buildx_hits_every_step_that_succeeded() {
    next_attempt_hits(BuildKit::Current, true).await;
}

#[tokio::test]
async fn the_next_attempt_with_buildctl_hits_every_step_that_succeeded() {
    next_attempt_hits(BuildKit::Current, false).await;
}

#[tokio::test]
async fn the_next_attempt_on_an_old_daemon_hits_every_step_that_succeeded() {
    next_attempt_hits(BuildKit::Old, true).await;
}

#[tokio::test]
async fn what_is_kept_is_counted_as_published_and_leaves_no_build_in_the_history() {
    let lab = Lab::new();
    let one = lab.runner("one", &lab.path("data")).await;
    let client = lab.buildctl(one.address());
    let build = Build::of(&lab.context("failing")).cache_to(TO);
    client
        .build(&build)
        .await
        .failed()
        .assert_told("as export 1");
    let listed = client.run(["debug", "histories"]).await.ok().stdout;
    let records = listed.lines().filter(|line| line.starts_with("COMPLETE"));
    assert_eq!(records.count(), 1, "{listed}");
    let seen = Metrics::of(&one.sidecar).await;
    let exports = |outcome: &str| {
        let labels = format!(r#"carrier="session",outcome="{outcome}""#);
        seen.value(&format!("layerd_exports_total{{{labels}}}"))
    };
    assert_eq!((exports("published"), exports("unfinished")), (1.0, 0.0));
    assert_eq!(seen.value(r#"layerd_solves_total{outcome="failed"}"#), 1.0);
}

#[tokio::test]
async fn with_mode_min_both_ends_are_kept() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let build = Build::of(&context).cache_from(FROM).cache_to(FROM);
    let one = lab.runner("one", &data).await;
    lab.buildctl(one.address()).build(&build).await.failed();
    let two = lab.runner("two", &data).await;
    let again = lab.buildctl(two.address()).build(&build).await.failed();
    assert_kept(&again, SUCCEEDED);
}

#[tokio::test]
async fn a_build_that_ignores_its_cache_keeps_what_it_made() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let one = lab.runner("one", &data).await;
    let client = lab.buildx(one.address()).await;
    client.build(&Build::of(&context)).await.failed();
    let build = Build::of(&context).cache_to(TO);
    let anew = build.clone().argument("--no-cache");
    let outcome = client.build(&anew).await.failed();
    outcome.assert_told("layerd: exported ");
    // The cache is ignored by whoever asks for it alone.
    mend(&context);
    let (_, made) = result(&client, Build::of(&context), lab.path("made")).await;
    let two = lab.runner("two", &data).await;
    let client = lab.buildx(two.address()).await;
    let build = Build::of(&context).cache_from(FROM);
    let (_, kept) = result(&client, build, lab.path("kept")).await;
    assert_eq!(made, kept);
    // Its cache mount began anew with it.
    assert_eq!(runs(&lab, &context, &one.buildkitd.address).await, 2);
}

#[tokio::test]
async fn a_build_that_fails_in_its_output_keeps_all_its_steps() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("multistage"));
    let one = lab.runner("one", &data).await;
    let output = "type=image,name=127.0.0.1:1/nobody,push=true";
    let build = Build::of(&context).cache_to(TO).output(output);
    let outcome = lab.buildctl(one.address()).build(&build).await.failed();
    outcome.assert_told("as export 1");
    let two = lab.runner("two", &data).await;
    let build = Build::of(&context).cache_from(FROM);
    let outcome = lab.buildctl(two.address()).build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn what_was_imported_and_not_pulled_is_kept_without_being_pulled() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("multistage"));
    let writer = lab.runner("writer", &data).await;
    let whole = Build::of(&context).cache_to(TO);
    lab.buildctl(writer.address()).build(&whole).await.ok();
    let file = context.join("Dockerfile");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}RUN exit 9\n")).unwrap();
    // Once without an export, so that it is known what the build itself pulls.
    let mut asked = Vec::new();
    for limit in ["0", "30s"] {
        let tap = Tap::bind().await;
        let buildkitd = lab.buildkitd(limit).start().await;
        let sidecar = lab
            .sidecar(limit)
            .buildkitd(&buildkitd.address)
            .data_dir(&data)
            .arguments(["--pull-advertise", &tap.address])
            .arguments(["--failed-export-timeout", limit])
            .start()
            .await;
        let tapped = tap.before(sidecar.pull.as_deref().unwrap());
        let build = Build::of(&context).cache_from(FROM).cache_to(TO);
        let outcome = lab.buildctl(sidecar.address()).build(&build).await.failed();
        assert_kept(&outcome, MULTISTAGE_STEPS);
        let exports = outcome.progress.messages();
        let exported = exports.iter().any(|line| line.contains("layerd: exported"));
        assert_eq!(exported, limit != "0", "{exports:#?}");
        let paths = tapped.asked();
        let blobs = paths.iter().filter_map(|path| path.split_once("/blobs/"));
        let mut blobs: Vec<String> = blobs.map(|(_, blob)| blob.to_owned()).collect();
        blobs.sort();
        asked.push(blobs);
    }
    assert!(!asked[0].is_empty(), "the last step needs its parents");
    assert_eq!(asked[0], asked[1]);
    let next = lab.runner("next", &data).await;
    let build = Build::of(&context).cache_from(FROM);
    let outcome = lab.buildctl(next.address()).build(&build).await.failed();
    assert_kept(&outcome, MULTISTAGE_STEPS);
}

#[tokio::test]
async fn with_a_time_out_of_zero_nothing_is_exported() {
    let lab = Lab::new();
    let data = lab.path("data");
    let sidecar = lab.sidecar("one").data_dir(&data);
    let sidecar = sidecar.arguments(["--failed-export-timeout=0s"]);
    let one = Runner::start(lab.buildkitd("one"), sidecar).await;
    let build = Build::of(&lab.context("failing")).cache_to(TO);
    let outcome = lab.buildctl(one.address()).build(&build).await.failed();
    assert!(outcome.progress.messages().is_empty(), "{outcome:#?}");
    assert!(
        !data.join("blobs").exists()
            || std::fs::read_dir(data.join("blobs/sha256"))
                .unwrap()
                .count()
                == 0
    );
}

/// A runner whose exports hang once they are written, a build that fails on it,
/// and the same straight to its daemon.
async fn hanging(lab: &Lab) -> (FaultyRunner, Build, Client) {
    let runner = FaultyRunner::start(lab, "one", &lab.path("data"), PATIENT).await;
    runner.fail(Fault::PublishHangs);
    let build = Build::of(&lab.context("mended")).cache_to(TO);
    let client = lab.buildctl(&runner.address);
    (runner, build, client)
}

#[tokio::test]
async fn an_export_that_hangs_is_cut_off_and_the_error_comes() {
    let lab = Lab::new();
    let (runner, build, client) = hanging(&lab).await;
    let outcome = client.build(&build).await.failed();
    outcome.assert_told(&told(SUCCEEDED, "5"));
    outcome.assert_warned("it took longer than 5 s (--failed-export-timeout)");
    assert_eq!(runner.waiting(), 1);
    let direct = Build::of(&lab.path("contexts/mended"));
    let without = lab.buildctl(runner.daemon()).build(&direct).await.failed();
    assert_eq!(
        (outcome.code, outcome.verdict()),
        (without.code, without.verdict())
    );
}

#[tokio::test]
async fn a_daemon_that_dies_meanwhile_leaves_the_error_as_it_was() {
    let lab = Lab::new();
    let (mut runner, build, client) = hanging(&lab).await;
    let mut building = Box::pin(client.build(&build));
    tokio::select! {
        outcome = &mut building => panic!("it did not wait: {outcome:#?}"),
        () = until_hanging(&runner) => {}
    }
    runner.kill_buildkitd().await;
    let outcome = building.await.failed();
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
}

async fn until_hanging(runner: &FaultyRunner) {
    until("the export is written", async || {
        (runner.waiting() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_meanwhile_ends_it() {
    let lab = Lab::new();
    let (runner, build, client) = hanging(&lab).await;
    let line = told(SUCCEEDED, "5");
    client.build_interrupted(&build, &line).await.failed();
    // The daemon is as it was: the next build comes through.
    runner.fail(Fault::None);
    let outcome = client.build(&build).await.failed();
    outcome.assert_told("as export 1");
}

#[tokio::test]
async fn a_door_that_closes_waits_for_it() {
    let lab = Lab::new();
    let (runner, build, client) = hanging(&lab).await;
    let closing = async {
        until_hanging(&runner).await;
        runner.drain();
    };
    let (outcome, ()) = tokio::join!(client.build(&build), closing);
    let outcome = outcome.failed();
    outcome.assert_warned("it took longer than 5 s");
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
}

#[tokio::test]
async fn an_interrupted_build_keeps_nothing() {
    let lab = Lab::new();
    let one = lab.runner("one", &lab.path("data")).await;
    let slow = Build::of(&lab.context("slow")).cache_to(TO);
    for client in [lab.buildx(one.address()).await, lab.buildctl(one.address())] {
        let outcome = client.build_interrupted(&slow, "waiting").await.failed();
        let messages = outcome.progress.messages();
        assert!(messages.is_empty(), "{messages:#?}");
    }
    one.buildkitd.until_idle().await;
    let after = Build::of(&lab.context("multistage")).cache_to(TO);
    let outcome = lab.buildctl(one.address()).build(&after).await.ok();
    outcome.assert_told("as export 1");
}

#[tokio::test]
async fn every_target_of_a_bake_keeps_its_own() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let file = context.join("docker-bake.json");
    let target = |name: &str, stage: &str, scope: &str| {
        format!(
            r#""{name}": {{"context": "{}", "target": "{stage}", "cache-to": ["{TO},scope={scope}"]}}"#,
            context.display()
        )
    };
    let text = format!(
        r#"{{"group": {{"default": {{"targets": ["whole", "part"]}}}}, "target": {{{}, {}}}}}"#,
        target("whole", "right", "whole"),
        target("part", "left", "part"),
    );
    std::fs::write(&file, text).unwrap();
    let one = lab.runner("one", &data).await;
    let client = lab.buildx(one.address()).await;
    let arguments = [
        "bake",
        "--progress=rawjson",
        "--allow=fs=*",
        &format!("--file={}", file.display()),
    ];
    let outcome = client.run(arguments).await.failed();
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
    let two = lab.runner("two", &data).await;
    let build = Build::of(&context).cache_from(&format!("{FROM},scope=whole"));
    let again = lab.buildctl(two.address()).build(&build).await.failed();
    assert_kept(&again, SUCCEEDED);
}
