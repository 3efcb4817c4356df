//! A tier over an origin that fails in every way that it can.

mod origin;

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

use self::origin::{Fault, FaultyOrigin};
use super::*;
use crate::blobs::BlobStore;
use crate::blobs::conformance::{blob_store_conformance, content, put};

const SIZE: usize = 3_000_000;

/// A tier in a folder of its own, in front of an origin of its own.
struct Lab {
    dir: TempDir,
    origin: Arc<FaultyOrigin>,
    metrics: TierMetrics,
    tier: Tier,
}

fn options() -> TierOptions {
    TierOptions {
        max_bytes: 100_000_000,
        patience: Duration::from_secs(30),
        stall: Duration::from_secs(30),
    }
}

impl Lab {
    async fn new() -> Self {
        Self::with(options()).await
    }

    async fn with(options: TierOptions) -> Self {
        let dir = TempDir::new().unwrap();
        let origin = Arc::new(FaultyOrigin::new().await);
        let metrics = TierMetrics::default();
        let tier = open(&dir, &origin, options, &metrics).await;
        Self {
            dir,
            origin,
            metrics,
            tier,
        }
    }

    async fn blob(&self, length: usize) -> (Digest, Bytes) {
        let bytes = content(length);
        (put(self.origin.store(), "blob", &bytes).await, bytes)
    }

    async fn kept(&self, digest: &Digest) -> bool {
        self.tier.has(digest).await
    }

    /// Waits until no fetch is under way.
    async fn idle(&self) {
        until(async || self.tier.shared.fetches.is_idle()).await;
    }
}

async fn open(
    dir: &TempDir,
    origin: &Arc<FaultyOrigin>,
    options: TierOptions,
    metrics: &TierMetrics,
) -> Tier {
    let disk = DiskStore::open(dir.path()).await.unwrap();
    let origin: Arc<dyn Origin> = Arc::clone(origin) as _;
    Tier::open(disk, origin, options, metrics.clone()).await
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it happens within a minute");
}

async fn read(tier: &Tier, digest: &Digest, offset: u64, length: u64) -> Result<Bytes, BlobError> {
    let stream = tier.read(digest, offset, length).await?;
    Ok(stream.try_collect::<BytesMut>().await?.freeze())
}

async fn whole(tier: &Tier, digest: &Digest) -> Result<Bytes, BlobError> {
    read(tier, digest, 0, u64::MAX).await
}

async fn open_tiered() -> (Lab, TieredBlobs) {
    let lab = Lab::new().await;
    let store: Arc<dyn BlobStore> = Arc::new(lab.origin.store().clone());
    let tiered = TieredBlobs::new(lab.tier.clone(), store);
    (lab, tiered)
}

blob_store_conformance!(open_tiered);

#[tokio::test]
async fn a_blob_is_fetched_once_and_then_read_from_the_disk() {
    let lab = Lab::new().await;
    let (digest, bytes) = lab.blob(SIZE).await;
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    lab.idle().await;
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    assert_eq!(lab.origin.asked(), [0]);
    assert_eq!(lab.metrics.count(Read::Miss), 1);
    assert_eq!(lab.metrics.count(Read::Hit), 1);
}

#[tokio::test]
async fn readers_of_any_range_at_once_share_one_fetch() {
    let lab = Lab::new().await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::HoldAt(1_000_000)]);
    let reads = (0..16u64).map(|at| {
        let (tier, bytes) = (&lab.tier, &bytes);
        async move {
            let (from, to) = (at as usize * 150_000, at as usize * 190_000 + 5);
            let got = read(tier, &digest, from as u64, (to - from) as u64).await;
            assert_eq!(got.unwrap(), bytes[from..to]);
        }
    });
    let release = async {
        until(async || lab.metrics.count(Read::Joined) == 15).await;
        lab.origin.release();
    };
    tokio::join!(futures::future::join_all(reads), release);
    assert_eq!(lab.origin.asked(), [0]);
}

