//! Indexes that a real buildkitd has signed, and signatures that another one
//! verifies. Whose signatures count is the tests' own: `buildkitd` believes
//! Sigstore alone, so the one that verifies here was built with that one
//! function in its place (tools/trusting). All that goes over the wire is
//! BuildKit's own.

use serde_json::Value;

use super::buildkit::{MAIN, gha, out};
use crate::harness::{
    Build, Fate, Hub, Lab, MULTISTAGE_STEPS, Metrics, Outcome, layerd, runtime_token,
    trusting_buildkitd,
};

/// Indexes that came without a signature, and are part of a union.
const UNITED: &str = "layerd_gha_entries_total{kind=\"index\"}";

/// Signs what it reads, as `trusting.go` expects it.
const COMMAND: &str = r#"#!/bin/sh
printf 'signed by a test: sha256:%s\n' "$(sha256sum | cut -d' ' -f1)"
"#;

/// Signs something else.
const FORGER: &str = "#!/bin/sh\ncat >/dev/null\necho forged\n";

/// What a daemon does about signatures.
fn config(lab: &Lab, name: &str, script: Option<&str>, required: bool) -> String {
    let mut config = String::new();
    if let Some(script) = script {
        let command = lab.folder(name).join("sign");
        std::fs::write(&command, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&command, mode).unwrap();
        config += &format!(
            "[cache.gha.sign]\ncommand = [{:?}]\n",
            command.display().to_string()
        );
    }
    format!("{config}[cache.gha.verify]\nrequired = {required}\n")
}

