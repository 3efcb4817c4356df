//! The union of cache configs against BuildKit itself.
//!
//! A Go program of our own (`oracle/*.go`) links BuildKit's parser and solver,
//! and proves a union right for a set of configs: it answers every key query
//! that BuildKit answers after parsing all of them, and none that their union
//! by BuildKit's own rule could not answer. This side makes up thousands of
//! sets, and makes one that fails as small as it can. `LAYERD_ORACLE_CASES` and
//! `LAYERD_ORACLE_SEED` say how many, and which first.

mod case;
mod generate;
mod mutate;
mod ours;
mod process;
mod real;
mod shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;

use self::case::Case;
use self::generate::Kind;
use self::mutate::Mistake;
use self::process::{Effort, Oracle};
use crate::harness::Lab;

const KINDS: [Kind; 3] = [Kind::Builds, Kind::Wild, Kind::Broken];

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The seeds of a test, printed.
fn seeds(cases: u64) -> std::ops::Range<u64> {
    let first = setting("LAYERD_ORACLE_SEED", 1);
    let seeds = first..first + setting("LAYERD_ORACLE_CASES", cases);
    println!("seeds {seeds:?}");
    seeds
}

/// Holds a way to unite configs against BuildKit.
fn hold(kind: Kind, cases: u64, mut unite: impl FnMut(&mut Oracle, &[Vec<u8>]) -> Vec<u8>) {
    let mut oracle = Oracle::start();
    let (mut hits, mut misses, mut shared) = (0, 0, 0);
    for seed in seeds(cases) {
        let case = generate::case(kind, seed);
        let mut fails = |case: &Case| {
            let configs = case.configs();
            let made = catch_unwind(AssertUnwindSafe(|| unite(&mut oracle, &configs)));
            let Ok(union) = made else {
                return Some("it panicked, see above".to_owned());
            };
            let answer = oracle.check(case, &union, Effort::USUAL);
            hits += answer.hits;
            misses += answer.misses;
            let records: usize = case.exports.iter().map(|export| export.steps.len()).sum();
            shared += records.saturating_sub(answer.records);
            (!answer.ok).then(|| format!("{}: {}", answer.kind, answer.detail))
        };
        if fails(&case).is_some() {
            let (case, why) = shrink::smallest(case, fails);
            let configs: Vec<String> = case
                .configs()
                .iter()
                .map(|config| String::from_utf8_lossy(config).into_owned())
                .collect();
            panic!(
                "{kind:?}, seed {seed}: {why}\n{case:#?}\nconfigs:\n{}",
                configs.join("\n")
            );
        }
    }
    println!("{hits} queries answered, {misses} rightly not, {shared} records shared");
    assert!(shared > 0, "the sets share nothing");
    if kind == Kind::Builds {
        assert!(hits > 0 && misses > 0, "no query was of use");
    }
}

#[test]
fn what_the_model_unites_is_right() {
    for kind in KINDS {
        for form in ["layers", "chains"] {
            hold(kind, 200, |oracle, configs| oracle.model(configs, form));
        }
    }
}

#[test]
fn our_union_of_builds_is_right() {
    hold(Kind::Builds, 1_000, |_, configs| ours::unite(configs));
}

#[test]
fn our_union_of_any_configs_is_right() {
    hold(Kind::Wild, 1_000, |_, configs| ours::unite(configs));
}

#[test]
fn our_union_of_broken_configs_is_right() {
    hold(Kind::Broken, 1_000, |_, configs| ours::unite(configs));
}

#[tokio::test]
async fn our_union_of_real_exports_is_right() {
    let lab = Lab::new();
    let configs = real::exports(&lab).await;
    let mut oracle = Oracle::start();
    for (first, last) in [(0, 1), (0, 3), (1, 3)] {
        let configs = &configs[first..last];
        let answer = oracle.check_exports(configs, &ours::unite(configs), Effort::USUAL);
        assert!(answer.ok, "{}: {}", answer.kind, answer.detail);
        assert!(answer.records > 5, "{answer:?}");
    }
}

/// BuildKit unites the two steps `d` because of the third, finds that one is
/// its own ancestor, and recurses until Go ends the daemon.
#[test]
fn our_union_of_a_config_that_ends_the_daemon_is_harmless() {
    let digest = case::digest;
    let config = json!({"records": [
        {"digest": digest("x")},
        {"digest": digest("y")},
        {"digest": digest("d"), "inputs": [[{"link": 0}]]},
        {"digest": digest("e"), "inputs": [[{"link": 2}]]},
        {"digest": digest("d"), "inputs": [[{"link": 3}, {"link": 1}]]},
        {"digest": digest("d"), "inputs": [[{"link": 0}, {"link": 1}]]},
        {"digest": digest("f"), "inputs": [[{"link": 3}]], "layers": [{"layer": 0}]},
    ], "layers": [{"blob": digest("layer"), "parent": -1}]});
    let configs = [serde_json::to_vec(&config).expect("JSON")];
    let answer = Oracle::start().check_exports(&configs, &ours::unite(&configs), Effort::USUAL);
    assert!(answer.ok && answer.cyclic, "{answer:?}");
}

/// How many of the wrong unions that could be made the oracle saw through.
fn seen(mistake: Mistake) -> (usize, usize) {
    let mut oracle = Oracle::start();
    let (mut made, mut seen) = (0, 0);
    for seed in seeds(200) {
        let case = generate::case(Kind::Builds, seed);
        let union = oracle.model(&case.configs(), "layers");
        let Some(wrong) = mutate::spoil(&union, mistake, seed) else {
            continue;
        };
        made += 1;
        let answer = oracle.check(&case, &wrong, Effort::USUAL);
        match answer.ok {
            false => seen += 1,
            true => println!("seed {seed}: {mistake:?} was not seen"),
        }
    }
    println!("{mistake:?}: {seen} of {made}");
    assert!(made > 20, "hardly ever made");
    (made, seen)
}

#[test]
fn a_union_by_digest_alone_is_seen() {
    let (made, seen) = seen(Mistake::MergesByDigestAlone);
    assert_eq!(made, seen);
}

#[test]
fn a_lost_result_is_seen() {
    let (made, seen) = seen(Mistake::DropsAResult);
    assert_eq!(made, seen);
}

#[test]
fn a_lost_link_is_seen() {
    let (made, seen) = seen(Mistake::DropsALink);
    assert_eq!(made, seen);
}

#[test]
fn a_missing_joining_record_is_seen_now_and_then() {
    let (_, seen) = seen(Mistake::DropsTheJoiningRecord);
    assert!(seen > 0);
}

#[test]
fn swapped_results_are_seen() {
    let (made, seen) = seen(Mistake::SwapsTwoResults);
    assert_eq!(made, seen);
}

#[test]
fn an_input_from_nowhere_is_seen() {
    let (made, seen) = seen(Mistake::AddsALink);
    assert_eq!(made, seen);
}

#[test]
fn swapped_digests_are_seen() {
    let (made, seen) = seen(Mistake::SwapsTwoDigests);
    assert_eq!(made, seen);
}

#[test]
fn a_result_with_a_wrong_time_is_seen() {
    let (made, seen) = seen(Mistake::AgesAResult);
    assert_eq!(made, seen);
}
