//! What a repair removes, and what it leaves for others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::*;
use crate::blobs::{BlobStore, Generation, Location, StoreId, Taken, Version};
use crate::cache::check::Leased;
use crate::cache::repair::repair;

#[tokio::test]
async fn a_check_counts_what_is_in_the_log_and_tells_apart_what_leases_keep() {
    let (dir, cache) = cache();
    for content in ["rotten", "left", "sound!"] {
        publish(&cache, place("p", content), &[content]).await;
    }
    collect::settled(&cache).await;
    let opened = cache.opener.opened().await.unwrap();
    let (catalog, blobs) = (&opened.catalog, &opened.blobs);
    let lease = catalog.take_lease(Duration::from_secs(600)).await.unwrap();
    fs::write(blob_file(&dir, "rotten"), "ROTTEN").unwrap();
    let checked = async || check(&**blobs, None, &**catalog, 2, &|_| ()).await.unwrap();
    let report = checked().await;
    assert_eq!((report.exports, report.blobs), (3, 3));
    assert_eq!(report.leased, Leased::default());
    let repairs = repair(catalog, blobs, None, &report).await.unwrap();
    assert_eq!((repairs.retired.len(), repairs.removed.len()), (1, 1));

    let report = checked().await;
    assert_eq!(report.problems, [], "it is repaired");
    assert_eq!((report.exports, report.blobs, report.bytes), (2, 2, 10));
    let missing = Leased {
        exports: 1,
        missing: 1,
        ..Leased::default()
    };
    assert_eq!(report.leased, missing);

    let left = catalog.naming(&Digest::of(b"left")).await.unwrap();
    catalog.retire(&left).await.unwrap();
    let report = checked().await;
    assert_eq!((report.exports, report.blobs, report.bytes), (1, 1, 6));
    let both = Leased {
        exports: 2,
        blobs: 1,
        bytes: 4,
        missing: 1,
    };
    assert_eq!(report.leased, both);
    assert_eq!((report.problems.len(), report.unreferenced.len()), (0, 0));

    catalog.end_lease(lease).await.unwrap();
    catalog.purge().await.unwrap();
    let report = checked().await;
    assert_eq!((report.exports, report.blobs), (1, 2));
    assert_eq!(report.leased, Leased::default());
    assert_eq!(report.unreferenced.len(), 1);
}

/// A store in which a blob is uploaded anew while it is hashed for the `at`th
/// time, which takes longer than it can be condemned.
struct Anew {
    disk: DiskStore,
    catalog: Arc<dyn Catalog>,
    file: std::path::PathBuf,
    content: &'static str,
    at: usize,
    reads: AtomicUsize,
}

#[async_trait]
impl BlobStore for Anew {
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        let hashed = self.disk.read(digest, offset, length).await?;
        if self.reads.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            self.catalog.acquit(&[*digest]).await.unwrap();
            let beside = self.file.with_extension("new");
            fs::write(&beside, self.content).unwrap();
            fs::rename(beside, &self.file).unwrap();
        }
        Ok(hashed)
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.disk.size(digest).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        self.disk.version(digest).await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        self.disk.sizes(digests).await
    }

    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        self.disk.ingest(name, expected).await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.disk.remove(digest).await
    }

    async fn persist(&self) -> Result<(), BlobError> {
        self.disk.persist().await
    }

    async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError> {
        self.disk.list().await
    }

    async fn generation(&self) -> Option<Generation> {
        self.disk.generation().await
    }

    async fn ready(&self) -> Result<(), BlobError> {
        self.disk.ready().await
    }

    async fn probe(&self) -> Result<(), BlobError> {
        self.disk.probe().await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        self.disk.id().await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        self.disk.take_id(id, taken).await
    }

    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError> {
        self.disk.locate(digest, ttl).await
    }
}

#[tokio::test]
async fn what_is_uploaded_anew_while_it_is_hashed_stays_however_long_that_takes() {
    for at in 1..=3 {
        let (dir, cache) = cache();
        for content in ["rotten", "sound"] {
            publish(&cache, place("p", content), &[content]).await;
        }
        collect::settled(&cache).await;
        fs::write(blob_file(&dir, "rotten"), "ROTTEN").unwrap();
        let opened = cache.opener.opened().await.unwrap();
        let catalog = &opened.catalog;
        let disk = DiskStore::at(dir.path().join("data"));
        let report = check(&disk, None, &**catalog, 2, &|_| ()).await.unwrap();
        assert_eq!(report.problems.len(), 1);
        let anew = Arc::new(Anew {
            disk,
            catalog: Arc::clone(catalog),
            file: blob_file(&dir, "rotten"),
            content: "rotten",
            at,
            reads: AtomicUsize::default(),
        });
        let blobs: Arc<dyn BlobStore> = anew.clone();
        let repairs = repair(catalog, &blobs, None, &report).await.unwrap();
        let is_there = collect::stored(&dir).contains(&Digest::of(b"rotten").hex());
        // Nobody names it yet: that it goes as an orphan is another matter.
        let is_anew = anew.reads.load(Ordering::SeqCst) >= at;
        let is_removed = repairs.removed.contains(&Digest::of(b"rotten"));
        assert_eq!(is_removed, !is_anew, "at {at}: {repairs:?}");
        assert!(is_anew || !is_there, "at {at}: {repairs:?}");
    }
}
