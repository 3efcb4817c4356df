//! A pull request from a fork has the cache of its base, and the base has
//! nothing of it.

use std::path::Path;

use crate::harness::{Build, Lab, Outcome, Runner};
use crate::shared::{guarded, runner, token};

const PULL: &str = "refs/pull/7/merge";
/// Steps of the build: a base, and one that reads a secret, which is in no key
/// of a cache.
const STEPS: usize = 2;

/// Builds with that secret, and gives what became of it beside the outcome.
async fn build(
    lab: &Lab,
    runner: &Runner,
    (secret, token): (&Path, &str),
    git_ref: &str,
    arguments: &[&str],
    out: &str,
) -> (Outcome, String) {
    let entry = format!("type=gha-compatible,ref={git_ref},fallback=main,token={token}");
    let build = Build::of(&lab.context("secrets"))
        .target("secret")
        .secret(&format!("id=token,src={}", secret.display()))
        .cache_from(&entry)
        .cache_to(&format!("{entry},mode=max").replace(",fallback=main", ""))
        .output_folder(&lab.path(out));
    let build = arguments
        .iter()
        .fold(build, |build, argument| build.argument(argument));
    let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
    let made = std::fs::read_to_string(lab.path(out).join("token.sum")).unwrap();
    (outcome, made)
}

#[tokio::test]
async fn a_fork_reads_its_base_and_what_it_exports_is_never_served_to_that() {
    let lab = Lab::new();
    let (hub, key) = guarded(&lab).await;
    let [good, poison] = ["good", "poison"].map(|text| {
        let path = lab.path(text);
        std::fs::write(&path, text).unwrap();
        path
    });
    let project = ["--project", "default"];
    let base = ["--read", "refs/heads/**", "--write", "main"];
    let base = token(&key, &[&project[..], &base].concat()).await;
    let fork = ["--read", "main", "--read", PULL, "--write", PULL];
    let fork = token(&key, &[&project[..], &fork].concat()).await;
    let arguments = ["--hub", hub.url()];

    let one = runner(&lab, "one", &arguments).await;
    let (first, made) = build(&lab, &one, (&good, &base), "main", &[], "first").await;
    first.assert_all_ran(STEPS);
    drop(one);

    let two = runner(&lab, "two", &arguments).await;
    let (reads, same) = build(&lab, &two, (&poison, &fork), PULL, &[], "reads").await;
    reads.assert_all_cached(STEPS);
    reads.assert_no_warning();
    assert_eq!(same, made, "it has what its base made");
    let again = &["--no-cache"][..];
    let (_, poisoned) = build(&lab, &two, (&poison, &fork), PULL, again, "poisons").await;
    assert_ne!(poisoned, made);
    // Nor may it say that it were the base.
    let (denied, _) = build(&lab, &two, (&poison, &fork), "main", again, "lies").await;
    denied.assert_warned("the token may not write refs/heads/main");
    drop(two);

    let three = runner(&lab, "three", &arguments).await;
    let (served, same) = build(&lab, &three, (&good, &base), "main", &[], "served").await;
    served.assert_all_cached(STEPS);
    assert_eq!(same, made);
    drop(three);
    // It is there, for those who trust it.
    let four = runner(&lab, "four", &arguments).await;
    let (own, theirs) = build(&lab, &four, (&good, &fork), PULL, &[], "own").await;
    own.assert_all_cached(STEPS);
    assert_eq!(theirs, poisoned);
}
