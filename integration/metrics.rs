//! What an operator sees: after known builds, known numbers.

use std::path::Path;

use http::{HeaderMap, HeaderName};
use prost::Message as _;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::control::{CacheEntry, CacheOptions, SolveRequest, files};
use crate::harness::grpc::{Grpc, frame};
use crate::harness::session::Session;
use crate::harness::{
    Build, Client, Collector, Lab, MULTISTAGE_STEPS, Metrics, Mount, Runner, get, layerd, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";
const STEPS: f64 = MULTISTAGE_STEPS as f64;

/// The metrics of a runner as soon as `solves` calls of Solve have ended, with
/// the progress and the sessions that belong to them.
async fn settled(runner: &Runner, solves: f64) -> Metrics {
    until("the builds to be counted", async || {
        let now = Metrics::of(&runner.sidecar).await;
        let over = now.sum("layerd_solves_total") >= solves && now.value("layerd_sessions") == 0.0;
        over.then_some(now)
    })
    .await
}

fn import(outcome: &str) -> String {
    format!(r#"layerd_imports_total{{carrier="pull",outcome="{outcome}"}}"#)
}

fn export(outcome: &str) -> String {
    format!(r#"layerd_exports_total{{carrier="session",outcome="{outcome}"}}"#)
}

fn vertices(result: &str) -> String {
    format!(r#"layerd_vertices_total{{result="{result}"}}"#)
}

fn solves(outcome: &str) -> String {
    format!(r#"layerd_solves_total{{outcome="{outcome}"}}"#)
}

/// Number and bytes of the blobs of a data directory.
fn stored(data: &Path) -> (f64, f64) {
    let blobs = std::fs::read_dir(data.join("blobs/sha256")).unwrap();
    let sizes = blobs.map(|blob| blob.unwrap().metadata().unwrap().len() as f64);
    sizes.fold((0.0, 0.0), |(count, sum), size| (count + 1.0, sum + size))
}

/// A writer and a cold reader, with either client.
async fn tells(lab: &Lab, one: Runner, writer: Client, two: Runner, reader: Client) {
    let data = lab.path("data");
    let context = lab.context("multistage");
    let build = Build::of(&context).cache_from(FROM).cache_to(TO);
    writer.build(&build).await.ok().assert_no_warning();
    let seen = settled(&one, 1.0).await;
    assert_eq!(seen.value(&solves("ok")), 1.0, "{seen:#?}");
    assert_eq!(seen.value(&vertices("ran")), STEPS, "{seen:#?}");
    assert_eq!(seen.value(&vertices("cached")), 0.0, "{seen:#?}");
    assert_eq!(seen.value(&vertices("failed")), 0.0, "{seen:#?}");
    assert_eq!(seen.value(&import("empty")), 1.0, "{seen:#?}");
    assert_eq!(seen.value(&export("published")), 1.0, "{seen:#?}");
    assert_eq!(seen.sum("layerd_exports_total"), 1.0, "{seen:#?}");
    assert_eq!(seen.value("layerd_leases"), 1.0, "{seen:#?}");
    assert_eq!(seen.sum("layerd_ingest_errors_total"), 0.0, "{seen:#?}");
    let (blobs, bytes) = stored(&data);
    let written = r#"layerd_blob_bytes_total{direction="written"}"#;
    assert_eq!(seen.value(written), bytes, "{seen:#?}");
    let uploads = r#"layerd_blob_seconds_count{direction="written"}"#;
    assert_eq!(seen.value(uploads), blobs, "{seen:#?}");
    until("the size of the store", async || {
        let now = Metrics::of(&one.sidecar).await;
        let size = (
            now.value("layerd_store_blobs"),
            now.value("layerd_store_bytes"),
        );
        (size == (blobs, bytes)).then_some(())
    })
    .await;

    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("out"));
    let outcome = reader.build(&build).await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    let seen = settled(&two, 1.0).await;
    assert_eq!(seen.value(&vertices("cached")), STEPS, "{seen:#?}");
    assert_eq!(seen.value(&vertices("ran")), 0.0, "{seen:#?}");
    assert_eq!(seen.value(&import("served")), 1.0, "{seen:#?}");
    assert_eq!(seen.sum("layerd_imports_total"), 1.0, "{seen:#?}");
    assert_eq!(seen.sum("layerd_exports_total"), 0.0, "{seen:#?}");
    assert_eq!(seen.value("layerd_leases"), 1.0, "{seen:#?}");
    assert_eq!(seen.sum("layerd_blob_read_errors_total"), 0.0, "{seen:#?}");
    let read = seen.value(r#"layerd_blob_bytes_total{direction="read"}"#);
    assert!(read > 0.0 && read <= bytes, "{read} of {bytes}");
    let version = env!("CARGO_PKG_VERSION");
    let info = format!(r#"layerd_build_info{{version="{version}"}}"#);
    assert_eq!(seen.value(&info), 1.0);
}

#[tokio::test]
async fn known_builds_have_known_numbers_with_buildctl() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let two = lab.runner("two", &data).await;
    let clients = [&one, &two].map(|runner| lab.buildctl(runner.address()));
    let [writer, reader] = clients;
    tells(&lab, one, writer, two, reader).await;
}

#[tokio::test]
async fn known_builds_have_known_numbers_with_buildx() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let two = lab.runner("two", &data).await;
    let writer = lab.buildx(one.address()).await;
    let reader = lab.buildx(two.address()).await;
    tells(&lab, one, writer, two, reader).await;
}

#[tokio::test]
async fn every_log_line_of_a_build_names_it() {
    let lab = Lab::new();
    let buildkitd = lab.buildkitd("one");
    let spec = lab.sidecar("one").arguments(["--log-format=json"]);
    let one = Runner::start(buildkitd, spec).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO);
    lab.buildctl(one.address()).build(&build).await.ok();
    let log = one.sidecar.log();
    let mut ids = Vec::new();
    for said in ["no cache yet", "exported "] {
        let line = log.lines().find(|line| line.contains(said)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["span"]["name"], "build", "{line:#}");
        ids.push(line["span"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_build_is_traced_where_the_environment_asks_for_it() {
    let lab = Lab::new();
    let collector = Collector::start().await;
    let spec = lab
        .sidecar("one")
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    let mut one = Runner::start(lab.buildkitd("one"), spec).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO);
    lab.buildctl(one.address()).build(&build).await.ok();
    // What is left is sent at the end.
    assert!(one.sidecar.terminate().await.success());
    for part in ["layerd", "build", "look_up", "publish", "exported "] {
        assert!(collector.has(part), "no {part}\n{}", one.sidecar.log());
    }
}

#[tokio::test]
async fn a_clients_trace_goes_on_in_ours() {
    let lab = Lab::new();
    let collector = Collector::start().await;
    let spec = lab
        .sidecar("one")
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    let mut one = Runner::start(lab.buildkitd("one"), spec).await;
    let grpc = Grpc::connect(one.address()).await;
    let session = Session::open(&grpc, "by-hand").await;
    let (trace, span) = ([0x5a; 16], [0xa5; 8]);
    let parent = format!("00-{}-{}-01", hex::encode(trace), hex::encode(span));
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("traceparent"),
        parent.parse().unwrap(),
    )]);
    let request = SolveRequest {
        reference: "a-build".to_owned(),
        session: "by-hand".to_owned(),
        definition: Some(files(&[("/a", "1")])),
        cache: Some(CacheOptions {
            exports: Vec::new(),
            imports: vec![CacheEntry::ours()],
        }),
        ..SolveRequest::default()
    };
    let solve = "/moby.buildkit.v1.Control/Solve";
    let answer = grpc
        .call_with(solve, &headers, frame(&request.encode_to_vec()))
        .await;
    assert_eq!(answer.code, 0, "{answer:#?}");
    drop((session, grpc));
    assert!(one.sidecar.terminate().await.success());
    assert!(collector.has(trace), "{}", one.sidecar.log());
    assert!(collector.has(span), "{}", one.sidecar.log());
}

#[tokio::test]
async fn a_build_is_one_trace_through_its_sidecar_and_the_hub() {
    let lab = Lab::new();
    let (near, far) = (Collector::start().await, Collector::start().await);
    let exporter = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let hub = lab.hub("hub").environment(exporter, &far.endpoint);
    let mut hub = hub.start().await;
    let spec = lab.sidecar("one").arguments(["--hub", hub.url()]);
    let spec = spec.environment(exporter, &near.endpoint);
    let mut one = Runner::start(lab.buildkitd("one"), spec).await;
    let grpc = Grpc::connect(one.address()).await;
    let session = Session::open(&grpc, "by-hand").await;
    let trace = [0x5b; 16];
    let parent = format!("00-{}-{}-01", hex::encode(trace), hex::encode([0xa5; 8]));
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("traceparent"),
        parent.parse().unwrap(),
    )]);
    let request = SolveRequest {
        reference: "a-build".to_owned(),
        session: "by-hand".to_owned(),
        definition: Some(files(&[("/a", "1")])),
        cache: Some(CacheOptions {
            exports: Vec::new(),
            imports: vec![CacheEntry::ours()],
        }),
        ..SolveRequest::default()
    };
    let solve = "/moby.buildkit.v1.Control/Solve";
    let request = frame(&request.encode_to_vec());
    let answer = grpc.call_with(solve, &headers, request).await;
    assert_eq!(answer.code, 0, "{answer:#?}");
    drop((session, grpc));
    assert!(one.sidecar.terminate().await.success());
    assert!(hub.terminate().await.success());
    assert!(near.has(trace), "{}", one.sidecar.log());
    assert!(far.has(trace), "{}", hub.log());
}

