//! A store that fails at random, and takes its time where a race would be won
//! by it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::stream::BoxStream;
use layerd::blobs::{
    BlobError, BlobStore, BlobStream, Committing, Generation, Ingest, Location, StoreId, Taken,
    Version,
};
use layerd::digest::Digest;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Another store, unreliable.
#[derive(Clone)]
pub struct Unreliable {
    inner: Arc<dyn BlobStore>,
    random: Arc<Mutex<StdRng>>,
}

impl Unreliable {
    pub fn new(inner: Arc<dyn BlobStore>, seed: u64) -> Self {
        Self {
            inner,
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// Takes up to some milliseconds, and fails now and then.
    async fn trouble(&self) -> Result<(), BlobError> {
        let (pause, fails) = {
            let mut random = self.random.lock().unwrap();
            (random.random_range(0..4), random.random_bool(0.02))
        };
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        match fails {
            true => Err(BlobError::Io {
                context: "the store".to_owned(),
                source: io::Error::other("a fault that was asked for"),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl BlobStore for Unreliable {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.trouble().await?;
        self.inner.size(digest).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        self.trouble().await?;
        self.inner.version(digest).await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        self.trouble().await?;
        self.inner.sizes(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.trouble().await?;
        self.inner.read(digest, offset, length).await
    }

    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        self.trouble().await?;
        let (ingest, store) = (self.inner.ingest(name, expected).await?, self.clone());
        let committing = Committing::new(ingest, move |ingest, size, expected| {
            async move {
                store.trouble().await?;
                let committed = ingest.commit(size, expected).await?;
                store.trouble().await?;
                Ok(committed)
            }
            .boxed()
        });
        Ok(Box::new(committing))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.trouble().await?;
        self.inner.remove(digest).await?;
        // Removed, and nobody is told.
        self.trouble().await
    }

    async fn persist(&self) -> Result<(), BlobError> {
        self.trouble().await?;
        self.inner.persist().await
    }

    async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError> {
        self.trouble().await?;
        self.inner.list().await
    }

    async fn generation(&self) -> Option<Generation> {
        self.inner.generation().await
    }

    async fn ready(&self) -> Result<(), BlobError> {
        self.inner.ready().await
    }

    async fn probe(&self) -> Result<(), BlobError> {
        self.inner.probe().await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        self.inner.id().await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        self.inner.take_id(id, taken).await
    }

    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError> {
        self.inner.locate(digest, ttl).await
    }
}