#[tokio::test]
async fn bytes_are_read_while_the_rest_is_on_its_way() {
    let lab = Lab::new().await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::HoldAt(1_000_001)]);
    let mut stream = lab.tier.read(&digest, 0, u64::MAX).await.unwrap();
    let mut got = BytesMut::new();
    while got.len() < 1_000_001 {
        got.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    lab.origin.release();
    while let Some(chunk) = stream.next().await {
        got.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_broke_off_however_that_was() {
    let stall = Duration::from_millis(200);
    let lab = Lab::with(TierOptions { stall, ..options() }).await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.origin.fail([
        Fault::Refuse,
        Fault::BreakAt(700_000),
        Fault::Refuse,
        Fault::EndAt(1_200_000),
        Fault::HoldAt(1_500_000),
    ]);
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    assert_eq!(
        lab.origin.asked(),
        [0, 0, 700_000, 700_000, 1_200_000, 1_500_000]
    );
    lab.idle().await;
    assert!(lab.kept(&digest).await);
}

#[tokio::test]
async fn an_origin_that_fails_for_too_long_is_an_error_and_the_next_read_resumes() {
    let patience = Duration::from_millis(100);
    let lab = Lab::with(TierOptions {
        patience,
        ..options()
    })
    .await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::BreakAt(2_000_000)]);
    lab.origin.fail((0..1000).map(|_| Fault::Refuse));
    let error = whole(&lab.tier, &digest).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    lab.origin.fail([]);
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    assert_eq!(lab.origin.asked().last(), Some(&2_000_000));
}

#[tokio::test]
async fn a_wrong_byte_is_an_error_before_the_end_and_never_kept() {
    for at in [0, 1_500_000, SIZE as u64 - 1] {
        let lab = Lab::new().await;
        let (digest, bytes) = lab.blob(SIZE).await;
        lab.origin.fail([Fault::WrongByteAt(at)]);
        let mut stream = lab.tier.read(&digest, 0, u64::MAX).await.unwrap();
        let mut got = 0;
        let error = loop {
            match stream.next().await.expect("no end without an error") {
                Ok(chunk) => got += chunk.len(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BlobError::WrongDigest { .. }), "{error}");
        assert!(got < SIZE, "{got}");
        assert!(!lab.kept(&digest).await);
        assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
        assert_eq!(lab.origin.asked(), [0, 0], "fetched anew, from the start");
    }
}

#[tokio::test]
async fn a_blob_that_does_not_fit_is_streamed_and_verified_without_being_kept() {
    let lab = Lab::with(TierOptions {
        max_bytes: SIZE as u64 - 1,
        ..options()
    })
    .await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::BreakAt(1_000_000)]);
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    assert_eq!(lab.origin.asked(), [0, 1_000_000]);
    lab.origin.fail([Fault::WrongByteAt(5)]);
    let error = whole(&lab.tier, &digest).await.unwrap_err();
    assert!(matches!(error, BlobError::WrongDigest { .. }), "{error}");
    assert!(!lab.kept(&digest).await);
}

#[tokio::test]
async fn a_broken_disk_costs_no_read() {
    let lab = Lab::new().await;
    let (digest, bytes) = lab.blob(SIZE).await;
    std::fs::remove_dir(lab.dir.path().join("ingest")).unwrap();
    std::fs::write(lab.dir.path().join("ingest"), b"no directory").unwrap();
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    std::fs::remove_dir_all(lab.dir.path().join("blobs")).unwrap();
    std::fs::write(lab.dir.path().join("blobs"), b"no directory").unwrap();
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    assert_eq!(lab.metrics.count(Read::Around), 1);
}

#[tokio::test]
async fn a_blob_that_can_not_be_read_to_its_end_goes_on_at_the_origin() {
    let lab = Lab::new().await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.tier.fetch(&digest).await.unwrap();
    let stream = lab.tier.read(&digest, 0, u64::MAX).await.unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(lab.tier.disk().file(&digest));
    file.unwrap().set_len(600_000).unwrap();
    let got = stream.try_collect::<BytesMut>().await.unwrap();
    assert_eq!(got, bytes);
    assert!(!lab.kept(&digest).await, "it is fetched anew");
}

