//! Imports by pull: lazily where buildkitd reaches the sidecar's port, over the
//! session where it does not.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::store::{blobs, rot};
use crate::harness::{Build, BuildKit, Buildkitd, Lab, MULTISTAGE_STEPS, Metrics, Sidecar, tree};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// A cold runner whose imports travel as `carrier` says.
async fn cold(lab: &Lab, name: &str, version: BuildKit, carrier: &[&str]) -> (Buildkitd, Sidecar) {
    let buildkitd = lab.buildkitd(name).version(version).start().await;
    let sidecar = lab
        .sidecar(name)
        .buildkitd(&buildkitd.address)
        .data_dir(&lab.path("data"))
        .arguments(carrier.iter().copied())
        .start()
        .await;
    (buildkitd, sidecar)
}

/// A lab with one export in its data directory, and its result aside.
async fn filled() -> (Lab, PathBuf) {
    let lab = Lab::new();
    let context = lab.context("multistage");
    let writer = lab.runner("writer", &lab.path("data")).await;
    let build = Build::of(&context)
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    lab.buildctl(writer.address()).build(&build).await.ok();
    (lab, context)
}

#[tokio::test]
async fn a_fully_cached_build_with_an_export_reads_no_layer() {
    let (lab, context) = filled().await;
    for version in [BuildKit::Current, BuildKit::Old] {
        let name = format!("{version:?}");
        let (_daemon, sidecar) = cold(&lab, &name, version, &["--import-carrier", "pull"]).await;
        let build = Build::of(&context).cache_from(FROM).cache_to(TO);
        let outcome = lab.buildctl(sidecar.address()).build(&build).await.ok();
        outcome.assert_all_cached(MULTISTAGE_STEPS);
        outcome.assert_told("imported cache of project default");
        let read = r#"layerd_blob_bytes_total{direction="read"}"#;
        assert_eq!(Metrics::of(&sidecar).await.value(read), 0.0);
    }
}

#[tokio::test]
async fn what_is_pulled_is_what_was_exported() {
    let (lab, context) = filled().await;
    for version in [BuildKit::Current, BuildKit::Old] {
        let name = format!("{version:?}");
        let (_daemon, sidecar) = cold(&lab, &name, version, &["--import-carrier", "auto"]).await;
        let out = lab.path(&format!("out-{name}"));
        let build = Build::of(&context).cache_from(FROM).output_folder(&out);
        let outcome = lab.buildx(sidecar.address()).await.build(&build).await.ok();
        outcome.assert_told("imported cache of project default");
        assert_eq!(tree(&lab.path("first")), tree(&out));
    }
}

#[tokio::test]
async fn where_the_port_is_not_reached_the_session_carries() {
    let (lab, context) = filled().await;
    let carrier = [
        "--import-carrier",
        "auto",
        "--pull-advertise",
        "127.0.0.1:1",
    ];
    let (_daemon, sidecar) = cold(&lab, "two", BuildKit::Current, &carrier).await;
    let out = lab.path("out");
    let build = Build::of(&context).cache_from(FROM).output_folder(&out);
    let outcome = lab.buildctl(sidecar.address()).build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&out));
}

#[tokio::test]
async fn blobs_that_have_rotted_fail_one_build_at_most() {
    let (lab, context) = filled().await;
    rot(&lab.path("data"));
    let (_daemon, sidecar) = cold(
        &lab,
        "two",
        BuildKit::Current,
        &["--import-carrier", "pull"],
    )
    .await;
    let client = lab.buildctl(sidecar.address());
    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("out"));
    client.build(&build).await.assert_warned("is lost");
    client.build(&build).await.ok();
}

