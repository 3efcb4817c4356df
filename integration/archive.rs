//! A cache that travels as a file: from a laptop to a hub and back, to
//! BuildKit itself, and through interruptions.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    Build, Client, Lab, MULTISTAGE_STEPS, Outcome, Postgres, Runner, SidecarSpec, layerd,
    layerd_with, objects, tree, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

async fn build(lab: &Lab, client: &Client, build: Build, out: &str) -> Outcome {
    let build = build.output_folder(&lab.path(out));
    client.build(&build).await.ok()
}

fn multistage(lab: &Lab) -> Build {
    Build::of(&lab.context("multistage"))
}

/// A cold runner before a hub: everything comes out of it.
async fn assert_all_at(lab: &Lab, name: &str, arguments: &[&str]) {
    let sidecar = lab.sidecar(name).arguments(arguments.iter().copied());
    assert_all_there(lab, name, sidecar).await;
}

/// A cold runner before that data directory.
async fn assert_all_in(lab: &Lab, name: &str, data: &str, arguments: &[&str]) {
    let sidecar = lab.sidecar(name).data_dir(Path::new(data));
    let sidecar = sidecar.arguments(arguments.iter().copied());
    assert_all_there(lab, name, sidecar).await;
}

async fn assert_all_there(lab: &Lab, name: &str, sidecar: SidecarSpec) {
    let runner = Runner::start(lab.buildkitd(name), sidecar).await;
    let client = lab.buildx(runner.address()).await;
    let out = format!("{name}-result");
    let build = build(lab, &client, multistage(lab).cache_from(FROM), &out).await;
    build.assert_all_cached(MULTISTAGE_STEPS);
    build.assert_no_warning();
    assert!(tree(&lab.path("first")) == tree(&lab.path(&out)));
}

