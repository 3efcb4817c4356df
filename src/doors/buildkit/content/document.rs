//! The small documents of an export: the cache config and the manifest.
//!
//! They are kept in memory until the manifest publishes the export: neither is
//! a blob of the store, and one that never becomes part of an export leaves no
//! trace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::blobs::{BlobError, Ingest};
use crate::cache::{Document, MAX_DOCUMENTS};
use crate::digest::{Digest, Hasher};

/// The most that the documents of one export may hold together, in bytes.
const MAX_BYTES: usize = MAX_DOCUMENTS as usize;

/// The documents that one export has written.
#[derive(Clone, Default)]
pub struct Documents(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    committed: BTreeMap<Digest, Bytes>,
    /// Bytes of all, committed or under way.
    bytes: usize,
}

impl Documents {
    /// Begins a document.
    pub fn ingest(&self) -> Box<dyn Ingest> {
        let now = SystemTime::now();
        let bytes = Vec::new();
        Box::new(DocumentIngest {
            kept: self.clone(),
            bytes,
            hasher: Hasher::default(),
            started: now,
            updated: now,
        })
    }

    /// A committed document.
    pub fn get(&self, digest: &Digest) -> Option<Document> {
        self.kept().committed.get(digest).map(|bytes| Document {
            digest: *digest,
            bytes: bytes.clone(),
        })
    }

    /// Forgets a document that turned out to be none.
    pub fn forget(&self, digest: &Digest) {
        let mut kept = self.kept();
        if let Some(bytes) = kept.committed.remove(digest) {
            kept.bytes -= bytes.len();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct DocumentIngest {
    kept: Documents,
    bytes: Vec<u8>,
    hasher: Hasher,
    started: SystemTime,
    updated: SystemTime,
}

impl DocumentIngest {
    fn forget_bytes(&mut self) {
        self.kept.kept().bytes -= self.bytes.len();
        self.bytes = Vec::new();
        self.hasher = Hasher::default();
    }
}

impl Drop for DocumentIngest {
    fn drop(&mut self) {
        self.forget_bytes();
    }
}

#[async_trait]
impl Ingest for DocumentIngest {
    fn offset(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> Digest {
        self.hasher.current()
    }

    fn started_at(&self) -> SystemTime {
        self.started
    }

    fn updated_at(&self) -> SystemTime {
        self.updated
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        {
            let mut kept = self.kept.kept();
            if kept.bytes + bytes.len() > MAX_BYTES {
                return Err(BlobError::Full(format!(
                    "the {MAX_BYTES} bytes that an export's documents may hold"
                )));
            }
            kept.bytes += bytes.len();
        }
        self.hasher.update(&bytes);
        self.bytes.extend_from_slice(&bytes);
        self.updated = SystemTime::now();
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.forget_bytes();
        Ok(())
    }

    async fn commit(
        mut self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let (actual, digest) = (self.offset(), self.digest());
        if let Some(expected) = size.filter(|size| *size != actual) {
            return Err(BlobError::WrongSize { expected, actual });
        }
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(BlobError::WrongDigest {
                expected,
                actual: digest,
            });
        }
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let mut kept = self.kept.kept();
        if let Some(same) = kept.committed.insert(digest, bytes) {
            kept.bytes -= same.len();
        }
        Ok((digest, actual))
    }

    async fn abort(self: Box<Self>) -> Result<(), BlobError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_document_is_there_once_it_is_committed_and_verified() {
        let documents = Documents::default();
        let digest = Digest::of(b"hello");
        let mut ingest = documents.ingest();
        ingest.write(Bytes::from_static(b"hello")).await.unwrap();
        assert!(documents.get(&digest).is_none());
        ingest.commit(Some(5), Some(digest)).await.unwrap();
        assert_eq!(documents.get(&digest).unwrap().bytes, "hello");

        let mut ingest = documents.ingest();
        ingest.write(Bytes::from_static(b"other")).await.unwrap();
        assert!(matches!(
            ingest.commit(None, Some(digest)).await,
            Err(BlobError::WrongDigest { .. })
        ));
        let ingest = documents.ingest();
        assert!(matches!(
            ingest.commit(Some(1), None).await,
            Err(BlobError::WrongSize { .. })
        ));
        documents.forget(&digest);
        assert_eq!(documents.kept().bytes, 0);
    }

    #[tokio::test]
    async fn all_documents_together_are_bounded() {
        let documents = Documents::default();
        let half = Bytes::from(vec![0; MAX_BYTES / 2]);
        let mut first = documents.ingest();
        first.write(half.clone()).await.unwrap();
        let mut second = documents.ingest();
        second.write(half.clone()).await.unwrap();
        assert!(matches!(
            second.write(Bytes::from_static(b"x")).await,
            Err(BlobError::Full(_))
        ));
        drop(first);
        second.write(half).await.unwrap();
    }
}
