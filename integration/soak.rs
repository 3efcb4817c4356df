//! Parallel builds on two runners with kills in between, round after round:
//! every result is right, and the store stays sound.
//!
//! One round by default; `LAYERD_SOAK_MINUTES` sets how long it goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{Build, Client, Lab, Runner, layerd, tree};

/// Builds at once on each runner.
const BUILDS: usize = 3;
/// Variants of the sources, each its own scope.
const VARIANTS: u32 = 4;

/// One build of a variant: whatever the cache is going through, it succeeds,
/// and what it made holds the variant's own source. A build whose sidecar was
/// killed may fail instead.
async fn build(lab: &Lab, client: &Client, variant: u32, out: &Path, may_fail: bool) {
    let entry = format!("type=gha-compatible,scope=variant-{variant}");
    let build = Build::of(&lab.path(&format!("contexts-{variant}/multistage")))
        .cache_from(&entry)
        .cache_to(&format!("{entry},mode=max"))
        .output_folder(out);
    let outcome = client.build(&build).await;
    if may_fail && outcome.code != Some(0) {
        return;
    }
    outcome.ok();
    let made = tree(out);
    let (_, app) = &made[Path::new("app")];
    let source = format!("variant {variant}\n");
    assert!(
        app.starts_with(source.as_bytes()),
        "another variant's bytes in {variant}"
    );
}

async fn round(lab: &Lab, runners: &mut [Runner], number: u32, random: &mut StdRng) {
    let victim = random
        .random_bool(0.5)
        .then(|| random.random_range(0..runners.len()));
    let moment = Duration::from_millis(random.random_range(0..2000));
    let mut work = Vec::new();
    for (at, runner) in runners.iter().enumerate() {
        let client = lab.buildctl(runner.address());
        for slot in 0..BUILDS {
            let variant = random.random_range(0..VARIANTS);
            let out = lab.path(&format!("out/{number}/{at}-{slot}"));
            let client = client.clone();
            work.push(async move { build(lab, &client, variant, &out, victim == Some(at)).await });
        }
    }
    let kill = async {
        let Some(at) = victim else { return };
        // Not to wait for anything: any moment of its builds may be the one.
        tokio::time::sleep(moment).await;
        runners[at].sidecar.kill().await;
        runners[at].sidecar = runners[at].sidecar.start_again().await;
    };
    tokio::join!(join_all(work), kill);
    let data = lab.path("data");
    layerd(["cache", "fsck", "--data-dir", data.to_str().unwrap()])
        .await
        .ok();
    for (at, runner) in runners.iter_mut().enumerate() {
        // Imports that were cut off leave a daemon without snapshots that it
        // believes to have (`parent snapshot … does not exist`, with caches of
        // BuildKit's own too), so the victim is always given a new one.
        if victim == Some(at) || random.random_bool(0.5) {
            runner.buildkitd.stop().await;
            runner.buildkitd.start_cold().await;
        }
    }
    std::fs::remove_dir_all(lab.path("out")).unwrap();
}

#[tokio::test]
async fn builds_with_kills_in_between_are_right_and_leave_a_sound_store() {
    let minutes = std::env::var("LAYERD_SOAK_MINUTES").ok();
    let minutes: u64 = minutes.map_or(0, |text| text.parse().expect("a number of minutes"));
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let seed: u64 = std::env::var("LAYERD_SOAK_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse().expect("a seed"));
    println!("LAYERD_SOAK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let lab = Lab::new();
    for variant in 0..VARIANTS {
        let context = lab.context("multistage");
        std::fs::write(context.join("src/main.txt"), format!("variant {variant}\n")).unwrap();
        std::fs::rename(
            lab.path("contexts"),
            lab.path(&format!("contexts-{variant}")),
        )
        .unwrap();
    }
    let data = lab.path("data");
    let mut runners = vec![
        lab.runner("one", &data).await,
        lab.runner("two", &data).await,
    ];
    let mut number = 0;
    loop {
        round(&lab, &mut runners, number, &mut random).await;
        number += 1;
        if Instant::now() >= end {
            break;
        }
    }
    println!("{number} rounds");
}
