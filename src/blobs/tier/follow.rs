//! What a reader gets: a blob's bytes from the disk, from the file of a fetch
//! as it grows, or from the origin where the disk fails.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use super::Tier;
use super::fetch::{End, Progress, Watch, failure};
use super::shelf::Held;
use crate::blobs::disk::errors::blocking;
use crate::blobs::{BlobError, BlobStream, patient};
use crate::digest::Digest;

/// Bytes a chunk.
const CHUNK: u64 = 512 * 1024;

/// How much of a blob's end waits until its digest is verified.
const WITHHELD: u64 = 64 * 1024;

/// A read under way.
pub(super) struct Following {
    tier: Tier,
    digest: Digest,
    /// Dropped with the read, the blob may go.
    _held: Held,
    source: Source,
    /// Where the next chunk begins, and where the read ends.
    at: u64,
    end: u64,
}

enum Source {
    /// A blob that is here.
    Disk(BlobStream),
    /// A blob of that size that is being fetched.
    Fetch(Watch, u64),
    /// A blob of that size, past the disk.
    Around(u64),
    Origin(BlobStream),
    Over,
}

impl Following {
    pub(super) fn disk(tier: Tier, digest: Digest, held: Held, stream: BlobStream) -> Self {
        Self::new(tier, digest, held, Source::Disk(stream))
    }

    pub(super) fn fetch(tier: Tier, digest: Digest, held: Held, size: u64, watch: Watch) -> Self {
        Self::new(tier, digest, held, Source::Fetch(watch, size))
    }

    pub(super) fn around(tier: Tier, digest: Digest, held: Held, size: u64) -> Self {
        Self::new(tier, digest, held, Source::Around(size))
    }

    fn new(tier: Tier, digest: Digest, held: Held, source: Source) -> Self {
        Self {
            tier,
            digest,
            _held: held,
            source,
            at: 0,
            end: 0,
        }
    }

    /// The bytes of the range, fewer where the blob ends first.
    pub(super) fn stream(mut self, offset: u64, length: u64) -> BlobStream {
        self.at = offset;
        self.end = offset.saturating_add(length);
        if let Source::Fetch(_, size) | Source::Around(size) = self.source {
            self.end = self.end.min(size);
        }
        stream::unfold(self, |mut this| async move {
            let chunk = this.next().await.transpose()?;
            match &chunk {
                Ok(bytes) => this.at += bytes.len() as u64,
                Err(_) => this.source = Source::Over,
            }
            Some((chunk, this))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            if self.at >= self.end {
                return Ok(None);
            }
            match &mut self.source {
                Source::Over => return Ok(None),
                Source::Origin(stream) => return stream.next().await.transpose(),
                Source::Around(size) => {
                    let size = *size;
                    self.source = Source::Origin(self.origin(size));
                }
                Source::Disk(stream) => match stream.next().await {
                    Some(Err(error)) => {
                        tracing::warn!(blob = %self.digest, %error, "a blob of the disk tier can't be read, and is dropped");
                        self.leave_disk().await?;
                    }
                    chunk => return chunk.transpose(),
                },
                Source::Fetch(watch, size) => {
                    let size = *size;
                    let progress = watch.borrow_and_update().clone();
                    let visible = visible(&progress, size).min(self.end);
                    if let Some(file) = progress.file.filter(|_| self.at < visible) {
                        let chunk = chunk(file, self.digest, self.at, visible);
                        return chunk.await.map(Some);
                    }
                    match progress.end {
                        Some(End::Around) => self.source = Source::Around(size),
                        Some(End::Failed(_)) => return Err(failure(progress.end.as_ref())),
                        Some(End::Verified | End::Abandoned) => return Err(failure(None)),
                        None => {
                            if watch.changed().await.is_err() {
                                return Err(failure(watch.borrow().end.as_ref()));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Goes on at the origin, and has the next read fetch the blob anew.
    async fn leave_disk(&mut self) -> Result<(), BlobError> {
        self.tier.remove(&self.digest).await.ok();
        let shared = &self.tier.shared;
        let size = patient::size(&*shared.origin, &self.digest, shared.patience).await?;
        self.end = self.end.min(size);
        self.source = Source::Around(size);
        Ok(())
    }

    /// The rest from the origin, verified where it is all.
    fn origin(&self, size: u64) -> BlobStream {
        let shared = &self.tier.shared;
        let origin = Arc::clone(&shared.origin);
        let bytes = patient::read(
            None,
            origin,
            self.digest,
            self.at,
            self.end,
            shared.patience,
        );
        if self.at == 0 && self.end == size {
            patient::verified(bytes, self.digest)
        } else {
            bytes
        }
    }
}

/// The next bytes of a file that has them up to `visible`.
async fn chunk(file: Arc<File>, digest: Digest, at: u64, visible: u64) -> Result<Bytes, BlobError> {
    let length = CHUNK.min(visible - at) as usize;
    blocking(move || {
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, at)
            .map_err(|source| BlobError::Io {
                context: format!("cannot read {digest} from the disk tier"),
                source,
            })?;
        Ok(chunk.into())
    })
    .await
}

/// Up to where a blob of `size` bytes may be shown.
fn visible(progress: &Progress, size: u64) -> u64 {
    match progress.end {
        Some(End::Verified) => size,
        _ => progress.there.min(size.saturating_sub(WITHHELD)),
    }
}
