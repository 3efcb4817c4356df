//! What can go wrong while buildkitd pulls: what was named is delivered all the
//! same, or one build fails, is told why, and the next runs clean.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::harness::store::blobs;
use crate::harness::{
    Build, Buildkitd, Fault, FaultyRunner, Lab, MULTISTAGE_STEPS, Sidecar, Tap, Tapped, layerd,
    tree, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";
/// Longer than any fault here that ends.
const PATIENT: Duration = Duration::from_secs(60);

/// A lab with one export, its context, and a cold runner whose cache can be
/// made to fail.
async fn cold(patience: Duration) -> (Lab, PathBuf, FaultyRunner) {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = lab.context("multistage");
    let writer = lab.runner("writer", &data).await;
    let build = Build::of(&context)
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    lab.buildctl(writer.address()).build(&build).await.ok();
    let cold = FaultyRunner::start(&lab, "cold", &data, patience).await;
    (lab, context, cold)
}

#[tokio::test]
async fn a_read_that_breaks_in_mid_body_is_resumed_where_it_stopped() {
    let (lab, context, cold) = cold(PATIENT).await;
    cold.fail(Fault::ReadsBreak(20));
    let out = lab.path("out");
    let build = Build::of(&context).cache_from(FROM).output_folder(&out);
    let outcome = lab.buildctl(&cold.address).build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    outcome.assert_no_warning();
    assert_eq!(tree(&lab.path("first")), tree(&out));
}

#[tokio::test]
async fn a_read_that_stays_broken_fails_one_build_and_names_the_blob() {
    let (lab, context, cold) = cold(Duration::from_millis(500)).await;
    cold.fail(Fault::ReadsBreak(usize::MAX));
    let out = lab.path("out");
    let build = Build::of(&context).cache_from(FROM).output_folder(&out);
    let client = lab.buildctl(&cold.address);
    let outcome = client.build(&build).await.failed();
    outcome.assert_warned("can't be read");
    outcome.assert_warned("the next one runs clean");
    // However often BuildKit asks for a layer, it was waited for once.
    let warnings = outcome.progress.warnings();
    let mut lost: Vec<_> = warnings.iter().filter_map(|line| named(line)).collect();
    let told = lost.len();
    lost.sort_unstable();
    lost.dedup();
    assert_eq!(lost.len(), told, "{warnings:#?}");
    client.build(&build).await.ok();
    // Nothing is wrong with what is stored.
    let data = lab.path("data");
    layerd(["cache", "fsck", "--data-dir", data.to_str().unwrap()])
        .await
        .ok();
}

/// The layer that a warning is about.
fn named(warning: &str) -> Option<&str> {
    let (_, rest) = warning.split_once("cached layer ")?;
    rest.split_whitespace().next()
}

#[tokio::test]
async fn a_cache_that_hangs_when_exports_are_planned_fails_no_build_however_many_there_are() {
    let (lab, context, cold) = cold(PATIENT).await;
    cold.fail(Fault::PlansHang);
    let build = (0..5).fold(Build::of(&context), |build, scope| {
        build.cache_to(&format!("{TO},scope=s{scope}"))
    });
    let outcome = lab.buildctl(&cold.address).build(&build).await.ok();
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    outcome.assert_warned("whether it takes an export");
}

#[tokio::test]
async fn a_slow_disk_makes_a_build_slow_and_no_more() {
    let (lab, context, cold) = cold(PATIENT).await;
    cold.fail(Fault::ReadsCrawl);
    let out = lab.path("out");
    let build = Build::of(&context).cache_from(FROM).output_folder(&out);
    let outcome = lab.buildctl(&cold.address).build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&out));
}

#[tokio::test]
async fn a_look_up_that_hangs_is_an_empty_cache() {
    let (lab, context, cold) = cold(PATIENT).await;
    cold.fail(Fault::LookUpHangs);
    let build = Build::of(&context).cache_from("type=gha-compatible,timeout=1s");
    let outcome = lab.buildctl(&cold.address).build(&build).await.ok();
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    outcome.assert_warned("the look-up took longer than 1 s");
}

#[tokio::test]
async fn a_blob_that_goes_once_it_was_named_fails_one_build_at_most() {
    let (lab, context, cold) = cold(PATIENT).await;
    let (go, gate) = watch::channel(false);
    cold.fail(Fault::ReadsWait(gate));
    let out = lab.path("out");
    let build = Build::of(&context).cache_from(FROM).output_folder(&out);
    let client = lab.buildctl(&cold.address);
    let remove = async {
        until("the first layer is read", async || {
            (cold.waiting() > 0).then_some(())
        })
        .await;
        for blob in blobs(&lab.path("data")) {
            std::fs::remove_file(blob).unwrap();
        }
        cold.fail(Fault::None);
        go.send(true).unwrap();
    };
    let (outcome, ()) = tokio::join!(client.build(&build), remove);
    let outcome = outcome.failed();
    outcome.assert_warned("is not in the store");
    outcome.assert_warned("the next one runs clean");
    client.build(&build).await.ok();
}

