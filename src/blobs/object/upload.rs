//! The bytes of a blob on their way into a bucket: hashed once, gathered into
//! parts, and verified before anything can be seen.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use object_store::PutPayload;

use super::bucket::Bucket;
use super::buffers::{Buffers, Room};
use super::gathered::Gathered;
use super::kept::Kept;
use super::parts::{Failed, Parts};
use crate::blobs::BlobError;
use crate::digest::{Digest, Hasher};

/// Bytes that are hashed before other tasks get their turn.
const TURN: usize = 256 * 1024;

/// An upload, with or without a writer.
pub(super) struct Upload {
    kept: Weak<Kept>,
    /// What its commit will ask for, where that was told.
    expected: Option<Digest>,
    hasher: Hasher,
    pub(super) offset: u64,
    /// What the upload was where the buffer begins.
    sent: (Hasher, u64),
    buffer: Gathered,
    room: Option<Room>,
    parts: Option<Parts>,
    /// A part is lost, and the upload with it.
    broken: bool,
    pub(super) started_at: SystemTime,
    pub(super) updated_at: SystemTime,
}

impl Upload {
    pub(super) fn new(kept: &Arc<Kept>, expected: Option<Digest>) -> Self {
        let now = SystemTime::now();
        Self {
            kept: Arc::downgrade(kept),
            expected,
            hasher: Hasher::default(),
            offset: 0,
            sent: (Hasher::default(), 0),
            buffer: Gathered::default(),
            room: None,
            parts: None,
            broken: false,
            started_at: now,
            updated_at: now,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        self.hasher.current()
    }

    /// Whether a writer that expects this can go on with it; it is told, if so.
    pub(super) fn resume(&mut self, expected: Option<Digest>) -> bool {
        let fits = !self.broken && (self.parts.is_none() || self.expected == expected);
        if fits {
            self.expected = expected;
        }
        fits
    }

    /// Whether there is anything to go on with.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.offset > 0 && !self.broken
    }

    /// Forgets what was not sent yet, so that others have the memory; `false`
    /// where nothing is left then.
    pub(super) fn give_up_buffer(&mut self) -> bool {
        self.buffer = Gathered::default();
        self.room = None;
        (self.hasher, self.offset) = self.sent.clone();
        self.offset > 0
    }

    pub(super) async fn write(
        &mut self,
        bucket: &Bucket,
        buffers: &Buffers,
        kept: &Kept,
        mut bytes: Bytes,
    ) -> Result<(), BlobError> {
        self.updated_at = SystemTime::now();
        self.check(bucket)?;
        if self.expected.is_none() && !bucket.can_adopt(self.offset + bytes.len() as u64) {
            return Err(BlobError::Io {
                context: format!(
                    "{} takes a blob of that size only where its digest is told at the start",
                    bucket.place()
                ),
                source: std::io::ErrorKind::FileTooLarge.into(),
            });
        }
        while !bytes.is_empty() {
            let free = self.make_room(bucket, buffers, kept).await?;
            let turn = bytes.split_to(free.min(TURN).min(bytes.len()));
            self.hasher.update(&turn);
            self.buffer.take(&turn);
            self.offset += turn.len() as u64;
            if self.buffer.len() == bucket.part_size() {
                self.send(bucket).await?;
            }
            if !bytes.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Verifies, and makes the blob visible.
    pub(super) async fn commit(
        mut self,
        bucket: &Bucket,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let (actual, offset) = (self.digest(), self.offset);
        let verified = verify(offset, size)
            .and_then(|()| verify_digest(actual, expected))
            .and_then(|()| verify_digest(actual, self.expected));
        if let Err(wrong) = verified {
            self.abort(bucket).await;
            return Err(wrong);
        }
        self.check(bucket)?;
        if self.parts.is_some() && !self.buffer.is_empty() {
            self.send(bucket).await?;
        }
        let Some(parts) = &mut self.parts else {
            let payload = PutPayload::from(std::mem::take(&mut self.buffer).into_bytes());
            bucket.put(&actual, payload).await?;
            return Ok((actual, offset));
        };
        let completed = match parts.complete(bucket).await {
            Ok(()) => Ok(()),
            Err(Failed::Completion(error)) => Err(error),
            Err(Failed::Part(error)) => return Err(error),
        };
        let path = parts.path.clone();
        if path == bucket.blob(&actual) {
            bucket
                .visible(&actual, offset, completed, "write to")
                .await?;
        } else {
            completed.map_err(|error| bucket.write_failed(error, "write to"))?;
            bucket.adopt(&path, &actual, offset).await?;
        }
        self.parts = None;
        Ok((actual, offset))
    }

    pub(super) async fn abort(mut self, bucket: &Bucket) {
        if let Some(parts) = self.parts.take() {
            parts.abort(bucket).await;
        }
    }

    /// What lost a part takes no more, and is never completed.
    fn check(&self, bucket: &Bucket) -> Result<(), BlobError> {
        if self.broken {
            return Err(BlobError::Io {
                context: format!("an upload to {} had failed before", bucket.place()),
                source: std::io::ErrorKind::BrokenPipe.into(),
            });
        }
        Ok(())
    }

    /// Room for a byte at least; says for how many.
    async fn make_room(
        &mut self,
        bucket: &Bucket,
        buffers: &Buffers,
        kept: &Kept,
    ) -> Result<usize, BlobError> {
        let room = match &self.room {
            Some(room) if room.bytes > self.buffer.len() => room.bytes,
            // Large by now: what it has moves to where a part has room.
            Some(_) => self.take(buffers.part(kept).await?)?,
            None if self.parts.is_some() => self.take(buffers.part(kept).await?)?,
            None => self.take(buffers.small(kept).await?)?,
        };
        Ok(room.min(bucket.part_size()) - self.buffer.len())
    }

    fn take(&mut self, room: Room) -> Result<usize, BlobError> {
        let bytes = room.bytes;
        let mut buffer = Gathered::with_room(bytes)?;
        buffer.take(self.buffer.bytes());
        self.buffer = buffer;
        self.room = Some(room);
        Ok(bytes)
    }

    /// Sends the buffer as a part.
    async fn send(&mut self, bucket: &Bucket) -> Result<(), BlobError> {
        // Until it is on its way, it can't be gone on with.
        self.broken = true;
        if self.parts.is_none() {
            let path = match self.expected {
                Some(expected) => bucket.blob(&expected),
                None => bucket.temporary(),
            };
            self.parts = Some(Parts::begin(bucket, path).await?);
        }
        if let (Some(parts), Some(room)) = (&mut self.parts, self.room.take()) {
            parts.ready(bucket).await?;
            parts.send(bucket, std::mem::take(&mut self.buffer).into_bytes(), room);
            self.sent = (self.hasher.clone(), self.offset);
        }
        self.broken = false;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(parts), Some(kept)) = (self.parts.take(), self.kept.upgrade()) {
            kept.condemn(parts);
        }
    }
}

fn verify(actual: u64, expected: Option<u64>) -> Result<(), BlobError> {
    match expected {
        Some(expected) if expected != actual => Err(BlobError::WrongSize { expected, actual }),
        _ => Ok(()),
    }
}

fn verify_digest(actual: Digest, expected: Option<Digest>) -> Result<(), BlobError> {
    match expected {
        Some(expected) if expected != actual => Err(BlobError::WrongDigest { expected, actual }),
        _ => Ok(()),
    }
}
