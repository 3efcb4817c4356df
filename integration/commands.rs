//! `layerd cache ls|show|fsck` on a data directory that builds have filled.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Build, Lab, Outcome, Runner, layerd, layerd_with};

/// A data directory with two exports: `multistage` in two scopes of two refs.
struct Filled {
    data: PathBuf,
    runner: Runner,
    lab: Lab,
}

impl Filled {
    async fn new() -> Self {
        let lab = Lab::new();
        let data = lab.path("data");
        let runner = lab.runner("one", &data).await;
        let client = lab.buildctl(runner.address());
        let build = Build::of(&lab.context("multistage"));
        for entry in ["scope=linux,mode=max", "ref=feature,mode=min"] {
            let build = build
                .clone()
                .cache_to(&format!("type=gha-compatible,{entry}"));
            client.build(&build).await.ok().assert_no_warning();
        }
        Self { data, runner, lab }
    }

    async fn cache(&self, arguments: &[&str]) -> Outcome {
        let place = ["--data-dir", self.data.to_str().unwrap()];
        layerd(["cache"].iter().chain(arguments).chain(&place)).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let text = self
            .cache(&[arguments, &["--json"]].concat())
            .await
            .ok()
            .stdout;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The first of the blobs, by name.
    fn a_blob(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.data.join("blobs/sha256")).unwrap();
        entries.map(|entry| entry.unwrap().path()).min().unwrap()
    }
}

#[tokio::test]
async fn ls_lists_every_export_for_people_and_as_json() {
    let filled = Filled::new().await;
    let table = filled.cache(&["ls"]).await.ok().stdout;
    for word in [
        "refs/heads/main",
        "refs/heads/feature",
        "linux",
        "buildkit",
        "default",
    ] {
        assert!(table.contains(word), "no {word} in\n{table}");
    }
    let list = filled.json(&["ls"]).await;
    let exports = list.as_array().expect("a list of exports");
    assert_eq!(exports.len(), 2, "{list:#}");
    for key in [
        "id", "project", "ref", "scope", "builder", "records", "layers", "bytes", "time",
    ] {
        assert!(!exports[0][key].is_null(), "no {key} in {list:#}");
    }
    assert_eq!(
        exports[0]["ref"], "refs/heads/feature",
        "the newest comes first: {list:#}"
    );
}

#[tokio::test]
async fn show_lists_the_layers_and_records_of_an_export() {
    let filled = Filled::new().await;
    let shown = filled.json(&["show", "1"]).await;
    let listed = filled.json(&["ls"]).await;
    for key in ["layers", "records"] {
        let count = shown[key]
            .as_array()
            .unwrap_or_else(|| panic!("no {key} in {shown:#}"))
            .len();
        assert_eq!(Some(count as u64), listed[1][key].as_u64(), "{key}");
    }
    let text = filled.cache(&["show", "1"]).await.ok().stdout;
    assert!(text.contains("sha256:"), "{text}");
    let unknown = filled.cache(&["show", "77"]).await.failed();
    assert!(unknown.stderr.contains("77"), "{}", unknown.stderr);
}

#[tokio::test]
async fn fsck_is_silent_about_a_sound_store_and_names_what_is_damaged() {
    let filled = Filled::new().await;
    filled.cache(&["fsck"]).await.ok();
    let blob = filled.a_blob();
    let digest = blob.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = std::fs::read(&blob).unwrap();

    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for damage in [Some(flipped), Some(bytes[..middle].to_vec()), None] {
        match damage {
            Some(bytes) => std::fs::write(&blob, bytes).unwrap(),
            None => std::fs::remove_file(&blob).unwrap(),
        }
        let found = filled.cache(&["fsck"]).await;
        assert_eq!(found.code, Some(1), "{found:?}");
        assert!(
            format!("{}{}", found.stdout, found.stderr).contains(&digest),
            "{found:?}"
        );
        let report = filled.cache(&["fsck", "--json"]).await.stdout;
        let report: Value = serde_json::from_str(&report).unwrap();
        assert!(report.to_string().contains(&digest), "{report:#}");
    }
    std::fs::write(&blob, bytes).unwrap();
    filled.cache(&["fsck"]).await.ok();
}