#[tokio::test]
async fn a_build_goes_on_pulling_what_it_shares_with_one_that_has_ended() {
    let (lab, context, cold) = cold(PATIENT).await;
    let (go, gate) = watch::channel(false);
    cold.fail(Fault::ReadsWait(gate));
    let client = lab.buildctl(&cold.address);
    let first = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("cut"));
    // Another import, under another name; the steps are the same.
    let out = lab.path("out");
    let second = Build::of(&context)
        .cache_from("type=gha-compatible,fallback=refs/heads/other")
        .output_folder(&out);
    let begun = async |builds: usize| {
        until("the build has its import and reads", async || {
            (cold.looked_up() >= builds && cold.waiting() > 0).then_some(())
        })
        .await;
    };
    let mut first = Box::pin(client.build(&first));
    tokio::select! {
        outcome = &mut first => panic!("it did not wait: {outcome:#?}"),
        () = begun(1) => {}
    }
    let mut second = Box::pin(client.build(&second));
    tokio::select! {
        outcome = &mut first => panic!("it did not wait: {outcome:#?}"),
        outcome = &mut second => panic!("it did not wait: {outcome:#?}"),
        () = begun(2) => {}
    }
    // Its client is killed, and its build is over before a byte was read.
    drop(first);
    until("the first build has ended", async || {
        cold.has_solved("canceled").then_some(())
    })
    .await;
    go.send(true).unwrap();
    let outcome = second.await.ok();
    outcome.assert_no_warning();
    assert_eq!(tree(&lab.path("first")), tree(&out));
}

/// A cold runner that pulls one layer of 128 MiB through a tap.
struct Pulling {
    lab: Lab,
    _daemon: Buildkitd,
    sidecar: Sidecar,
    endpoint: String,
    tap: Tapped,
}

impl Pulling {
    /// All but the build itself.
    async fn prepare() -> (Self, Build) {
        let lab = Lab::new();
        let data = lab.path("data");
        let context = lab.context("big");
        let writer = lab.runner("writer", &data).await;
        let build = Build::of(&context).cache_to(TO);
        lab.buildctl(writer.address()).build(&build).await.ok();
        let tap = Tap::bind().await;
        let daemon = lab.buildkitd("cold").start().await;
        let sidecar = lab
            .sidecar("cold")
            .buildkitd(&daemon.address)
            .data_dir(&data)
            .arguments(["--import-carrier=pull"])
            .arguments([format!("--pull-advertise={}", tap.address)])
            .start()
            .await;
        let endpoint = sidecar.pull.clone().unwrap();
        let tap = tap.before(&endpoint);
        let build = Build::of(&context)
            .cache_from(FROM)
            .output_folder(&lab.path("out"));
        let prepared = Self {
            lab,
            _daemon: daemon,
            sidecar,
            endpoint,
            tap,
        };
        (prepared, build)
    }

    /// The path of a layer that was asked for.
    async fn layer(&self) -> String {
        until("a layer is asked for", async || {
            let mut asked = self.tap.asked().into_iter();
            asked.find(|path| path.contains("/blobs/"))
        })
        .await
    }
}

#[tokio::test]
async fn absurd_ranges_get_an_error_and_nothing_else() {
    let (pulling, build) = Pulling::prepare().await;
    let client = pulling.lab.buildctl(pulling.sidecar.address());
    client.build(&build).await.ok().assert_all_cached(3);
    let blob = pulling.layer().await;
    for range in [
        "bytes=-1",
        "bytes=5-2",
        "bytes=99999999999-",
        "bytes=99999999999999999999999999-",
        "bytes=-9223372036854775808-",
        "bytes=0-0,2-3",
        "lines=1-",
        "bytes=",
        "\u{ff}",
    ] {
        let answer = get(&pulling.endpoint, &blob, range).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 416"), "{range}: {answer}");
    }
    let answer = get(&pulling.endpoint, &blob, "bytes=100-").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
    let log = pulling.sidecar.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn strangers_who_ask_for_what_is_not_there_end_no_pull() {
    let (pulling, build) = Pulling::prepare().await;
    let client = pulling.lab.buildctl(pulling.sidecar.address());
    let strangers = async {
        pulling.layer().await;
        let mut asking = Vec::new();
        for _ in 0..600 {
            let mut stream = TcpStream::connect(&pulling.endpoint).await.unwrap();
            // One that is sent away does not matter here.
            let _ = stream
                .write_all(b"GET /x/y HTTP/1.1\r\nhost: x\r\n\r\n")
                .await;
            asking.push(stream);
        }
        asking
    };
    let (outcome, _asking) = tokio::join!(client.build(&build), strangers);
    outcome.ok().assert_all_cached(3);
}

#[tokio::test]
async fn a_body_that_can_not_be_completed_is_reset() {
    let (pulling, build) = Pulling::prepare().await;
    let client = pulling.lab.buildctl(pulling.sidecar.address());
    client.build(&build).await.ok();
    let sized = |blob: &PathBuf| blob.metadata().unwrap().len();
    let largest = blobs(&pulling.lab.path("data"))
        .into_iter()
        .max_by_key(sized)
        .unwrap();
    let name = largest.file_name().unwrap().to_str().unwrap();
    let asked = pulling.tap.asked();
    let path = asked.iter().find(|path| path.contains(name)).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&largest).unwrap();
    std::fs::write(&largest, bytes).unwrap();
    let ended = get(&pulling.endpoint, path, "bytes=0-").await;
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// The answer to a request for a part.
async fn get(endpoint: &str, path: &str, range: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nrange: {range}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
