//! An ingest whose commit is part of something larger; all else is its own.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{BlobError, Ingest};
use crate::digest::Digest;

/// What a commit gives: the blob and its size in bytes.
type Committed = BoxFuture<'static, Result<(Digest, u64), BlobError>>;
/// Commits the ingest, with the size and the digest that were announced.
type Commit = dyn FnOnce(Box<dyn Ingest>, Option<u64>, Option<Digest>) -> Committed + Send;

/// Another ingest, with a commit of its own.
pub struct Committing {
    ingest: Box<dyn Ingest>,
    commit: Box<Commit>,
}

impl Committing {
    /// `ingest`, committed by `commit`.
    pub fn new(
        ingest: Box<dyn Ingest>,
        commit: impl FnOnce(Box<dyn Ingest>, Option<u64>, Option<Digest>) -> Committed + Send + 'static,
    ) -> Self {
        Self {
            ingest,
            commit: Box::new(commit),
        }
    }
}

#[async_trait]
impl Ingest for Committing {
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
        self.ingest.write(bytes).await
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.ingest.restart().await
    }

    async fn commit(
        self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        (self.commit)(self.ingest, size, expected).await
    }

    async fn abort(self: Box<Self>) -> Result<(), BlobError> {
        self.ingest.abort().await
    }
}
