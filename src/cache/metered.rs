//! A cache that counts what goes through it: blob bytes and the time that the
//! store took for them, each way, and what it could not do.

mod metrics;
mod transfer;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use self::metrics::Direction;
pub use self::metrics::Metrics;
use self::transfer::{MeteredIngest, Transfer, metered};
use super::{
    Cache, CacheError, Flush, Lease, Limits, LookedUp, Publication, Published, Saving, Want,
};
use crate::blobs::{BlobError, BlobStream, Ingest};
use crate::catalog::ledger::Origin;
use crate::digest::{Digest, RecordDigest};
use crate::place::{Place, ProjectId};
use crate::step::Step;

/// Another cache, counted.
pub struct Metered {
    inner: Arc<dyn Cache>,
    metrics: Metrics,
}

impl Metered {
    /// Counts what goes through `inner` in `metrics`.
    pub fn new(inner: Arc<dyn Cache>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }
}

#[async_trait]
impl Cache for Metered {
    #[tracing::instrument(name = "look_up", skip_all)]
    async fn look_up(&self, wants: &[Want], limits: &Limits) -> Result<LookedUp, CacheError> {
        let found = self.inner.look_up(wants, limits).await?;
        if let LookedUp::Import(import) = &found {
            self.metrics.imported(import);
        }
        Ok(found)
    }

    async fn lease(&self) -> Lease {
        self.inner.lease().await
    }

    async fn writable(&self, place: &Place) -> Result<(), CacheError> {
        let writable = self.inner.writable(place).await;
        writable.inspect_err(|error| self.metrics.ingest_failed(error))
    }

    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    async fn holds(&self, place: &Place, digest: &Digest) -> Result<Option<u64>, CacheError> {
        self.inner.holds(place, digest).await
    }

    async fn ingest(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, CacheError> {
        let mut transfer = Transfer::begin(&self.metrics, Direction::Written);
        let opened = transfer
            .timed(self.inner.ingest(place, name, expected))
            .await;
        let ingest = opened.inspect_err(|error| self.metrics.ingest_failed(error))?;
        Ok(Box::new(MeteredIngest::new(ingest, transfer)))
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError> {
        let mut transfer = Transfer::begin(&self.metrics, Direction::Read);
        let opened = transfer
            .timed(self.inner.read(digest, offset, length))
            .await;
        let bytes = opened.inspect_err(|error| self.metrics.read_failed(error))?;
        Ok(metered(bytes, transfer))
    }

    async fn verify(&self, digest: &Digest) -> Result<(), CacheError> {
        let verified = self.inner.verify(digest).await;
        verified.inspect_err(|error| self.metrics.read_failed(error))
    }

    async fn withdraw(&self, digest: &Digest, why: &CacheError) -> Result<(), CacheError> {
        // Whoever reads finds that; the store itself told of anything else.
        if matches!(why, CacheError::Blob(BlobError::WrongDigest { .. })) {
            self.metrics.read_failed(why);
        }
        self.inner.withdraw(digest, why).await
    }

    #[tracing::instrument(name = "publish", skip_all)]
    async fn publish(&self, export: Publication) -> Result<Published, CacheError> {
        let published = self.inner.publish(export).await;
        match &published {
            Ok(_) => self.metrics.grown.notify_one(),
            Err(error) => self.metrics.ingest_failed(error),
        }
        published
    }

    async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError> {
        self.inner.steps(project, results).await
    }

    async fn report(&self, saving: &Saving) -> Result<(), CacheError> {
        self.inner.report(saving).await
    }

    async fn flush(&self, flush: &Flush, origin: &Origin) -> Result<u64, CacheError> {
        self.inner.flush(flush, origin).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::TryStreamExt as _;

    use super::metrics::ErrorKind;
    use super::*;
    use crate::cache::LocalCache;

    #[tokio::test]
    async fn bytes_count_each_way_and_errors_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let cache = Metered::new(Arc::new(LocalCache::new(dir.path())), metrics.clone());
        let place = Place::default();
        let expected = Digest::of(b"layer");

        let mut ingest = cache.ingest(&place, "one", None).await.unwrap();
        ingest.write(Bytes::from_static(b"layer")).await.unwrap();
        ingest.commit(Some(5), Some(expected)).await.unwrap();
        let bytes = cache.read(&expected, 1, 3).await.unwrap();
        bytes.try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(metrics.bytes.get(Direction::Written), 5);
        assert_eq!(metrics.bytes.get(Direction::Read), 3);

        let mut ingest = cache.ingest(&place, "two", None).await.unwrap();
        ingest.write(Bytes::from_static(b"other")).await.unwrap();
        ingest.commit(Some(5), Some(expected)).await.unwrap_err();
        let absent = Digest::of(b"absent");
        assert!(cache.read(&absent, 0, 1).await.is_err());
        assert_eq!(metrics.ingest_errors.get(ErrorKind::WrongDigest), 1);
        assert_eq!(metrics.read_errors.get(ErrorKind::NotFound), 1);
    }
}
