//! A store that writes down what is asked of it, for tests of what nobody may
//! tell apart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    BlobError, BlobStore, BlobStream, Generation, Ingest, Location, StoreId, Taken, Version,
};
use crate::digest::Digest;

/// What was asked, in order; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub(crate) fn note(&self, what: impl Into<String>) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(what.into());
    }

    /// All since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Another store, and what is asked of it.
pub(crate) struct Recorded {
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) journal: Journal,
}

#[async_trait]
impl BlobStore for Recorded {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.journal.note("blobs: size");
        self.store.size(digest).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        self.journal.note("blobs: version");
        self.store.version(digest).await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        self.journal
            .note(format!("blobs: sizes of {}", digests.len()));
        self.store.sizes(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.journal.note("blobs: read");
        self.store.read(digest, offset, length).await
    }

    async fn ingest(
        &self,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        self.journal.note("blobs: ingest");
        self.store.ingest(name, expected).await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.journal.note("blobs: remove");
        self.store.remove(digest).await
    }

    async fn drop_copy(&self, digest: &Digest) -> Result<(), BlobError> {
        self.journal.note("blobs: drop a copy");
        self.store.drop_copy(digest).await
    }

    async fn persist(&self) -> Result<(), BlobError> {
        self.journal.note("blobs: persist");
        self.store.persist().await
    }

    async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError> {
        self.journal.note("blobs: list");
        self.store.list().await
    }

    async fn generation(&self) -> Option<Generation> {
        self.journal.note("blobs: generation");
        self.store.generation().await
    }

    async fn ready(&self) -> Result<(), BlobError> {
        self.store.ready().await
    }

    async fn probe(&self) -> Result<(), BlobError> {
        self.store.probe().await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        self.journal.note("blobs: id");
        self.store.id().await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        self.journal.note("blobs: take an id");
        self.store.take_id(id, taken).await
    }

    async fn locate(&self, digest: &Digest, ttl: Duration) -> Result<Option<Location>, BlobError> {
        self.journal.note("blobs: locate");
        self.store.locate(digest, ttl).await
    }
}
