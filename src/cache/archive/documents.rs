//! The documents of an archive between their arrival and the publication of
//! their exports, in a temporary file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use super::ArchiveError;
use super::format::MAX_DOCUMENTS_BYTES;
use crate::cache::Document;
use crate::digest::Digest;

/// Documents that are found by their digests.
pub(super) struct Documents {
    file: Arc<File>,
    end: u64,
    at: HashMap<Digest, (u64, usize)>,
}

impl Documents {
    pub(super) fn new() -> Result<Self, ArchiveError> {
        let file = tempfile::tempfile().map_err(ArchiveError::io("making a temporary file"))?;
        Ok(Self {
            file: Arc::new(file),
            end: 0,
            at: HashMap::new(),
        })
    }

    /// Keeps one whose digest was verified.
    pub(super) async fn put(&mut self, digest: Digest, bytes: Bytes) -> Result<(), ArchiveError> {
        let (at, length) = (self.end, bytes.len());
        self.end += length as u64;
        if self.end > MAX_DOCUMENTS_BYTES {
            return Err(ArchiveError::Malformed(format!(
                "its documents have more than {MAX_DOCUMENTS_BYTES} bytes"
            )));
        }
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, at));
        let written = written.await.unwrap_or_else(|stopped| Err(stopped.into()));
        written.map_err(ArchiveError::io("writing a temporary file"))?;
        self.at.insert(digest, (at, length));
        Ok(())
    }

    /// One that was kept.
    pub(super) async fn get(&self, digest: &Digest) -> Result<Document, ArchiveError> {
        let Some(&(at, length)) = self.at.get(digest) else {
            return Err(ArchiveError::Malformed(format!("{digest} did not come")));
        };
        let file = Arc::clone(&self.file);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at).map(|()| bytes)
        });
        let read = read.await.unwrap_or_else(|stopped| Err(stopped.into()));
        let bytes = read.map_err(ArchiveError::io("reading a temporary file"))?;
        Ok(Document {
            digest: *digest,
            bytes: bytes.into(),
        })
    }
}