#[tokio::test]
async fn a_missing_blob_is_uploaded_again_by_the_next_export() {
    let filled = Filled::new().await;
    std::fs::remove_file(filled.a_blob()).unwrap();
    filled.cache(&["fsck"]).await.failed();
    let build = Build::of(&filled.lab.path("contexts/multistage"));
    let build = build.cache_to("type=gha-compatible,scope=linux,mode=max");
    let client = filled.lab.buildctl(filled.runner.address());
    client.build(&build).await.ok().assert_no_warning();
    filled.cache(&["fsck"]).await.ok();
}

#[tokio::test]
async fn wrong_usage_is_exit_code_two() {
    for arguments in [
        &["cache", "ls", "--no-such-flag"][..],
        &["sidecar", "--listen", "gopher://x"],
        &["sidecar", "--project", ".."],
        &["bogus"],
    ] {
        let outcome = layerd(arguments).await;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(!outcome.stderr.is_empty());
    }
}

#[tokio::test]
async fn a_secret_in_an_address_is_never_shown() {
    let lab = Lab::new();
    let data = lab.path("data").display().to_string();
    let sidecar = |option, url| vec!["sidecar", option, url];
    let serve = |option, url| {
        let mut words = vec!["serve", "--check-config", "--metrics=off", "--data-dir"];
        words.extend([data.as_str(), option, url]);
        words
    };
    for arguments in [
        sidecar("--hub", "http://user:hunter2@cache:8700"),
        sidecar("--hub", "http://cache/hunter2"),
        sidecar("--allow-hub", "https://user:hunter2@cache"),
        serve("--catalog", "postgres://user:hunter2@host:port/db"),
        serve("--catalog", "mysql://user:hunter2@host/db"),
        serve("--blobs", "s3://user:hunter2@bucket/prefix"),
        serve(
            "--blobs",
            "s3://bucket?secret_access_key=hunter2&nonsense=1",
        ),
        serve("--blobs", "hunter2@bucket"),
    ] {
        let outcome = layerd(&arguments).await;
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains("hunter2"), "{said}");
    }
    let environment = [("LAYERD_HUB", "http://user:hunter2@cache")];
    for command in [
        "sidecar",
        "cache ls",
        "cache show 1",
        "cache savings",
        "cache flush --project p",
        "cache gc",
        "cache export -o -",
        "cache import -",
        "audit",
        "project ls",
        "token ls",
        "token revoke x",
        "token mint --project p --read main",
        "token exchange",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let help = [&words[..], &["--help"]].concat();
        for arguments in [&words[..], &help] {
            let outcome = layerd_with(arguments, &environment, "").await;
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_typed_counts_before_a_hub_of_the_environment() {
    let environment = [("LAYERD_HUB", "http://127.0.0.1:9")];
    let nowhere = "/nonexistent/layerd";
    for command in [
        "cache ls",
        "cache flush --project p",
        "cache gc",
        "cache export -o -",
        "audit",
        "token ls",
        "token revoke 0123456789abcdef0123456789abcdef",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let there = layerd_with(&words, &environment, "").await;
        assert!(there.stderr.contains("127.0.0.1:9"), "{command}: {there:?}");
        let typed = [&words[..], &["--data-dir", nowhere]].concat();
        let here = layerd_with(&typed, &environment, "").await;
        assert!(here.stderr.contains(nowhere), "{command}: {here:?}");
        let both = [
            &words[..],
            &["--hub", "http://h", "--catalog", "postgres://h"],
        ]
        .concat();
        let both = layerd_with(&both, &[], "").await;
        assert_eq!(both.code, Some(2), "{command}: {both:?}");
    }
}
