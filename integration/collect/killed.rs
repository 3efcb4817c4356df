//! Whoever collects is killed in every phase: the next one ends it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::future::join_all;
use layerd::blobs::{BlobStore, DiskStore};
use layerd::cache::LocalCache;
use layerd::cache::check::{Report, check};
use layerd::catalog::{Catalog, SqliteCatalog};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::world::{export, somewhere};
use crate::harness::{Lab, layerd, until};

/// All that a collection passes through.
const PHASES: [&str; 9] = [
    "begun",
    "decided",
    "retiring",
    "retired",
    "purged",
    "condemned",
    "removing",
    "removed",
    "acquitted",
];

async fn open(data: &Path) -> (Arc<dyn Catalog>, DiskStore) {
    let disk = DiskStore::open(data).await.expect("a store");
    let catalog = SqliteCatalog::open(data).await.expect("a catalog");
    (Arc::new(catalog), disk)
}

async fn filled(data: &Path, seed: u64) {
    let (catalog, disk) = open(data).await;
    let blobs: Arc<dyn BlobStore> = Arc::new(disk);
    let cache = LocalCache::over(Arc::clone(&catalog), blobs);
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..12 {
        let place = somewhere(&mut random);
        let numbers = [number, number + 1, number + 20];
        let exported = export(&cache, place, &numbers, seed + number);
        exported.await.expect("it is exported");
    }
    // Leases and pins of these exports are let go of in the background.
    let names = ["lease", "pin"];
    until("nothing is pinned", async || {
        let file = SqliteCatalog::path(data);
        let pool = sqlx::SqlitePool::connect(file.to_str().unwrap());
        let pool = pool.await.expect("a database");
        let mut left = 0;
        for name in names {
            let count = format!("SELECT count(*) FROM {name}");
            let count = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&pool);
            let count: i64 = count.await.expect("a count");
            left += count;
        }
        pool.close().await;
        (left == 0).then_some(())
    })
    .await;
    drop(cache);
    catalog.close().await;
}

async fn checked(data: &Path) -> Report {
    let (catalog, disk) = open(data).await;
    let report = check(&disk, Some(&disk), &*catalog, 2, &|_| ()).await;
    catalog.close().await;
    report.expect("it can be checked")
}

async fn ends_after(phase: &str, lab: &Lab, seed: u64) {
    let data = lab.folder(phase);
    filled(&data, seed).await;
    let before = checked(&data).await;
    assert_eq!(before.unreferenced, [], "{phase}");
    let arguments = ["cache", "gc", "--max-bytes", "4000", "--data-dir"];
    let mut killed = Command::new(env!("CARGO_BIN_EXE_layerd"));
    killed
        .args(arguments)
        .arg(&data)
        .env("LAYERD_KILLED_WHEN", phase);
    let killed = tokio::task::spawn_blocking(move || killed.output().expect("it runs"));
    let killed = killed.await.expect("it ends");
    assert_eq!(killed.status.signal(), Some(9), "{phase}: {killed:?}");
    let report = checked(&data).await;
    assert_eq!(report.problems, [], "{phase}");
    // What it had condemned is left alone for a while.
    until("the next one ends it", async || {
        let done = layerd(
            arguments
                .iter()
                .map(|word| word.as_ref())
                .chain([data.as_os_str()]),
        );
        done.await.ok();
        let report = checked(&data).await;
        assert_eq!(report.problems, [], "{phase}");
        (report.unreferenced.is_empty() && report.bytes <= 4000).then_some(())
    })
    .await;
    let after = checked(&data).await;
    assert!(after.blobs < before.blobs, "{phase}");
    let fsck = ["cache", "fsck", "--data-dir", data.to_str().unwrap()];
    let sound = layerd(fsck).await.ok().stdout;
    assert!(!sound.contains("no export names"), "{phase}: {sound}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_killed_in_any_phase_is_ended_by_the_next() {
    let lab = Lab::new();
    let seed: u64 = rand::random_range(0..1 << 40);
    println!("seed {seed}");
    join_all(PHASES.map(|phase| ends_after(phase, &lab, seed))).await;
}
