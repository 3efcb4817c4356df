//! TLS with an authority of one's own, and HTTP/2, for the clients that a job
//! has.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use super::ask::VERSION;
use super::buildkit::{MAIN, gha, out};
use crate::harness::actions::Job;
use crate::harness::{Build, Hub, Lab, MULTISTAGE_STEPS, Outcome, Tls, runtime_token};
use crate::hub::noise;

async fn over_tls(lab: &Lab) -> (Hub, Tls) {
    let tls = Tls::make(lab.folder("tls"));
    let path = |path: PathBuf| path.display().to_string();
    let (cert, key) = (path(tls.server_cert()), path(tls.server_key()));
    let arguments = ["--tls-cert", &cert, "--tls-key", &key];
    let hub = lab.hub("hub").arguments(arguments).start().await;
    assert!(hub.url().starts_with("https://"), "{}", hub.url());
    (hub, tls)
}

#[tokio::test]
async fn actions_cache_saves_and_restores_over_tls() {
    let lab = Lab::new();
    let (hub, tls) = over_tls(&lab).await;
    let ca = tls.ca().display().to_string();
    let token = runtime_token("acme/shop", &MAIN);
    for version in [1, 2] {
        let job = |name: &str| {
            let folder = lab.path(&format!("{name}-{version}"));
            Job::new(folder, hub.url(), &token, version)
        };
        let key = format!("key-{version}");
        let one = job("one").variable("NODE_EXTRA_CA_CERTS", &ca);
        let content = noise(u64::from(version), 5 << 20);
        std::fs::write(one.folder().join("deps"), &content).unwrap();
        let saved = one.save("deps", &key).await;
        assert!(
            saved.result.as_i64().is_some_and(|id| id > 0),
            "{}",
            saved.log
        );
        let two = job("two").variable("NODE_EXTRA_CA_CERTS", &ca);
        let restored = two.restore("deps", &key, &[]).await;
        assert_eq!(restored.result, *key, "{}", restored.log);
        assert!(std::fs::read(two.folder().join("deps")).unwrap() == content);
        // Who does not know the authority goes on without a cache.
        let stranger = job("three").restore("deps", &key, &[]).await;
        assert_eq!(stranger.result, Value::Null, "{}", stranger.log);
    }
}

async fn build(lab: &Lab, name: &str, ca: &Path, from: Option<&str>, to: Option<&str>) -> Outcome {
    let daemon = lab.buildkitd(name);
    let daemon = daemon.environment("SSL_CERT_FILE", &ca.display().to_string());
    let daemon = daemon.start().await;
    let mut build =
        Build::of(&lab.context("multistage")).output_folder(&lab.path(name).join("out"));
    if let Some(from) = from {
        build = build.cache_from(from);
    }
    if let Some(to) = to {
        build = build.cache_to(&format!("{to},mode=max"));
    }
    lab.buildx(&daemon.address).await.build(&build).await.ok()
}

#[tokio::test]
async fn buildkitd_exports_and_imports_over_tls() {
    let lab = Lab::new();
    let (hub, tls) = over_tls(&lab).await;
    for version in [1, 2] {
        let token = runtime_token(&format!("acme/{version}"), &MAIN);
        let entry = gha(&hub, &token, version);
        let names = [format!("one-{version}"), format!("two-{version}")];
        let first = build(&lab, &names[0], &tls.ca(), None, Some(&entry)).await;
        first.assert_all_ran(MULTISTAGE_STEPS);
        let second = build(&lab, &names[1], &tls.ca(), Some(&entry), None).await;
        second.assert_all_cached(MULTISTAGE_STEPS);
        assert!(out(&lab, &names[0]) == out(&lab, &names[1]));
    }
}

/// curl, and what it says of an answer.
struct Curl {
    folder: PathBuf,
    options: Vec<String>,
}

impl Curl {
    /// The status and the body; the answer came over `http`.
    async fn ask(&self, http: &str, arguments: &[&str]) -> (u16, Vec<u8>) {
        let body = self.folder.join("body");
        let _ = std::fs::remove_file(&body);
        let output = Command::new("curl")
            .args([
                "-sS",
                "--noproxy",
                "*",
                "-w",
                "%{http_version} %{http_code}",
            ])
            .arg("-o")
            .arg(&body)
            .args(&self.options)
            .args(arguments)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said} {error}");
        let (version, status) = said.split_once(' ').unwrap();
        assert_eq!(version, http, "{arguments:?}");
        (
            status.parse().unwrap(),
            std::fs::read(&body).unwrap_or_default(),
        )
    }

    async fn twirp(&self, http: &str, url: &str, method: &str, body: &Value) -> Value {
        let url = format!("{url}/twirp/github.actions.results.api.v1.CacheService/{method}");
        let kind = "content-type: application/json";
        let (status, answer) = self
            .ask(http, &["-H", kind, "-d", &body.to_string(), &url])
            .await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }

    /// All that a client of the second version does.
    async fn saves_and_restores(&self, http: &str, url: &str) {
        let content = noise(9, 3 << 20);
        let file = self.folder.join("content");
        std::fs::write(&file, &content).unwrap();
        let file = format!("@{}", file.display());
        let name = json!({"key": "key", "version": VERSION});
        let created = self.twirp(http, url, "CreateCacheEntry", &name).await;
        let up = created["signed_upload_url"].as_str().unwrap();
        assert!(up.starts_with(url), "{up}");
        let block = format!("{up}&comp=block&blockid=YWJj");
        let put = ["-X", "PUT", "--data-binary", &file, &block];
        assert_eq!(self.ask(http, &put).await.0, 201);
        let list = format!("{up}&comp=blocklist");
        let names = "<BlockList><Latest>YWJj</Latest></BlockList>";
        let put = ["-X", "PUT", "-d", names, &list];
        assert_eq!(self.ask(http, &put).await.0, 201);
        let sized = json!({"key": "key", "version": VERSION, "size_bytes": content.len()});
        let ended = self
            .twirp(http, url, "FinalizeCacheEntryUpload", &sized)
            .await;
        assert_eq!(ended["ok"], true);
        let found = self
            .twirp(http, url, "GetCacheEntryDownloadURL", &name)
            .await;
        let down = found["signed_download_url"].as_str().unwrap();
        let (status, restored) = self.ask(http, &[down]).await;
        assert_eq!((status, restored == content), (200, true));
        let range = ["-H", "x-ms-range: bytes=1000000-1000099", down];
        let (status, part) = self.ask(http, &range).await;
        assert_eq!(
            (status, part[..] == content[1_000_000..1_000_100]),
            (206, true)
        );
        let wrong = ["-X", "PUT", "-d", "x", down];
        assert_eq!(self.ask(http, &wrong).await.0, 405);
    }
}

#[tokio::test]
async fn a_client_may_speak_http_2_over_tls_and_without() {
    let lab = Lab::new();
    let (hub, tls) = over_tls(&lab).await;
    let ca = tls.ca().display().to_string();
    let curl = |options: &[&str]| Curl {
        folder: lab.folder("curl"),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let second = curl(&["--http2", "--cacert", &ca]);
    second.saves_and_restores("2", hub.url()).await;
    let plain = lab.hub("plain").start().await;
    let second = curl(&["--http2-prior-knowledge"]);
    second.saves_and_restores("2", plain.url()).await;
    let old = lab.hub("old").start().await;
    let first = curl(&["--http1.1"]);
    first.saves_and_restores("1.1", old.url()).await;
}