/// A data directory that a build has exported to.
async fn laptop(lab: &Lab) -> String {
    let data = lab.path("laptop-data");
    let runner = lab.runner("laptop", &data).await;
    let client = lab.buildx(runner.address()).await;
    let first = build(lab, &client, multistage(lab).cache_to(TO), "first").await;
    first.assert_all_ran(MULTISTAGE_STEPS);
    first.assert_no_warning();
    text(&data)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

async fn cache(arguments: &[&str]) -> Value {
    let words = [&["cache"], arguments, &["--json"]].concat();
    let told = layerd(words).await.ok();
    serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"))
}

#[tokio::test]
async fn a_cache_of_a_laptop_seeds_a_hub_and_comes_back() {
    let lab = Lab::new();
    let data = laptop(&lab).await;
    let archive = text(&lab.path("cache.tar.zst"));
    let exported = cache(&["export", "-o", &archive, "--data-dir", &data]).await;
    assert_eq!(exported["exports"], 1, "{exported:#}");

    let postgres = Postgres::start();
    let store = objects::s3().await.s3_store("archive-hub");
    let arguments = ["--catalog", &postgres.database("hub"), "--blobs", &store];
    let hub = lab.hub("hub").arguments(arguments).start().await;
    let imported = cache(&["import", &archive, "--hub", hub.url()]).await;
    assert_eq!(imported["exports"], 1, "{imported:#}");
    assert_eq!(imported["layers"], exported["layers"], "{imported:#}");
    let again = cache(&["import", &archive, "--hub", hub.url()]).await;
    assert_eq!((&again["exports"], &again["known"]), (&0.into(), &1.into()));
    assert_all_at(&lab, "ci", &["--hub", hub.url()]).await;

    // By the hub, and by what it stands on.
    let (by_hub, by_store) = (
        text(&lab.path("hub.tar.zst")),
        text(&lab.path("store.tar.zst")),
    );
    cache(&["export", "-o", &by_hub, "--hub", hub.url()]).await;
    let export = ["export", "-o", &by_store];
    cache(&[&export[..], &arguments[..]].concat()).await;
    for (name, archive) in [("back-of-hub", &by_hub), ("back-of-store", &by_store)] {
        let seeded = text(&lab.path(&format!("{name}-data")));
        cache(&["import", archive, "--data-dir", &seeded]).await;
        assert_all_in(&lab, name, &seeded, &[]).await;
        layerd(["cache", "fsck", "--data-dir", &seeded]).await.ok();
    }
}

#[tokio::test]
async fn an_archive_passes_through_a_pipe_and_under_another_name() {
    let lab = Lab::new();
    let data = laptop(&lab).await;
    let seeded = text(&lab.path("seeded"));
    let piped = format!(
        "set -o pipefail; \"$0\" cache export -o - --data-dir '{data}' --quiet | \"$0\" cache import - --data-dir '{seeded}' --project acme/shop --ref dev"
    );
    let status = tokio::process::Command::new("bash")
        .args(["-c", &piped, env!("CARGO_BIN_EXE_layerd")])
        .status();
    assert!(status.await.unwrap().success());
    let listed = cache(&["ls", "--data-dir", &seeded]).await;
    assert_eq!(listed[0]["project"], "acme/shop", "{listed:#}");
    assert_eq!(listed[0]["ref"], "refs/heads/dev", "{listed:#}");
    let place = ["--project", "acme/shop", "--ref", "dev"];
    assert_all_in(&lab, "ci", &seeded, &place).await;
}

#[tokio::test]
async fn buildkit_itself_takes_an_archive_for_a_local_cache() {
    let lab = Lab::new();
    let data = laptop(&lab).await;
    let archive = lab.path("cache.tar.zst");
    cache(&["export", "-o", &text(&archive), "--data-dir", &data]).await;
    let folder = lab.path("layout");
    let file = std::fs::File::open(&archive).unwrap();
    let mut tar = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    tar.unpack(&folder).unwrap();
    let buildkitd = lab.buildkitd("alone").start().await;
    let client = lab.buildctl(&buildkitd.address);
    let from = format!("type=local,src={}", text(&folder));
    let second = build(&lab, &client, multistage(&lab).cache_from(&from), "second").await;
    second.assert_all_cached(MULTISTAGE_STEPS);
    assert!(tree(&lab.path("first")) == tree(&lab.path("second")));
}

#[tokio::test]
async fn an_import_asks_a_hub_by_its_token_and_says_what_that_may_not() {
    let lab = Lab::new();
    let data = laptop(&lab).await;
    let archive = text(&lab.path("cache.tar.zst"));
    cache(&["export", "-o", &archive, "--data-dir", &data]).await;
    let key = text(&lab.path("key.pem"));
    layerd(["token", "key", "-o", &key]).await.ok();
    let arguments = ["--auth", "token", "--token-key-file", &key];
    let hub = lab.hub("hub").arguments(arguments).start().await;
    let token = async |name: &str, write: &str| {
        let mint = [
            "token",
            "mint",
            "--token-key-file",
            &key,
            "--project",
            "default",
        ];
        let refs = ["--read", "**", "--write", write];
        let minted = layerd(mint.iter().chain(&refs)).await.ok();
        let file = lab.path(name);
        std::fs::write(&file, minted.stdout.trim()).unwrap();
        text(&file)
    };
    let (dev, all) = (token("dev", "dev").await, token("all", "**").await);
    let import = async |arguments: &[&str]| {
        let words = ["cache", "import", &archive, "--hub", hub.url()];
        layerd(words.iter().chain(arguments)).await
    };
    let refused = import(&[]).await.failed();
    assert!(refused.stderr.contains("token"), "{refused:?}");
    let refused = import(&["--hub-token-file", &dev]).await.failed();
    assert!(refused.stderr.contains("refused: latest"), "{refused:?}");
    assert!(refused.stderr.contains("refs/heads/main"), "{refused:?}");
    import(&["--hub-token-file", &dev, "--ref", "dev"])
        .await
        .ok();
    import(&["--hub-token-file", &all]).await.ok();
    assert_all_at(&lab, "ci", &["--hub", hub.url(), "--hub-token-file", &dev]).await;
}

#[tokio::test]
async fn an_import_that_is_interrupted_goes_on_where_it_ended() {
    let lab = Lab::new();
    let data = laptop(&lab).await;
    let archive = text(&lab.path("cache.tar.zst"));
    let exported = cache(&["export", "-o", &archive, "--data-dir", &data]).await;
    let seeded = lab.path("seeded");
    let mut import = tokio::process::Command::new(env!("CARGO_BIN_EXE_layerd"))
        .args(["cache", "import", "-", "--data-dir", &text(&seeded)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let bytes = std::fs::read(&archive).unwrap();
    let mut stdin = import.stdin.take().unwrap();
    let half = &bytes[..bytes.len() * 2 / 3];
    stdin.write_all(half).await.unwrap();
    until("a layer is there", async || {
        let blobs = std::fs::read_dir(seeded.join("blobs/sha256")).ok()?;
        (blobs.count() > 0).then_some(())
    })
    .await;
    let pid = import.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    rustix::process::kill_process(pid.unwrap(), Signal::TERM).unwrap();
    let ended = import.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("interrupted"), "{told}");
    drop(stdin);
    let imported = cache(&["import", &archive, "--data-dir", &text(&seeded)]).await;
    assert_eq!(imported["exports"], 1, "{imported:#}");
    let brought = imported["layers"].as_u64().unwrap();
    assert!(Some(brought) < exported["layers"].as_u64(), "{imported:#}");
    assert_all_in(&lab, "ci", &text(&seeded), &[]).await;
}

#[tokio::test]
async fn what_can_not_be_done_is_said_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let out = text(&lab.folder("out"));
    let file = format!("{out}/cache.tar.zst");
    let nothing = text(&lab.folder("nothing"));
    let failed = layerd(["cache", "export", "-o", &file, "--data-dir", &nothing]).await;
    assert!(failed.failed().stderr.contains("--data-dir"));
    let failed = layerd(["cache", "export", "-o", &out, "--data-dir", &nothing]).await;
    assert!(failed.failed().stderr.contains("no plain file"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    let seeded = text(&lab.path("seeded"));
    let failed = layerd(["cache", "import", &file, "--data-dir", &seeded]).await;
    assert!(failed.failed().stderr.contains("cache.tar.zst"));
    let words = ["cache", "import", "-", "--data-dir", &seeded];
    let failed = layerd_with(words, &[], "what is no archive").await.failed();
    assert!(failed.stderr.contains("layerd cache export"), "{failed:?}");
    let usage = layerd(["cache", "import"]).await;
    assert_eq!(usage.code, Some(2), "{usage:?}");
    let usage = layerd(["cache", "export", "-o", "x", "--scope", ""]).await;
    assert_eq!(usage.code, Some(2), "{usage:?}");
}
