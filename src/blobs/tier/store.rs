//! A store that is read through a tier.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{Origin, Tier};
use crate::blobs::{
    BlobError, BlobStore, BlobStream, Generation, Ingest, Location, StoreId, Taken, Version,
};
use crate::digest::Digest;

/// A [`BlobStore`] behind a [`Tier`]: reads come from the disk where they can,
/// all else is the store's. What is written goes to the store alone.
#[derive(Clone)]
pub struct TieredBlobs {
    tier: Tier,
    store: Arc<dyn BlobStore>,
}

impl TieredBlobs {
    /// `store` as `tier`, whose origin it is, has it.
    pub fn new(tier: Tier, store: Arc<dyn BlobStore>) -> Self {
        Self { tier, store }
    }

    /// The tier.
    pub fn tier(&self) -> &Tier {
        &self.tier
    }
}

/// A store as the origin of a tier.
#[derive(Clone)]
pub struct StoreOrigin(pub Arc<dyn BlobStore>);

#[async_trait]
impl Origin for StoreOrigin {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.size(digest).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.0.read(digest, offset, length).await
    }
}

#[async_trait]
impl BlobStore for TieredBlobs {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.size(digest).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        self.store.version(digest).await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        self.store.sizes(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.tier.read(digest, offset, length).await
    }

    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        self.store.ingest(name, expected).await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        // The store's first: a read in between must not bring it back here.
        self.store.remove(digest).await?;
        self.tier.remove(digest).await
    }

    async fn drop_copy(&self, digest: &Digest) -> Result<(), BlobError> {
        self.tier.remove(digest).await
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
        self.store.ready().await
    }

    async fn probe(&self) -> Result<(), BlobError> {
        self.store.probe().await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        self.store.id().await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        self.store.take_id(id, taken).await
    }

    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError> {
        // What is here is given from here.
        match self.tier.has(digest).await {
            true => Ok(None),
            false => self.store.locate(digest, ttl).await,
        }
    }
}