#[tokio::test]
async fn a_blob_that_nobody_has_is_not_found() {
    let lab = Lab::new().await;
    let absent = Digest::of(b"absent");
    let error = whole(&lab.tier, &absent).await.unwrap_err();
    assert!(matches!(error, BlobError::NotFound(digest) if digest == absent));
    let error = lab.tier.fetch(&absent).await.unwrap_err();
    assert!(matches!(error, BlobError::NotFound(_)));
}

#[tokio::test]
async fn an_abandoned_fetch_stops_and_the_next_one_resumes_it() {
    let lab = Lab::new().await;
    let (digest, bytes) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::HoldAt(1_000_000)]);
    let mut stream = lab.tier.read(&digest, 0, u64::MAX).await.unwrap();
    let mut got = 0;
    while got < 1_000_000 {
        got += stream.next().await.unwrap().unwrap().len();
    }
    drop(stream);
    lab.idle().await;
    assert!(!lab.kept(&digest).await);
    assert_eq!(whole(&lab.tier, &digest).await.unwrap(), bytes);
    assert_eq!(lab.origin.asked(), [0, 1_000_000]);
}

#[tokio::test]
async fn a_fetch_that_has_most_is_finished_without_readers() {
    let lab = Lab::new().await;
    let (digest, _) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::HoldAt(2_000_000)]);
    let mut stream = lab.tier.read(&digest, 0, u64::MAX).await.unwrap();
    let mut got = 0;
    while got < 2_000_000 {
        got += stream.next().await.unwrap().unwrap().len();
    }
    drop(stream);
    lab.origin.release();
    lab.idle().await;
    assert!(lab.kept(&digest).await);
    assert_eq!(lab.origin.asked(), [0]);
}

#[tokio::test]
async fn a_tier_that_is_dropped_ends_its_fetches() {
    let lab = Lab::new().await;
    let (digest, _) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::HoldAt(2_000_000)]);
    let mut stream = lab.tier.read(&digest, 0, u64::MAX).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop((stream, lab.tier));
    // What it held of the origin is given back.
    until(async || Arc::strong_count(&lab.origin) == 1).await;
}

#[tokio::test]
async fn what_was_used_least_recently_goes_first() {
    let lab = Lab::with(TierOptions {
        max_bytes: 250_000,
        ..options()
    })
    .await;
    let mut blobs = Vec::new();
    for length in [100_000, 100_001, 100_002, 100_003] {
        blobs.push(lab.blob(length).await.0);
    }
    lab.tier.fetch(&blobs[0]).await.unwrap();
    lab.tier.fetch(&blobs[1]).await.unwrap();
    whole(&lab.tier, &blobs[0]).await.unwrap();
    lab.tier.fetch(&blobs[2]).await.unwrap();
    assert!(lab.kept(&blobs[0]).await && !lab.kept(&blobs[1]).await);
    assert_eq!(lab.metrics.evictions(), 1);

    // What comes by on its way to the origin counts, too.
    let mut ingest = lab.tier.ingest("layer", None).await.unwrap();
    ingest.write(content(100_004)).await.unwrap();
    ingest.commit(None, None).await.unwrap();
    assert!(!lab.kept(&blobs[0]).await && lab.kept(&blobs[2]).await);

    // Being read, it stays, whatever comes.
    let reading = lab.tier.read(&blobs[2], 0, 1).await.unwrap();
    lab.tier.fetch(&blobs[3]).await.unwrap();
    lab.tier.fetch(&blobs[0]).await.unwrap();
    assert!(lab.kept(&blobs[2]).await);
    drop(reading);
    lab.tier.fetch(&blobs[1]).await.unwrap();
    assert!(!lab.kept(&blobs[2]).await);
}

