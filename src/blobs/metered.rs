//! A store that measures what is asked of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prometheus_client::registry::Registry;

use super::{
    BlobError, BlobStore, BlobStream, Generation, Ingest, Location, StoreId, Taken, Version,
};
use crate::digest::Digest;
use crate::telemetry::metrics::{CounterBy, SecondsBy, label};

label! {
    /// What was asked.
    Operation as "operation" {
        /// The size of a blob.
        Size = "size",
        /// The sizes of many.
        Sizes = "sizes",
        /// A read, until its first bytes.
        Read = "read",
        /// A write of some bytes of an upload.
        Write = "write",
        /// The end of an upload.
        Commit = "commit",
        /// A removal.
        Remove = "remove",
        /// A URL.
        Locate = "locate",
        /// A check for readiness, or a trial of a write.
        Check = "check",
    }
}

label! {
    /// How it ended.
    Outcome as "outcome" {
        /// As asked.
        Ok = "ok",
        /// The blob is not there.
        NotFound = "not_found",
        /// The bytes were not those that were announced.
        Wrong = "wrong",
        /// No space, or no more quota.
        Full = "full",
        /// No writes are taken.
        ReadOnly = "read_only",
        /// Anything else.
        Failed = "failed",
    }
}

label! {
    /// Which way bytes went.
    Way as "direction" {
        /// Out of the store.
        Read = "read",
        /// Into it.
        Written = "written",
    }
}

impl From<&BlobError> for Outcome {
    fn from(error: &BlobError) -> Self {
        match error {
            BlobError::NotFound(_) => Self::NotFound,
            BlobError::WrongDigest { .. } | BlobError::WrongSize { .. } => Self::Wrong,
            BlobError::Full(_) | BlobError::Refused(_) => Self::Full,
            BlobError::ReadOnly(_) => Self::ReadOnly,
            BlobError::Io { .. } => Self::Failed,
        }
    }
}

/// The metrics of a store; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    seconds: SecondsBy<(Operation, Outcome)>,
    bytes: CounterBy<Way>,
    broken: CounterBy<Outcome>,
}

impl StoreMetrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.seconds.register(
            registry,
            "layerd_store_seconds",
            "What the blob store took for one operation; a read until its first bytes",
        );
        metrics.bytes.register(
            registry,
            "layerd_store_transferred_bytes",
            "Bytes of blobs read out of the blob store and written into it",
        );
        metrics.broken.register(
            registry,
            "layerd_store_broken_reads",
            "Reads that the blob store broke off, by why",
        );
        metrics
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let began = Instant::now();
        let done = work.await;
        let outcome = done.as_ref().map_or_else(Outcome::from, |_| Outcome::Ok);
        self.seconds.observe((operation, outcome), began.elapsed());
        done
    }
}

/// A store, measured.
#[derive(Clone)]
pub struct MeteredBlobs {
    store: Arc<dyn BlobStore>,
    metrics: StoreMetrics,
}

impl MeteredBlobs {
    /// `store`, counted into `metrics`.
    pub fn new(store: Arc<dyn BlobStore>, metrics: StoreMetrics) -> Self {
        Self { store, metrics }
    }
}

