//! Exports, reads, flushes and collections at once, on several engines that
//! share a store, with faults: every graph that is served can be read to its
//! last byte, and in the end nothing is left that nothing names.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use layerd::blobs::{BlobError, BlobStore, DiskStore, ObjectBlobs, ObjectOptions};
use layerd::cache::check::check;
use layerd::cache::retention::Limits as Kept;
use layerd::cache::{
    Cache as _, CacheError, Flush, Form, Import, Limits, LocalCache, LookedUp, Want,
};
use layerd::catalog::ledger::{Actor, Origin};
use layerd::catalog::{Catalog, PostgresCatalog, PostgresOptions, SqliteCatalog};
use layerd::digest::Hasher;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use super::faults::Unreliable;
use super::world::{export, some, somewhere};
use crate::harness::{Lab, Postgres, Toxic, ToxicProxy, Way, objects, until};

/// Engines that share the store, as processes would.
const ENGINES: usize = 3;

/// What happened.
#[derive(Default)]
struct Counted {
    exports: AtomicU64,
    served: AtomicU64,
    read: AtomicU64,
    collections: AtomicU64,
    removed: AtomicU64,
}

struct Churn {
    seed: u64,
    /// Held by whoever builds; whoever has it alone knows that nobody does.
    building: RwLock<()>,
    forget: Forget,
    engines: Vec<Arc<LocalCache>>,
    over: Instant,
    counted: Counted,
}

fn length() -> Duration {
    match std::env::var("LAYERD_HUB_FULL").is_ok() {
        true => Duration::from_secs(180),
        false => Duration::from_secs(10),
    }
}

impl Churn {
    fn new(engines: Vec<Arc<LocalCache>>, seed: u64, forget: Forget) -> Arc<Self> {
        Arc::new(Self {
            seed,
            building: RwLock::default(),
            forget,
            engines,
            over: Instant::now() + length(),
            counted: Counted::default(),
        })
    }

    fn engine(&self, random: &mut StdRng) -> Arc<LocalCache> {
        Arc::clone(&self.engines[random.random_range(0..self.engines.len())])
    }

    /// What builds that were given up have left is forgotten, as it is when its
    /// time is over.
    async fn forget(&self, all: bool) {
        let _alone = self.building.write().await;
        // What was given up may just be ending.
        tokio::time::sleep(Duration::from_millis(50)).await;
        (self.forget)(all).await;
    }

    /// Now and then it is given up, at any moment.
    async fn perhaps<T>(
        random: &mut StdRng,
        chance: f64,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let limit = match random.random_bool(chance) {
            true => Duration::from_millis(random.random_range(0..60)),
            false => Duration::from_millis(1500),
        };
        tokio::time::timeout(limit, work).await.ok()
    }