#[tokio::test]
async fn a_sidecar_that_drains_is_not_ready() {
    let lab = Lab::new();
    let mut one = lab.runner("one", &lab.path("data")).await;
    let address = one.sidecar.metrics.clone().unwrap();
    // A session keeps it from ending at once.
    let grpc = Grpc::connect(one.address()).await;
    let session = Session::open(&grpc, "by-hand").await;
    assert_eq!(get(&address, "/readyz").await.0, 200);
    one.sidecar.signal(Signal::TERM);
    let told = until("it is not ready", async || {
        let (status, text) = get(&address, "/readyz").await;
        (status == 503).then_some(text)
    })
    .await;
    assert!(told.starts_with("sidecar: "), "{told}");
    assert_eq!(get(&address, "/healthz").await.0, 200);
    drop((session, grpc));
    assert!(one.sidecar.ended().await.success());
}

#[tokio::test]
async fn a_failed_build_and_its_export_count_as_such() {
    let lab = Lab::new();
    let build = Build::of(&lab.context("failing")).cache_to(TO);
    for (limit, outcome) in [("30s", "published"), ("0", "unfinished")] {
        let spec = lab.sidecar(limit).data_dir(&lab.path("data"));
        let spec = spec.arguments(["--failed-export-timeout", limit]);
        let one = Runner::start(lab.buildkitd(limit), spec).await;
        lab.buildctl(one.address()).build(&build).await.failed();
        let seen = settled(&one, 1.0).await;
        assert_eq!(seen.value(&solves("failed")), 1.0, "{seen:#?}");
        assert_eq!(seen.value(&export(outcome)), 1.0, "{seen:#?}");
        assert_eq!(seen.sum("layerd_exports_total"), 1.0, "{seen:#?}");
        assert_eq!(seen.value(&vertices("failed")), 1.0, "{seen:#?}");
    }
}

