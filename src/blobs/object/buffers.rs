//! Memory for uploads: so much for all of them, whatever clients do.
//!
//! An upload begins with a small buffer, and takes room for a whole part only
//! when it has outgrown that. Who holds room for a part never waits for a
//! small one, so that none waits for another in a circle; and the small blobs
//! of a build do not queue behind the large ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ObjectOptions;
use super::kept::Kept;
use crate::blobs::BlobError;

/// Bytes of a buffer to begin with.
pub(super) const SMALL: usize = 256 * 1024;

/// The share of the memory that is for those: one in so many bytes.
const SMALL_SHARE: u64 = 8;

/// The room for uploads.
pub(super) struct Buffers {
    small: Arc<Semaphore>,
    parts: Arc<Semaphore>,
    part_size: usize,
}

/// Room for bytes; free again when dropped.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    pub(super) bytes: usize,
}

impl Buffers {
    pub(super) fn new(options: &ObjectOptions) -> Self {
        let count = |bytes: u64, each: usize, least: u64| {
            let count = (bytes / each as u64).max(least);
            let most = Semaphore::MAX_PERMITS;
            Arc::new(Semaphore::new(
                usize::try_from(count).unwrap_or(most).min(most),
            ))
        };
        let small = options.upload_buffers / SMALL_SHARE;
        let parts = options.upload_buffers - small;
        Self {
            small: count(small, SMALL, 1),
            parts: count(parts, options.part_size, 1),
            part_size: options.part_size,
        }
    }

    /// Room to begin with; what `kept` can spare is given up rather than
    /// waiting.
    pub(super) async fn small(&self, kept: &Kept) -> Result<Room, BlobError> {
        take(&self.small, SMALL, kept).await
    }

    /// Room for a part.
    pub(super) async fn part(&self, kept: &Kept) -> Result<Room, BlobError> {
        take(&self.parts, self.part_size, kept).await
    }

    /// Bytes that are free.
    pub(super) fn free(&self) -> u64 {
        let small = self.small.available_permits() * SMALL;
        let parts = self.parts.available_permits() * self.part_size;
        (small + parts) as u64
    }
}

async fn take(from: &Arc<Semaphore>, bytes: usize, kept: &Kept) -> Result<Room, BlobError> {
    if from.available_permits() == 0 {
        kept.give_up_buffers();
    }
    let permit = Arc::clone(from).acquire_owned().await;
    let permit = permit.map_err(|_| BlobError::Io {
        context: "no upload is taken any more".to_owned(),
        source: std::io::ErrorKind::Interrupted.into(),
    })?;
    Ok(Room {
        _permit: permit,
        bytes,
    })
}
