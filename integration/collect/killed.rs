//! Whoever collects is killed in every phase: the next one ends it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use futures::future::join_all;
use layerd::blobs::{BlobStore, DiskStore, ObjectBlobs, ObjectOptions};
use layerd::cache::LocalCache;
use layerd::cache::check::{Report, check};
use layerd::catalog::{Catalog, PostgresCatalog, PostgresOptions, SqliteCatalog};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::world::{export, somewhere};
use crate::harness::{Lab, Postgres, layerd, objects, until};

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

/// Where a cache is.
enum Stored {
    Directory(PathBuf),
    /// A database and a bucket, by their URLs.
    Shared(String, String),
}

impl Stored {
    async fn open(&self) -> (Arc<dyn Catalog>, Arc<dyn BlobStore>) {
        match self {
            Self::Directory(data) => {
                let disk = DiskStore::open(data).await.expect("a store");
                let catalog = SqliteCatalog::open(data).await.expect("a catalog");
                (Arc::new(catalog), Arc::new(disk))
            }
            Self::Shared(url, bucket) => {
                let catalog = PostgresCatalog::connect(url, PostgresOptions::default());
                let blobs = ObjectBlobs::open(bucket, ObjectOptions::default());
                (
                    Arc::new(catalog.expect("a catalog")),
                    Arc::new(blobs.expect("a store")),
                )
            }
        }
    }

    /// How a command is told.
    fn arguments(&self) -> Vec<String> {
        let words: Vec<&str> = match self {
            Self::Directory(data) => vec!["--data-dir", data.to_str().unwrap()],
            Self::Shared(url, bucket) => vec!["--catalog", url, "--blobs", bucket],
        };
        words.into_iter().map(ToOwned::to_owned).collect()
    }

    /// How many pins there are, once leases that nobody has any more have ended.
    async fn pins(&self) -> i64 {
        let (end, count) = ("DELETE FROM lease", "SELECT count(*) FROM pin");
        match self {
            Self::Directory(data) => {
                let file = SqliteCatalog::path(data);
                let pool = sqlx::SqlitePool::connect(file.to_str().unwrap());
                let pool = pool.await.expect("a database");
                sqlx::query(end).execute(&pool).await.expect("they end");
                let count = sqlx::query_scalar(count).fetch_one(&pool).await;
                pool.close().await;
                count.expect("a count")
            }
            Self::Shared(url, _) => {
                let pool = sqlx::PgPool::connect(url).await.expect("a database");
                sqlx::query(end).execute(&pool).await.expect("they end");
                let count = sqlx::query_scalar(count).fetch_one(&pool).await;
                pool.close().await;
                count.expect("a count")
            }
        }
    }

    async fn fill(&self, seed: u64) {
        let (catalog, blobs) = self.open().await;
        let cache = LocalCache::over(Arc::clone(&catalog), blobs);
        let mut random = StdRng::seed_from_u64(seed);
        for number in 0..12 {
            let place = somewhere(&mut random);
            let numbers = [number, number + 1, number + 20];
            let exported = export(&cache, place, &numbers, seed + number);
            exported.await.expect("it is exported");
        }
        // Pins of these exports are let go of in the background.
        until("nothing is pinned", async || {
            (self.pins().await == 0).then_some(())
        })
        .await;
        drop(cache);
        catalog.close().await;
    }

    async fn check(&self) -> Report {
        let (catalog, blobs) = self.open().await;
        let report = check(&*blobs, None, &*catalog, 2, &|_| ()).await;
        catalog.close().await;
        report.expect("it can be checked")
    }
}

async fn ends_after(phase: &str, stored: Stored, seed: u64) {
    stored.fill(seed).await;
    let before = stored.check().await;
    assert_eq!(before.unreferenced, [], "{phase}");
    let gc = ["cache", "gc", "--max-bytes", "4000"].map(ToOwned::to_owned);
    let gc = [&gc[..], &stored.arguments()].concat();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_layerd"));
    killed.args(&gc).env("LAYERD_KILLED_WHEN", phase);
    let killed = tokio::task::spawn_blocking(move || killed.output().expect("it runs"));
    let killed = killed.await.expect("it ends");
    assert_eq!(killed.status.signal(), Some(9), "{phase}: {killed:?}");
    let report = stored.check().await;
    assert_eq!(report.problems, [], "{phase}");
    // What it had condemned is left alone for a while.
    until("the next one ends it", async || {
        layerd(&gc).await.ok();
        let report = stored.check().await;
        assert_eq!(report.problems, [], "{phase}");
        (report.unreferenced.is_empty() && report.bytes <= 4000).then_some(())
    })
    .await;
    let after = stored.check().await;
    assert!(after.blobs < before.blobs, "{phase}");
    let fsck = ["cache", "fsck"].map(ToOwned::to_owned);
    let sound = layerd([&fsck[..], &stored.arguments()].concat()).await;
    let sound = sound.ok().stdout;
    assert!(!sound.contains("no export names"), "{phase}: {sound}");
}

fn seed() -> u64 {
    let seed: u64 = rand::random_range(0..1 << 40);
    println!("seed {seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_killed_in_any_phase_is_ended_by_the_next() {
    let lab = Lab::new();
    let seed = seed();
    let ending = PHASES.map(|phase| {
        let stored = Stored::Directory(lab.folder(phase));
        ends_after(phase, stored, seed)
    });
    join_all(ending).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_of_a_bucket_that_is_killed_in_any_phase_is_ended_by_the_next() {
    let (postgres, bucket) = (Postgres::start(), objects::s3().await);
    let seed = seed();
    let ending = PHASES.map(|phase| {
        let prefix = format!("collect-killed-{phase}");
        let stored = Stored::Shared(postgres.database(phase), bucket.s3_store(&prefix));
        ends_after(phase, stored, seed)
    });
    join_all(ending).await;
}
