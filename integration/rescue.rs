//! A failed build's cache is kept: what succeeded is there for the next
//! attempt, nothing ran twice for it, and the client got its error all the same.

use std::path::{Path, PathBuf};

use crate::harness::control::{CacheEntry, CacheOptions, SolveRequest, files};
use crate::harness::grpc::Grpc;
use crate::harness::session::Session;
use crate::harness::{
    Build, BuildKit, Client, Fate, Gate, Lab, MULTISTAGE_STEPS, Manual, Outcome, Runner, Tap,
    attributes,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";
/// The steps of `testdata/mended` that succeed: ADD, two on the left, two on
/// the right.
const SUCCEEDED: usize = 5;

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
    first.assert_told("layerd: the build failed; exporting the cache of the 5 steps that did not, for at most 30 s");
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
async fn what_is_kept_leaves_no_build_in_the_history() {
    let lab = Lab::new();
    let one = lab.runner("one", &lab.path("data")).await;
    let client = lab.buildctl(one.address());
    let build = Build::of(&lab.context("failing")).cache_to(TO);
    let outcome = client.build(&build).await.failed();
    outcome.assert_told("as export 1");
    let listed = client.run(["debug", "histories"]).await.ok().stdout;
    let records = listed.lines().filter(|line| line.starts_with("COMPLETE"));
    assert_eq!(records.count(), 1, "{listed}");
}

#[tokio::test]
async fn what_was_imported_over_the_session_is_kept() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let build = Build::of(&context).cache_from(FROM).cache_to(TO);
    for (name, is_first) in [("one", true), ("two", false), ("three", false)] {
        let sidecar = lab.sidecar(name).data_dir(&data);
        let sidecar = sidecar.arguments(["--import-carrier=session"]);
        let runner = Runner::start(lab.buildkitd(name), sidecar).await;
        let client = lab.buildctl(runner.address());
        let outcome = client.build(&build).await.failed();
        outcome.assert_told("layerd: exported ");
        if !is_first {
            assert_kept(&outcome, SUCCEEDED);
        }
    }
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

#[tokio::test]
async fn a_target_that_is_the_context_of_another_is_kept() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let file = context.join("docker-bake.json");
    // The client has the first one evaluated on its own, so that its error comes
    // by the gateway; the first that has its error cancels the other.
    let text = format!(
        r#"{{"target": {{
            "below": {{"context": "{folder}", "cache-to": ["{TO}"]}},
            "above": {{"context": "{folder}", "contexts": {{"below": "target:below"}},
                       "cache-to": ["{TO},scope=above"],
                       "dockerfile-inline": "FROM below\nRUN true"}}
        }}}}"#,
        folder = context.display()
    );
    std::fs::write(&file, text).unwrap();
    let one = lab.runner("one", &data).await;
    let client = lab.buildx(one.address()).await;
    let arguments = [
        "bake",
        "--progress=rawjson",
        "--allow=fs=*",
        &format!("--file={}", file.display()),
        "below",
        "above",
    ];
    let outcome = client.run(arguments).await.failed();
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
    outcome.assert_told("as export 1");
    let two = lab.runner("two", &data).await;
    let build = Build::of(&context).cache_from("type=gha-compatible,scope=*");
    let again = lab.buildctl(two.address()).build(&build).await.failed();
    assert_kept(&again, SUCCEEDED);
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_has_nothing_run_again() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("gate"));
    let text = r#"
        FROM scratch AS base
        ADD base.tar /
        FROM base AS count
        ARG NOW
        RUN --mount=type=cache,target=/runs cp /runs/log /log
        FROM base
        COPY note /note
        RUN --mount=type=cache,target=/runs sleep 3 && echo ran >> /runs/log
        ARG PORT
        RUN until nc -w 1 127.0.0.1 "$PORT" < /dev/null; do sleep 0.1; done && exit 7
        "#;
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    std::fs::write(context.join("note"), "one").unwrap();
    let one = lab.runner("one", &data).await;
    let client = lab.buildctl(one.address());
    let gate = Gate::closed();
    let build = Build::of(&context)
        .cache_to(TO)
        .argument(&gate.buildctl_argument());
    let change = async {
        one.buildkitd.until_busy().await;
        std::fs::write(context.join("note"), "another").unwrap();
        gate.open().await
    };
    let (outcome, _open) = tokio::join!(client.build(&build), change);
    let outcome = outcome.failed();
    outcome.assert_warned("would run again");
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
    one.buildkitd.until_idle().await;
    assert_eq!(runs(&lab, &context, &one.buildkitd.address).await, 1);
}

