//! One read or one upload, measured: its bytes as they pass, and the time that
//! the store had them for.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::metrics::{Direction, Metrics};
use crate::blobs::{BlobError, BlobStream, Ingest};
use crate::digest::Digest;

/// A transfer under way; its time is taken in when this is dropped.
pub struct Transfer {
    metrics: Metrics,
    direction: Direction,
    took: Duration,
}

impl Transfer {
    /// Begins one.
    pub fn begin(metrics: &Metrics, direction: Direction) -> Self {
        Self {
            metrics: metrics.clone(),
            direction,
            took: Duration::ZERO,
        }
    }

    /// Waits for the store, and counts that.
    pub async fn timed<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.took += began.elapsed();
        done
    }

    fn moved(&self, bytes: usize) {
        self.metrics.bytes.add(self.direction, bytes as u64);
    }

    fn failed(&self, error: &BlobError) {
        let errors = match self.direction {
            Direction::Read => &self.metrics.read_errors,
            Direction::Written => &self.metrics.ingest_errors,
        };
        errors.count(error.into());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.metrics.seconds.observe(self.direction, self.took);
    }
}

/// The same bytes, measured as the store gives them.
pub fn metered(bytes: BlobStream, transfer: Transfer) -> BlobStream {
    stream::unfold((bytes, transfer), |(mut bytes, mut transfer)| async move {
        let chunk = transfer.timed(bytes.next()).await?;
        match &chunk {
            Ok(chunk) => transfer.moved(chunk.len()),
            Err(error) => transfer.failed(error),
        }
        Some((chunk, (bytes, transfer)))
    })
    .boxed()
}

/// An upload, measured.
pub struct MeteredIngest {
    inner: Box<dyn Ingest>,
    transfer: Transfer,
}

impl MeteredIngest {
    /// Measures `inner`.
    pub fn new(inner: Box<dyn Ingest>, transfer: Transfer) -> Self {
        Self { inner, transfer }
    }
}

#[async_trait]
impl Ingest for MeteredIngest {
    fn offset(&self) -> u64 {
        self.inner.offset()
    }

    fn digest(&self) -> Digest {
        self.inner.digest()
    }

    fn started_at(&self) -> SystemTime {
        self.inner.started_at()
    }

    fn updated_at(&self) -> SystemTime {
        self.inner.updated_at()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let length = bytes.len();
        let written = self.transfer.timed(self.inner.write(bytes)).await;
        written
            .inspect(|()| self.transfer.moved(length))
            .inspect_err(|error| self.transfer.failed(error))
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        let restarted = self.transfer.timed(self.inner.restart()).await;
        restarted.inspect_err(|error| self.transfer.failed(error))
    }

    async fn commit(
        self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let mut this = *self;
        let committed = this.transfer.timed(this.inner.commit(size, expected)).await;
        committed.inspect_err(|error| this.transfer.failed(error))
    }

    async fn abort(self: Box<Self>) -> Result<(), BlobError> {
        let mut this = *self;
        this.transfer.timed(this.inner.abort()).await
    }
}