#[async_trait]
impl BlobStore for MeteredBlobs {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let work = self.store.size(digest);
        self.metrics.timed(Operation::Size, work).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        let work = self.store.version(digest);
        self.metrics.timed(Operation::Size, work).await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        let work = self.store.sizes(digests);
        self.metrics.timed(Operation::Sizes, work).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        let first = async {
            let mut stream = self.store.read(digest, offset, length).await?;
            let first = stream.next().await.transpose()?;
            Ok((first, stream))
        };
        let (first, rest) = self.metrics.timed(Operation::Read, first).await?;
        let metrics = self.metrics.clone();
        let stream = futures::stream::iter(first.map(Ok)).chain(rest);
        let counted = stream.inspect(move |chunk| match chunk {
            Ok(bytes) => metrics.bytes.add(Way::Read, bytes.len() as u64),
            Err(error) => metrics.broken.count(error.into()),
        });
        Ok(counted.boxed())
    }

    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        let ingest = self.store.ingest(name, expected).await?;
        Ok(Box::new(MeteredIngest {
            ingest,
            metrics: self.metrics.clone(),
        }))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let work = self.store.remove(digest);
        self.metrics.timed(Operation::Remove, work).await
    }

    async fn persist(&self) -> Result<(), BlobError> {
        self.store.persist().await
    }

    async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError> {
        self.store.list().await
    }

    async fn generation(&self) -> Option<Generation> {
        self.store.generation().await
    }

    async fn ready(&self) -> Result<(), BlobError> {
        let work = self.store.ready();
        self.metrics.timed(Operation::Check, work).await
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let work = self.store.probe();
        self.metrics.timed(Operation::Check, work).await
    }

    async fn drop_copy(&self, digest: &Digest) -> Result<(), BlobError> {
        self.store.drop_copy(digest).await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        self.metrics.timed(Operation::Check, self.store.id()).await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        let work = self.store.take_id(id, taken);
        self.metrics.timed(Operation::Check, work).await
    }

    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError> {
        let work = self.store.locate(digest, ttl);
        self.metrics.timed(Operation::Locate, work).await
    }
}

struct MeteredIngest {
    ingest: Box<dyn Ingest>,
    metrics: StoreMetrics,
}

#[async_trait]
impl Ingest for MeteredIngest {
    fn offset(&self) -> u64 {
        self.ingest.offset()
    }

    fn digest(&self) -> Digest {
        self.ingest.digest()
    }

    fn started_at(&self) -> SystemTime {
        self.ingest.started_at()
    }

    fn updated_at(&self) -> SystemTime {
        self.ingest.updated_at()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let length = bytes.len() as u64;
        let work = self.ingest.write(bytes);
        self.metrics.timed(Operation::Write, work).await?;
        self.metrics.bytes.add(Way::Written, length);
        Ok(())
    }

    async fn append(&mut self, blob: &Digest, size: u64) -> Result<bool, BlobError> {
        let work = self.ingest.append(blob, size);
        let appended = self.metrics.timed(Operation::Write, work).await?;
        if appended {
            self.metrics.bytes.add(Way::Written, size);
        }
        Ok(appended)
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.ingest.restart().await
    }

    async fn commit(
        self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let work = self.ingest.commit(size, expected);
        self.metrics.timed(Operation::Commit, work).await
    }

    async fn abort(self: Box<Self>) -> Result<(), BlobError> {
        self.ingest.abort().await
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::blobs::DiskStore;
    use crate::blobs::conformance::{blob_store_conformance, content, get, put};

    async fn open() -> (tempfile::TempDir, MeteredBlobs) {
        let dir = tempfile::TempDir::new().unwrap();
        let store = DiskStore::open(dir.path()).await.unwrap();
        let metered = MeteredBlobs::new(Arc::new(store), StoreMetrics::default());
        (dir, metered)
    }

    blob_store_conformance!(open);

    #[tokio::test]
    async fn operations_are_measured_by_how_they_ended() {
        let (dir, _) = open().await;
        let mut registry = Registry::default();
        let store = Arc::new(DiskStore::at(dir.path()));
        let metered = MeteredBlobs::new(store, StoreMetrics::register(&mut registry));
        let digest = put(&metered, "layer", &content(1_000_000)).await;
        get(&metered, &digest, 0, 600_000).await;
        let absent = metered.read(&Digest::of(b"absent"), 0, 1).await;
        assert!(absent.is_err());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "layerd_store_seconds_count{operation=\"commit\",outcome=\"ok\"} 1",
            "layerd_store_seconds_count{operation=\"read\",outcome=\"ok\"} 1",
            "layerd_store_seconds_count{operation=\"read\",outcome=\"not_found\"} 1",
            "layerd_store_transferred_bytes_total{direction=\"read\"} 600000",
            "layerd_store_transferred_bytes_total{direction=\"written\"} 1000000",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
