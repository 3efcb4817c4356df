//! What an import saved a build is said at its end, counted, and kept; and it
//! is never more than what was saved.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Build, BuildKit, Fate, Fault, FaultyRunner, Lab, MULTISTAGE_STEPS, Metrics, Mount, Outcome,
    Runner, Sidecar, layerd, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// `multistage` with a step that takes two seconds.
fn slow_context(lab: &Lab) -> PathBuf {
    let context = lab.context("multistage");
    let dockerfile = context.join("Dockerfile");
    let text = std::fs::read_to_string(&dockerfile).unwrap();
    let slow = text.replace("RUN mkdir /deps &&", "RUN sleep 2 && mkdir /deps &&");
    assert_ne!(slow, text);
    std::fs::write(&dockerfile, slow).unwrap();
    context
}

/// What a build was told of its savings: once, or never.
#[track_caller]
fn told(outcome: &Outcome) -> Option<String> {
    let messages = outcome.progress.messages();
    let told: Vec<&str> = messages
        .into_iter()
        .filter(|line| line.contains("steps from cache"))
        .collect();
    assert!(told.len() <= 1, "{told:#?}");
    let told = told.first()?;
    Some(told.trim_start_matches("layerd: ").to_owned())
}

/// The seconds of a line that says `before` them.
#[track_caller]
fn seconds(outcome: &Outcome, before: &str) -> f64 {
    let line = told(outcome).unwrap_or_default();
    let seconds = line
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(" s saved"));
    let seconds = seconds.unwrap_or_else(|| panic!("not {before:?}: {line:?}"));
    seconds.parse().unwrap()
}

/// What the command says as soon as so many builds are kept.
async fn kept(data: &Path, builds: u64) -> Value {
    until("the savings to be kept", async || {
        let data = data.to_str().unwrap();
        let said = layerd(["cache", "savings", "--json", "--data-dir", data]).await;
        let said: Value = serde_json::from_str(&said.ok().stdout).unwrap();
        (said["total"]["builds"] == builds).then_some(said)
    })
    .await
}

async fn counted(sidecar: &Sidecar, basis: &str) -> f64 {
    let series = format!(r#"layerd_saved_seconds_total{{basis="{basis}"}}"#);
    Metrics::of(sidecar).await.value(&series)
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 0.051
}

#[tokio::test]
async fn the_seconds_that_cold_runners_were_saved_are_said_counted_and_kept() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = slow_context(&lab);
    let both = Build::of(&context).cache_from(FROM).cache_to(TO);
    let all = format!("{MULTISTAGE_STEPS} of {MULTISTAGE_STEPS} steps from cache");

    let one = lab.runner("one", &data).await;
    let first = lab.buildctl(one.address()).build(&both).await.ok();
    let nothing = format!("0 of {MULTISTAGE_STEPS} steps from cache");
    assert_eq!(told(&first), Some(nothing));
    assert_eq!(counted(&one.sidecar, "recorded").await, 0.0);

    let two = lab.runner("two", &data).await;
    let second = lab.buildctl(two.address()).build(&both).await.ok();
    let recorded = seconds(&second, &format!("{all}, from 1 builder, "));
    assert!(recorded >= 2.0, "{recorded}");
    let metered = counted(&two.sidecar, "recorded").await;
    assert!(near(metered, recorded), "{metered} and {recorded}");
    assert_eq!(counted(&two.sidecar, "estimated").await, 0.0);

    // It has them now: the same build again is saved nothing.
    let again = lab.buildctl(two.address()).build(&both).await.ok();
    assert_eq!(told(&again), Some(all.clone()));
    assert_eq!(counted(&two.sidecar, "recorded").await, metered);

    let said = kept(&data, 3).await;
    let total = &said["total"];
    let milliseconds = total["saved_ms"].as_u64().unwrap();
    assert!(near(milliseconds as f64 / 1000.0, metered), "{said:#}");
    assert_eq!(total["estimated_ms"], 0, "{said:#}");
    assert_eq!(total["steps"], 3 * MULTISTAGE_STEPS, "{said:#}");
    assert_eq!(total["cached"], 2 * MULTISTAGE_STEPS, "{said:#}");

    // Builds that export nothing; and one that does, of its result: BuildKit
    // lists what it imported with it.
    let from = Build::of(&context).cache_from(FROM);
    let min = from.clone().cache_to("type=gha-compatible,ref=min");
    let mut sum = milliseconds;
    for (name, build, carrier, about) in [
        ("pull", &from, "pull", "about "),
        ("session", &from, "session", "about "),
        ("min", &min, "pull", ""),
    ] {
        let spec = lab.sidecar(name).data_dir(&data);
        let spec = spec.arguments(["--import-carrier", carrier, "--ref", name]);
        let reader = Runner::start(lab.buildkitd(name), spec).await;
        let outcome = lab.buildx(reader.address()).await.build(build).await.ok();
        let saved = seconds(&outcome, &format!("{all}, from 1 builder, {about}"));
        assert!(near(saved, recorded), "{name}: {saved} and {recorded}");
        let mut metered = 0.0;
        for basis in ["recorded", "estimated"] {
            metered += counted(&reader.sidecar, basis).await;
        }
        assert!(near(metered, saved), "{name}: {metered} and {saved}");
        sum += (metered * 1000.0).round() as u64;
    }
    let said = kept(&data, 6).await;
    assert_eq!(said["total"]["saved_ms"], sum, "{said:#}");
    let refs = said["savings"].as_array().unwrap().iter();
    let refs: Vec<_> = refs.map(|saving| saving["ref"].as_str().unwrap()).collect();
    let expected = ["main", "min", "pull", "session"].map(|name| format!("refs/heads/{name}"));
    assert_eq!(refs, expected);
    let data = data.to_str().unwrap();
    let table = layerd(["cache", "savings", "--ref", "main", "--data-dir", data]).await;
    let table = table.ok().stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("total"), "{table}");
}