#[tokio::test]
async fn the_endpoint_gives_nothing_to_whoever_does_not_know_a_name() {
    let lab = Lab::new();
    let (_daemon, sidecar) = cold(
        &lab,
        "one",
        BuildKit::Current,
        &["--import-carrier", "pull"],
    )
    .await;
    let address = sidecar.pull.clone().unwrap();
    let unknown = format!("layerd-{}", "0".repeat(32));
    let digest = format!("sha256:{}", "0".repeat(64));
    for (request, status) in [
        (format!("GET /{unknown}/manifests/cache"), "404"),
        (format!("GET /{unknown}/blobs/{digest}"), "404"),
        (format!("GET /{unknown}/blobs/../../etc/passwd"), "404"),
        ("GET /".to_owned(), "404"),
        ("GET /..%2f..%2fetc%2fpasswd".to_owned(), "404"),
        (format!("PUT /{unknown}/manifests/cache"), "405"),
        (format!("DELETE /{unknown}/blobs/{digest}"), "405"),
        (format!("HEAD /{unknown}/manifests/cache"), "405"),
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let wire = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(wire.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let (lab, context) = filled().await;
    let (_daemon, sidecar) = cold(
        &lab,
        "two",
        BuildKit::Current,
        &["--import-carrier", "pull"],
    )
    .await;
    let address = sidecar.pull.clone().unwrap();
    raise_file_limit();
    let mut silent = Vec::new();
    for _ in 0..10_000 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let build = Build::of(&context).cache_from(FROM);
    let outcome = lab.buildctl(sidecar.address()).build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
}

/// Lets this process have as many open files as it may.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

#[tokio::test]
async fn a_daemon_that_lives_on_hits_with_a_new_import_after_its_sidecar_was_restarted() {
    let (lab, context) = filled().await;
    let (_daemon, mut sidecar) = cold(&lab, "two", BuildKit::Current, &[]).await;
    let client = lab.buildctl(sidecar.address());
    let build = Build::of(&context).cache_from(FROM);
    let outcome = client.build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert!(sidecar.terminate().await.success());
    let before = sidecar.pull.clone();
    sidecar = sidecar.start_again().await;
    assert_ne!(sidecar.pull, before, "another port");
    let out = lab.path("out");
    let outcome = client.build(&build.output_folder(&out)).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&out));
}

#[tokio::test]
async fn a_daemon_that_lives_on_builds_without_an_import_and_without_its_sidecar() {
    let (lab, context) = filled().await;
    let (daemon, mut sidecar) = cold(&lab, "two", BuildKit::Current, &[]).await;
    let client = lab.buildctl(sidecar.address());
    let build = Build::of(&context);
    let lazily = client.build(&build.clone().cache_from(FROM)).await.ok();
    lazily.assert_all_cached(MULTISTAGE_STEPS);
    // What was never pulled is run again; nothing fails for it.
    let target = build.clone().target("compile");
    let out = lab.path("with");
    client.build(&target.output_folder(&out)).await.ok();
    assert!(sidecar.terminate().await.success());
    let out = lab.path("without");
    let direct = lab.buildctl(&daemon.address);
    direct.build(&build.output_folder(&out)).await.ok();
    let names = |folder: &str| tree(&lab.path(folder)).into_keys().collect::<Vec<_>>();
    assert_eq!(names("first"), names("without"));
}

#[tokio::test]
async fn an_archive_is_written_straight_from_layers_that_were_never_pulled() {
    let (lab, context) = filled().await;
    for version in [BuildKit::Current, BuildKit::Old] {
        let name = format!("{version:?}");
        let (_daemon, sidecar) = cold(&lab, &name, version, &["--import-carrier=pull"]).await;
        let archive = lab.path(&format!("{name}.tar"));
        let build = Build::of(&context).cache_from(FROM);
        let build = build.output(&format!("type=docker,dest={}", archive.display()));
        let outcome = lab.buildctl(sidecar.address()).build(&build).await.ok();
        outcome.assert_all_cached(MULTISTAGE_STEPS);
        assert!(
            !outcome.stderr.contains("extracting sha256:"),
            "{}",
            outcome.stderr
        );
        // Its layers are the blobs that were exported.
        let listed = Command::new("tar").arg("-tf").arg(&archive).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        let stored = blobs(&lab.path("data"));
        let stored = stored
            .iter()
            .map(|blob| blob.file_name().unwrap().to_str().unwrap());
        let layers = stored.filter(|blob| listed.contains(blob)).count();
        // ADD, two COPY, one RUN.
        assert_eq!(layers, 4, "{listed}");
    }
}