#[tokio::test]
async fn the_order_of_use_survives_a_restart() {
    let lab = Lab::new().await;
    let (old, _) = lab.blob(100_000).await;
    let (older, _) = lab.blob(100_001).await;
    let (new, _) = lab.blob(100_002).await;
    for (digest, minutes) in [(old, 10), (older, 20)] {
        lab.tier.fetch(&digest).await.unwrap();
        let file = std::fs::File::open(lab.tier.disk().file(&digest)).unwrap();
        let used = SystemTime::now() - Duration::from_secs(minutes * 60);
        file.set_modified(used).unwrap();
    }
    let small = TierOptions {
        max_bytes: 250_000,
        ..options()
    };
    let tier = open(&lab.dir, &lab.origin, small, &lab.metrics).await;
    // Used now, and written down.
    whole(&tier, &older).await.unwrap();
    let tier = open(&lab.dir, &lab.origin, small, &lab.metrics).await;
    tier.fetch(&new).await.unwrap();
    assert!(tier.has(&older).await && !tier.has(&old).await);
}

#[tokio::test]
async fn what_is_pinned_stays_for_every_process() {
    let lab = Lab::new().await;
    let (pinned, _) = lab.blob(100_000).await;
    let (other, bytes) = lab.blob(100_001).await;
    lab.tier.fetch(&pinned).await.unwrap();
    let pin = lab.tier.pin(&pinned).await;
    let small = TierOptions {
        max_bytes: 150_000,
        ..options()
    };
    // As another process would open it.
    let tier = open(&lab.dir, &lab.origin, small, &lab.metrics).await;
    assert_eq!(whole(&tier, &other).await.unwrap(), bytes);
    tier.fetch(&other).await.unwrap();
    assert!(tier.has(&pinned).await && !tier.has(&other).await);
    drop(pin);
    tier.fetch(&other).await.unwrap();
    assert!(!tier.has(&pinned).await && tier.has(&other).await);
}

#[tokio::test]
async fn what_is_beyond_the_size_goes_once_nobody_holds_it() {
    let lab = Lab::new().await;
    let (used, _) = lab.blob(100_000).await;
    let (pinned, _) = lab.blob(100_001).await;
    lab.tier.fetch(&pinned).await.unwrap();
    lab.tier.fetch(&used).await.unwrap();
    let pin = lab.tier.pin(&pinned).await;
    let small = TierOptions {
        max_bytes: 50_000,
        ..options()
    };
    let tier = open(&lab.dir, &lab.origin, small, &lab.metrics).await;
    let read = tier.pin(&used).await;
    tier.trim().await;
    assert!(lab.kept(&used).await && lab.kept(&pinned).await);
    drop((pin, read));
    tier.trim().await;
    assert!(!lab.kept(&used).await && !lab.kept(&pinned).await);
}

#[tokio::test]
async fn what_cut_off_fetches_left_counts_and_goes_first() {
    let max_bytes = 4_000_000;
    let lab = Lab::with(TierOptions {
        max_bytes,
        ..options()
    })
    .await;
    let (kept, _) = lab.blob(1_000_000).await;
    lab.tier.fetch(&kept).await.unwrap();
    let (cut_off, _) = lab.blob(SIZE).await;
    lab.origin.fail([Fault::HoldAt(1_200_000)]);
    let mut stream = lab.tier.read(&cut_off, 0, u64::MAX).await.unwrap();
    let mut got = 0;
    while got < 1_200_000 {
        got += stream.next().await.unwrap().unwrap().len();
    }
    drop(stream);
    lab.idle().await;
    assert_eq!(lab.tier.disk().unfinished().await.unwrap().len(), 1);
    let (other, _) = lab.blob(2_500_000).await;
    lab.tier.fetch(&other).await.unwrap();
    assert!(lab.kept(&kept).await && lab.kept(&other).await);
    assert_eq!(lab.tier.disk().unfinished().await.unwrap().len(), 0);
}
