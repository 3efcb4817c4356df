//! A writer of an upload.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::bucket::Bucket;
use super::buffers::Buffers;
use super::kept::{Claim, Kept};
use super::upload::Upload;
use crate::blobs::{BlobError, Ingest};
use crate::digest::Digest;

pub(super) struct ObjectIngest {
    bucket: Arc<Bucket>,
    buffers: Arc<Buffers>,
    kept: Arc<Kept>,
    /// `None`: it can't be resumed.
    name: Option<Digest>,
    expected: Option<Digest>,
    upload: Upload,
}

impl ObjectIngest {
    pub(super) fn open(
        bucket: Arc<Bucket>,
        buffers: Arc<Buffers>,
        kept: Arc<Kept>,
        name: Digest,
        expected: Option<Digest>,
    ) -> Self {
        let (name, left) = match kept.claim(name, expected) {
            Claim::Taken => (None, None),
            Claim::Mine(left) => (Some(name), left),
        };
        Self {
            upload: left.map_or_else(|| Upload::new(&kept, expected), |left| *left),
            bucket,
            buffers,
            kept,
            name,
            expected,
        }
    }

    /// Takes the upload out; a new one is in its place.
    fn take(&mut self) -> Upload {
        let new = Upload::new(&self.kept, self.expected);
        std::mem::replace(&mut self.upload, new)
    }
}

#[async_trait]
impl Ingest for ObjectIngest {
    fn offset(&self) -> u64 {
        self.upload.offset
    }

    fn digest(&self) -> Digest {
        self.upload.digest()
    }

    fn started_at(&self) -> SystemTime {
        self.upload.started_at
    }

    fn updated_at(&self) -> SystemTime {
        self.upload.updated_at
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.upload
            .write(&self.bucket, &self.buffers, &self.kept, bytes)
            .await
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.take().abort(&self.bucket).await;
        Ok(())
    }

    async fn commit(
        mut self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        self.take().commit(&self.bucket, size, expected).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), BlobError> {
        self.take().abort(&self.bucket).await;
        Ok(())
    }
}

impl Drop for ObjectIngest {
    fn drop(&mut self) {
        let left = self.take();
        if let Some(name) = self.name {
            self.kept.release(name, left);
        }
    }
}