    async fn write(self: Arc<Self>, mut random: StdRng) {
        while Instant::now() < self.over {
            let _building = self.building.read().await;
            let (engine, place) = (self.engine(&mut random), somewhere(&mut random));
            let (numbers, mark) = (some(&mut random), random.random_range(0..1000));
            let exporting = export(&engine, place, &numbers, mark);
            if let Some(Ok(())) = Self::perhaps(&mut random, 0.15, exporting).await {
                self.counted.exports.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn read(self: Arc<Self>, mut random: StdRng) {
        while Instant::now() < self.over {
            let _building = self.building.read().await;
            let engine = self.engine(&mut random);
            let want = Want::all_of(somewhere(&mut random));
            let found = engine.look_up(&[want], &LIMITS).await;
            if let Ok(LookedUp::Import(import)) = found {
                self.read_all(&engine, &import).await;
            }
        }
    }

    /// All that a graph names is there and as it should be.
    async fn read_all(&self, engine: &LocalCache, import: &Import) {
        // Without a lease nothing was promised.
        if format!("{:?}", import.lease) == "Lease(false)" {
            return;
        }
        for (digest, size) in &*import.layers {
            let bytes = loop {
                let read = async {
                    let mut bytes = engine.read(digest, 0, u64::MAX).await?;
                    let (mut hasher, mut length) = (Hasher::default(), 0);
                    while let Some(chunk) = bytes.try_next().await? {
                        length += chunk.len() as u64;
                        hasher.update(&chunk);
                    }
                    Ok::<_, CacheError>((hasher.finish(), length))
                };
                match read.await {
                    Ok(read) => break read,
                    Err(CacheError::Blob(BlobError::NotFound(digest))) => panic!(
                        "LAYERD_HUB_SEED={}: {digest} was named by {import:?} and is gone",
                        self.seed
                    ),
                    Err(_) => {}
                }
            };
            assert_eq!(bytes, (*digest, *size), "seed {}", self.seed);
            self.counted.read.fetch_add(1, Ordering::Relaxed);
        }
        self.counted.served.fetch_add(1, Ordering::Relaxed);
    }

    async fn collect(self: Arc<Self>, mut random: StdRng) {
        while Instant::now() < self.over {
            let engine = self.engine(&mut random);
            match random.random_range(0..10) {
                0..2 => self.forget(false).await,
                2..5 => drop(self.building.write().await),
                _ => {}
            }
            let limits = Kept {
                max_bytes: Some(random.random_range(0..80_000)),
                max_age: random
                    .random_bool(0.3)
                    .then(|| Duration::from_millis(random.random_range(1..2000))),
                ..Kept::default()
            };
            if let Some(Ok(Some(done))) =
                Self::perhaps(&mut random, 0.05, engine.collect(&limits)).await
            {
                self.counted.collections.fetch_add(1, Ordering::Relaxed);
                let removed = &self.counted.removed;
                removed.fetch_add(done.swept.blobs, Ordering::Relaxed);
            }
            if random.random_bool(0.1) {
                let orphans = engine.remove_orphans();
                let _ = Self::perhaps(&mut random, 0.05, orphans).await;
            }
            if random.random_bool(0.1) {
                let place = somewhere(&mut random);
                let flush = Flush {
                    project: place.project,
                    git_ref: Some(place.git_ref),
                    scope: None,
                };
                let _ = engine.flush(&flush, &Origin::here(Actor::Anybody)).await;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
        }
    }

    async fn run(self: Arc<Self>) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut next = || StdRng::seed_from_u64(random.random());
        let mut acting = JoinSet::new();
        for _ in 0..6 {
            acting.spawn(Arc::clone(&self).write(next()));
        }
        for _ in 0..3 {
            acting.spawn(Arc::clone(&self).read(next()));
        }
        for _ in 0..2 {
            acting.spawn(Arc::clone(&self).collect(next()));
        }
        acting.join_all().await;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counted = &self.counted;
        println!(
            "{} exports, {} graphs of {} layers read, {} collections of {} layers",
            count(&counted.exports),
            count(&counted.served),
            count(&counted.read),
            count(&counted.collections),
            count(&counted.removed),
        );
        for counter in [&counted.exports, &counted.served] {
            assert!(count(counter) > 0, "it was no test");
        }
    }
}

const LIMITS: Limits = Limits {
    records: u64::MAX,
    form: Form::Whole,
};

fn seed() -> u64 {
    let seed: u64 = std::env::var("LAYERD_HUB_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse().expect("a seed"));
    println!("LAYERD_HUB_SEED={seed}");
    seed
}

/// `open` gives the store as a new process would open it; `forget` ends all that
/// is waited for.
async fn nothing_is_lost_and_nothing_stays<O>(open: O, forget: Forget, weather: &Weather)
where
    O: AsyncFn() -> (Arc<dyn Catalog>, Arc<dyn BlobStore>),
{
    let seed = seed();
    let mut engines = Vec::new();
    for engine in 0..ENGINES {
        let (catalog, blobs) = open().await;
        let blobs = Unreliable::new(blobs, seed ^ engine as u64);
        engines.push(Arc::new(LocalCache::over(catalog, Arc::new(blobs))));
    }
    let churn = Churn::new(engines, seed, forget);
    tokio::select! {
        () = Arc::clone(&churn).run() => {}
        () = weather.blow(seed) => {}
    }
    weather.calm();
    if let Weather::Fair = weather {
        let removed = churn.counted.removed.load(Ordering::Relaxed);
        assert!(removed > 0, "it was no test");
    }
    churn.forget(true).await;
    drop(churn);
    let (catalog, blobs) = open().await;
    let sound = || async {
        let report = check(&*blobs, None, &*catalog, 2, &|_| ()).await;
        report.expect("it can be checked")
    };
    let report = sound().await;
    assert!(report.problems.is_empty(), "seed {seed}: {report:#?}");
    let cache = LocalCache::over(Arc::clone(&catalog), Arc::clone(&blobs));
    // A store of which the log names nothing is left alone.
    let last = layerd::place::Place::default();
    export(&cache, last, &[0], 0).await.expect("it is exported");
    until("what nothing names is gone", async || {
        let collected = cache.collect(&Kept::default()).await.expect("it collects");
        let orphans = cache.remove_orphans().await.expect("it looks");
        let left = sound().await.unreferenced.len();
        (collected.is_some() && orphans.is_some() && left == 0).then_some(())
    })
    .await;
    let report = sound().await;
    println!(
        "{} exports and {} layers are left",
        report.exports, report.blobs
    );
    assert!(report.problems.is_empty(), "seed {seed}: {report:#?}");
    for project in ["p", "q", "r"] {
        let want = Want::all_of(layerd::place::Place {
            project: project.parse().unwrap(),
            ..Default::default()
        });
        let found = cache.look_up(&[want], &LIMITS).await.expect("it is served");
        if let LookedUp::Import(import) = found {
            assert_eq!(import.withdrawn, [], "seed {seed}");
        }
    }
}

/// What is kept for those who have gone, ends.
const FORGOTTEN: [&str; 4] = [
    "DELETE FROM lease",
    "UPDATE pin SET expires = {past}",
    "UPDATE possession SET expires = {past}",
    // Of this only when nobody removes anything any more.
    "DELETE FROM condemned",
];

/// Ends all that is kept for those who have gone; at the end, really all.
type Forget = Box<dyn Fn(bool) -> BoxFuture<'static, ()> + Send + Sync>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_stays_sound_while_it_is_collected() {
    let lab = Lab::new();
    let data = lab.folder("data");
    let open = async || {
        let disk = DiskStore::open(&data).await.expect("a store");
        let catalog = SqliteCatalog::open(&data).await.expect("a catalog");
        (
            Arc::new(catalog) as Arc<dyn Catalog>,
            Arc::new(disk) as Arc<dyn BlobStore>,
        )
    };
    let file = SqliteCatalog::path(&data);
    let pool = sqlx::sqlite::SqlitePoolOptions::new();
    let pool = pool.connect_lazy(file.to_str().unwrap()).expect("a URL");
    let forget: Forget = Box::new(move |all| {
        let pool = pool.clone();
        Box::pin(async move {
            for statement in &FORGOTTEN[..if all { 4 } else { 3 }] {
                let statement = statement.replace("{past}", "1");
                let done = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool);
                match done.await {
                    // Where no engine has come through to the database yet.
                    Err(sqlx::Error::Database(error))
                        if error.code().as_deref() == Some("42P01") => {}
                    done => drop(done.expect("it is forgotten")),
                }
            }
        })
    });
    nothing_is_lost_and_nothing_stays(open, forget, &Weather::Fair).await;
}

/// What becomes of the catalog meanwhile.
enum Weather {
    Fair,
    /// Whoever is connected loses that now and then, in the middle of anything,
    /// or gets no answer.
    Foul(ToxicProxy),
}

impl Weather {
    async fn blow(&self, seed: u64) {
        let Self::Foul(proxy) = self else {
            return std::future::pending().await;
        };
        let mut random = StdRng::seed_from_u64(!seed);
        loop {
            let toxic = match random.random_range(0..4) {
                0 => Toxic::Reset,
                1 => Toxic::Refuse,
                2 => Toxic::Hang,
                _ => Toxic::Cut(Way::Down, random.random_range(1..20_000)),
            };
            proxy.set(toxic);
            tokio::time::sleep(Duration::from_millis(random.random_range(1..40))).await;
            proxy.set(Toxic::Pass);
            tokio::time::sleep(Duration::from_millis(random.random_range(500..3000))).await;
        }
    }

    fn calm(&self) {
        if let Self::Foul(proxy) = self {
            proxy.set(Toxic::Pass);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_and_a_bucket_stay_sound_while_they_are_collected() {
    let postgres = Postgres::start();
    let url = postgres.database("collect");
    shared(&url, &url, "collect-churn", &Weather::Fair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_database_is_lost_now_and_then() {
    let postgres = Postgres::start_with_tls();
    let url = postgres.database("collect");
    let (proxy, by_proxy) = ToxicProxy::before(&postgres.tls_url("collect")).await;
    shared(&by_proxy, &url, "collect-foul", &Weather::Foul(proxy)).await;
}

/// `url` is for the engines, `direct` for what the test does itself.
async fn shared(url: &str, direct: &str, prefix: &str, weather: &Weather) {
    let bucket = objects::s3().await.s3_store(prefix);
    let open = async || {
        let catalog = PostgresCatalog::connect(url, PostgresOptions::default());
        let blobs = ObjectBlobs::open(&bucket, ObjectOptions::default());
        (
            Arc::new(catalog.expect("a catalog")) as Arc<dyn Catalog>,
            Arc::new(blobs.expect("a store")) as Arc<dyn BlobStore>,
        )
    };
    let pool = sqlx::PgPool::connect_lazy(direct).expect("a URL");
    let forget: Forget = Box::new(move |all| {
        let pool = pool.clone();
        Box::pin(async move {
            for statement in &FORGOTTEN[..if all { 4 } else { 3 }] {
                let statement = statement.replace("{past}", "to_timestamp(0)");
                let done = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool);
                match done.await {
                    // Where no engine has come through to the database yet.
                    Err(sqlx::Error::Database(error))
                        if error.code().as_deref() == Some("42P01") => {}
                    done => drop(done.expect("it is forgotten")),
                }
            }
        })
    });
    nothing_is_lost_and_nothing_stays(open, forget, weather).await;
}