#[tokio::test]
async fn a_build_that_hits_in_part_is_saved_what_it_hit() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = slow_context(&lab);
    let one = lab.runner("one", &data).await;
    let first = Build::of(&context).cache_to(TO);
    lab.buildctl(one.address()).build(&first).await.ok();
    drop(one);
    std::fs::write(context.join("src/main.txt"), "another program\n").unwrap();
    let both = Build::of(&context).cache_from(FROM).cache_to(TO);
    let from = Build::of(&context).cache_from(FROM);
    for (name, version, build, about) in [
        ("reader", BuildKit::Current, &from, "about "),
        ("two", BuildKit::Old, &both, ""),
    ] {
        let spec = lab.buildkitd(name).version(version);
        let two = Runner::start(spec, lab.sidecar(name).data_dir(&data)).await;
        let outcome = lab.buildx(two.address()).await.build(build).await.ok();
        let cached = outcome.progress.with(Fate::Cached).len();
        assert!(0 < cached && cached < MULTISTAGE_STEPS, "{cached}");
        let before = format!("{cached} of {MULTISTAGE_STEPS} steps from cache");
        let saved = seconds(&outcome, &format!("{before}, from 1 builder, {about}"));
        assert!(saved >= 2.0, "{saved}");
    }
}

#[tokio::test]
async fn what_a_daemon_ran_itself_is_no_saving_though_its_sidecar_is_another() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = slow_context(&lab);
    let both = Build::of(&context).cache_from(FROM).cache_to(TO);
    let Runner { sidecar, buildkitd } = lab.runner("one", &data).await;
    let client = lab.buildctl(sidecar.address());
    let plain = Build::of(&context).cache_to(TO);
    assert_eq!(told(&client.build(&plain).await.ok()), None, "no import");
    drop(sidecar);
    let later = lab.sidecar("later").data_dir(&data);
    let later = later.buildkitd(&buildkitd.address).start().await;
    let from = Build::of(&context).cache_from(FROM);
    for build in [both, from] {
        let outcome = lab.buildctl(later.address()).build(&build).await.ok();
        let all = format!("{MULTISTAGE_STEPS} of {MULTISTAGE_STEPS} steps from cache");
        assert_eq!(told(&outcome), Some(all));
    }
    assert_eq!(counted(&later, "recorded").await, 0.0);
    assert_eq!(counted(&later, "estimated").await, 0.0);
    assert_eq!(kept(&data, 2).await["total"]["saved_ms"], 0);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_or_hangs_keeps_nothing_and_no_build_waits() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = slow_context(&lab);
    let writer = lab.runner("writer", &data).await;
    let build = Build::of(&context).cache_to(TO);
    lab.buildctl(writer.address()).build(&build).await.ok();
    drop(writer);
    let from = Build::of(&context).cache_from(FROM);
    let all = format!("{MULTISTAGE_STEPS} of {MULTISTAGE_STEPS} steps from cache");

    let hanging = FaultyRunner::start(&lab, "hanging", &data, Duration::from_secs(60)).await;
    hanging.fail(Fault::SavingsHang);
    let client = lab.buildctl(&hanging.address);
    let outcome = client.build(&from).await.ok();
    assert_eq!(told(&outcome), Some(all.clone()));
    drop(hanging);

    let at = lab.path("read-only");
    let mount = Mount::read_only(&data, &at);
    let runner = lab.runner("reader", &at).await;
    let outcome = lab.buildctl(runner.address()).build(&from).await.ok();
    outcome.assert_no_warning();
    let about = seconds(&outcome, &format!("{all}, from 1 builder, about "));
    assert!(about >= 2.0, "{about}");
    assert!(!runner.sidecar.log().contains("not kept"));
    drop(runner);
    drop(mount);
    assert_eq!(kept(&data, 0).await["savings"], Value::Array(Vec::new()));
}