#[tokio::test]
async fn a_full_disk_shows_as_errors_of_its_kind() {
    let lab = Lab::new();
    let disk = lab.path("disk");
    let _mount = Mount::small_disk(&disk, 2 << 20);
    let one = lab.runner("one", &disk).await;
    let entry = format!("{TO},compression=uncompressed");
    let build = Build::of(&lab.context("multistage")).cache_to(&entry);
    lab.buildctl(one.address()).build(&build).await.ok();
    let seen = settled(&one, 1.0).await;
    assert!(seen.value(r#"layerd_ingest_errors_total{kind="full"}"#) >= 1.0);
    assert_eq!(seen.value(&export("failed")), 1.0, "{seen:#?}");
}

#[tokio::test]
async fn a_sidecar_is_ready_when_its_daemon_answers_and_its_store_opens() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("daemon").start().await;
    let blocked = lab.path("a-file");
    std::fs::write(&blocked, "no folder").unwrap();
    let nowhere = format!("unix://{}", lab.path("nowhere.sock").display());
    for (name, buildkitd, data, wrong) in [
        ("sound", &daemon.address, lab.path("data"), &[][..]),
        ("alone", &nowhere, lab.path("data"), &["buildkitd: "]),
        ("blocked", &daemon.address, blocked, &["store: "]),
    ] {
        let spec = lab.sidecar(name).buildkitd(buildkitd).data_dir(&data);
        let sidecar = spec.start().await;
        let address = sidecar.metrics.clone().unwrap();
        let (status, text) = get(&address, "/readyz").await;
        assert_eq!(status, if wrong.is_empty() { 200 } else { 503 }, "{text}");
        if !wrong.is_empty() {
            assert_eq!(text.lines().count(), wrong.len(), "{text}");
            wrong
                .iter()
                .for_each(|part| assert!(text.contains(part), "{text}"));
        }
        assert_eq!(get(&address, "/healthz").await.0, 200);
        assert_eq!(get(&address, "/elsewhere").await.0, 404);
    }
}

#[tokio::test]
async fn a_data_directory_that_is_lost_is_not_ready_and_not_made_anew() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("daemon").start().await;
    let data = lab.path("data");
    let spec = lab.sidecar("one").buildkitd(&daemon.address);
    let sidecar = spec.data_dir(&data).start().await;
    assert!(data.join("catalog.db").exists(), "made before the start");
    let address = sidecar.metrics.clone().unwrap();
    assert_eq!(get(&address, "/readyz").await.0, 200);

    let away = lab.path("away");
    std::fs::rename(&data, &away).unwrap();
    let (status, text) = get(&address, "/readyz").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.starts_with("store: ") && text.contains("is not there"));
    assert!(!data.exists());

    // What is left of a lost mount.
    std::fs::create_dir(&data).unwrap();
    let (status, text) = get(&address, "/readyz").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("holds no catalog"), "{text}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);

    std::fs::remove_dir(&data).unwrap();
    std::fs::rename(&away, &data).unwrap();
    assert_eq!(get(&address, "/readyz").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn metrics_can_be_off_and_a_taken_address_that_was_asked_for_is_an_error() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("daemon").start().await;
    let spec = lab.sidecar("off").buildkitd(&daemon.address);
    let off = spec.arguments(["--metrics=off"]).start().await;
    assert_eq!(off.metrics, None);
    let shown = lab.sidecar("on").buildkitd(&daemon.address).start().await;
    let taken = shown.metrics.clone().unwrap();
    let listen = format!("unix://{}", lab.path("second.sock").display());
    let arguments = ["sidecar", "--listen", &listen, "--metrics", &taken];
    let refused = layerd(arguments).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&taken), "{}", refused.stderr);
}