/// Builds on a daemon of its own that does so.
async fn build(
    lab: &Lab,
    name: &str,
    config: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> (Outcome, String) {
    let daemon = lab.buildkitd(name).program(trusting_buildkitd());
    let daemon = daemon.config(config).start().await;
    let context = lab.path("contexts/multistage");
    let context = match context.exists() {
        true => context,
        false => lab.context("multistage"),
    };
    let mut build = Build::of(&context).output_folder(&lab.path(name).join("out"));
    if let Some(from) = from {
        build = build.cache_from(from);
    }
    if let Some(to) = to {
        build = build.cache_to(&format!("{to},mode=max"));
    }
    let built = lab.buildx(&daemon.address).await.build(&build).await;
    (built, daemon.log())
}

/// What `cache ls --kind gha` lists: the keys.
async fn keys(hub: &Hub) -> Vec<String> {
    let dir = hub.data_dir().display().to_string();
    let list = ["cache", "ls", "--kind", "gha", "--json", "--data-dir", &dir];
    let listed = layerd(list).await.ok().stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let entries = listed.as_array().cloned();
    let entries = entries.unwrap_or_else(|| panic!("{listed}"));
    let keys = entries
        .iter()
        .map(|entry| entry["entry"]["key"].as_str().unwrap().to_owned());
    keys.collect()
}

async fn signs_and_verifies(version: u8) {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let entry = gha(&hub, &runtime_token("acme/shop", &MAIN), version);
    let signs = |name: &str| config(&lab, name, Some(COMMAND), true);

    let (first, _) = build(&lab, "one", &signs("one"), None, Some(&entry)).await;
    first.ok().assert_all_ran(MULTISTAGE_STEPS);
    let kept = keys(&hub).await;
    let index = kept.iter().find(|key| key.contains("-sig#"));
    assert!(
        index.is_some_and(|key| key.starts_with("index-buildkit-1-")),
        "{kept:?}"
    );
    let twin = kept
        .iter()
        .find(|key| key.starts_with("buildkit-blob-1-sha256:"));
    assert!(twin.is_some_and(|key| key.ends_with("-sig")), "{kept:?}");

    // Another one who verifies, and signs nothing.
    let verifies = config(&lab, "two", None, true);
    let (second, log) = build(&lab, "two", &verifies, Some(&entry), None).await;
    let second = second.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    assert!(out(&lab, "one") == out(&lab, "two"), "{log}");

    // The same index once more has its signature already, as it would have at
    // GitHub: BuildKit takes that for an error, which it can be told to ignore.
    let lenient = format!("{entry},ignore-error=true");
    let (third, _) = build(&lab, "three", &signs("three"), Some(&entry), Some(&lenient)).await;
    third.ok().assert_all_cached(MULTISTAGE_STEPS);
    let (fourth, _) = build(&lab, "four", &verifies, Some(&entry), None).await;
    fourth.ok().assert_all_cached(MULTISTAGE_STEPS);
    // Another index is signed anew, and found before the first.
    std::fs::write(lab.path("contexts/multistage/src/main.txt"), "changed").unwrap();
    let (fifth, _) = build(&lab, "five", &signs("five"), Some(&entry), Some(&entry)).await;
    let fifth = fifth.ok();
    let ran = fifth.progress.steps();
    assert!(ran.values().any(|fate| *fate == Fate::Ran), "{ran:?}");
    let (sixth, _) = build(&lab, "six", &verifies, Some(&entry), None).await;
    sixth.ok().assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(united(&hub).await, 0.0, "{version}");
}

/// How many of those there are.
async fn united(hub: &Hub) -> f64 {
    let metrics = Metrics::at(hub.metrics_address()).await;
    metrics.value(UNITED)
}

#[tokio::test]
async fn what_one_daemon_signs_in_the_first_version_another_one_verifies() {
    signs_and_verifies(1).await;
}

#[tokio::test]
async fn what_one_daemon_signs_in_the_second_version_another_one_verifies() {
    signs_and_verifies(2).await;
}

/// A union has no signature: who wants one has what was signed, and nothing of
/// what others exported beside it; and who wants none has nothing of that.
#[tokio::test]
async fn a_signed_index_stays_as_it_is_though_there_is_a_union() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let entry = gha(&hub, &runtime_token("acme/shop", &MAIN), 2);
    let signs = config(&lab, "one", Some(COMMAND), true);
    let (unsigned, _) = build(&lab, "plain", "", None, Some(&entry)).await;
    unsigned.ok().assert_all_ran(MULTISTAGE_STEPS);
    let verifies = config(&lab, "early", None, true);
    let (early, _) = build(&lab, "early", &verifies, Some(&entry), None).await;
    early.ok().assert_all_ran(MULTISTAGE_STEPS);
    let (signed, _) = build(&lab, "one", &signs, None, Some(&entry)).await;
    signed.ok().assert_all_ran(MULTISTAGE_STEPS);
    let (again, _) = build(&lab, "again", "", None, Some(&entry)).await;
    again.ok();
    assert!(united(&hub).await >= 2.0);
    let (verified, log) = build(&lab, "two", &verifies, Some(&entry), None).await;
    verified.ok().assert_all_cached(MULTISTAGE_STEPS);
    assert!(out(&lab, "one") == out(&lab, "two"), "{log}");
}

/// What a daemon thinks of a signature is what it was given, byte for byte.
#[tokio::test]
async fn a_signature_that_is_no_good_is_told_by_the_daemon_and_costs_hits_alone() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let entry = gha(&hub, &runtime_token("acme/shop", &MAIN), 2);
    let forges = config(&lab, "one", Some(FORGER), true);
    let lenient = format!("{entry},ignore-error=true");
    let (first, _) = build(&lab, "one", &forges, None, Some(&lenient)).await;
    first.ok().assert_all_ran(MULTISTAGE_STEPS);
    // The index is there, and its twin is not: the daemon did not send that.
    let kept = keys(&hub).await;
    assert!(kept.iter().any(|key| key.contains("-sig#")), "{kept:?}");
    assert!(!kept.iter().any(|key| key.ends_with("-sig")), "{kept:?}");
    let verifies = config(&lab, "two", None, true);
    let (second, _) = build(&lab, "two", &verifies, Some(&entry), None).await;
    let second = second.ok();
    second.assert_all_ran(MULTISTAGE_STEPS);
    let missing = "missing signature for github actions cache";
    assert!(second.stderr.contains(missing), "{}", second.stderr);
}