/// Asks for `request`, with an export to layerd; it must fail.
async fn by_hand(lab: &Lab, request: SolveRequest) -> Manual {
    let one = lab.runner("one", &lab.path("data")).await;
    let grpc = Grpc::connect(one.address()).await;
    let _session = Session::open(&grpc, "by-hand").await;
    let request = SolveRequest {
        reference: "a-build".to_owned(),
        session: "by-hand".to_owned(),
        cache: Some(CacheOptions {
            exports: vec![CacheEntry::ours()],
            imports: Vec::new(),
        }),
        ..request
    };
    let manual = Manual::build(&grpc, &request).await;
    assert_ne!(manual.answer.code, 0, "{manual:#?}");
    manual
}

#[tokio::test]
async fn a_graph_that_its_client_sends_itself_is_kept() {
    let lab = Lab::new();
    let request = SolveRequest {
        definition: Some(files(&[("/a", "1"), ("/b", "2"), ("/a/c", "3")])),
        ..SolveRequest::default()
    };
    let manual = by_hand(&lab, request).await;
    let messages = manual.progress.messages().join("\n");
    assert!(messages.contains("the step that did not"), "{messages}");
    assert!(messages.contains("as export 1"), "{messages}");
}

#[tokio::test]
async fn a_frontend_that_its_client_names_itself_is_said_to_leave_nothing() {
    let lab = Lab::new();
    let dockerfile = "FROM scratch AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /missing /b\n";
    let request = SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_attributes: attributes([]),
        frontend_inputs: [
            ("context".to_owned(), files(&[("/a", "1")])),
            (
                "dockerfile".to_owned(),
                files(&[("/Dockerfile", dockerfile)]),
            ),
        ]
        .into(),
        ..SolveRequest::default()
    };
    let manual = by_hand(&lab, request).await;
    let warnings = manual.progress.warnings().join("\n");
    assert!(
        warnings.contains("its definition did not pass here"),
        "{manual:#?}"
    );
}

#[tokio::test]
async fn a_build_whose_sources_a_policy_converts_is_kept() {
    let lab = Lab::new();
    let (data, context) = (lab.path("data"), lab.context("mended"));
    let registry = lab.registry().await;
    let one = lab.runner("one", &data).await;
    let [old, new] = ["base:old", "base:new"].map(|name| registry.image(name));
    let push = Build::of(&context)
        .target("base")
        .output(&format!("type=image,name={new},push=true"));
    lab.buildctl(&one.buildkitd.address).build(&push).await.ok();
    let policy = lab.path("policy.json");
    let rule = format!(
        r#"{{"rules": [{{"action": "CONVERT", "selector": {{"identifier": "docker-image://{old}"}},
            "updates": {{"identifier": "docker-image://{new}"}}}}]}}"#
    );
    std::fs::write(&policy, rule).unwrap();
    let text = format!("FROM {old}\nRUN echo one > /one\nRUN echo two && exit 7\n");
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    let build = Build::of(&context)
        .cache_to(TO)
        .argument(&format!("--source-policy-file={}", policy.display()));
    let outcome = lab.buildctl(one.address()).build(&build).await.failed();
    assert!(outcome.verdict().contains("exit code: 7"), "{outcome:#?}");
    let two = lab.runner("two", &data).await;
    let build = build.cache_from(FROM);
    let again = lab.buildctl(two.address()).build(&build).await.failed();
    assert_eq!(again.progress.fate("RUN echo one"), Fate::Cached);
}
