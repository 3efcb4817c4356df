//! What can go wrong while buildkitd pulls: what was named is delivered all the
//! same, or one build fails, is told why, and the next runs clean.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::harness::store::blobs;
use crate::harness::{Build, Fault, FaultyRunner, Lab, MULTISTAGE_STEPS, Tap, tree, until};

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
    outcome.assert_warned("cached layer sha256:");
    outcome.assert_warned("the next one runs clean");
    client.build(&build).await.ok();
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
    // Its client is killed.
    drop(first);
    go.send(true).unwrap();
    let outcome = second.await.ok();
    outcome.assert_no_warning();
    assert_eq!(tree(&lab.path("first")), tree(&out));
}

#[tokio::test]
async fn absurd_ranges_get_an_error_and_nothing_else() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = lab.context("multistage");
    let writer = lab.runner("writer", &data).await;
    let build = Build::of(&context).cache_to(TO);
    lab.buildctl(writer.address()).build(&build).await.ok();
    let tap = Tap::bind().await;
    let buildkitd = lab.buildkitd("cold").start().await;
    let sidecar = lab
        .sidecar("cold")
        .buildkitd(&buildkitd.address)
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
    lab.buildctl(sidecar.address()).build(&build).await.ok();
    let asked = tap.asked();
    let blob = asked.iter().find(|path| path.contains("/blobs/")).unwrap();
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
        let answer = get(&endpoint, blob, range).await;
        assert!(answer.starts_with("HTTP/1.1 416"), "{range}: {answer}");
    }
    let answer = get(&endpoint, blob, "bytes=1-").await;
    assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

/// The answer to a request for a part.
async fn get(endpoint: &str, path: &str, range: &str) -> String {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nrange: {range}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
