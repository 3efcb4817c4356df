//! A store as an origin, with faults in the order in which reads come.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::blobs::{BlobError, BlobStore as _, BlobStream, DiskStore, Origin};
use crate::digest::Digest;

/// Bytes a chunk.
const CHUNK: usize = 100_000;

/// What becomes of one read. Positions are those in the blob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// It fails at once.
    Refuse,
    /// An error stands there.
    BreakAt(u64),
    /// It ends there, without an error.
    EndAt(u64),
    /// Nothing more comes from there until it is released.
    HoldAt(u64),
    /// The byte there is another.
    WrongByteAt(u64),
}

pub(super) struct FaultyOrigin {
    _dir: TempDir,
    store: DiskStore,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<Vec<u64>>,
    held: watch::Sender<bool>,
}

impl FaultyOrigin {
    pub(super) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = DiskStore::open(dir.path()).await.unwrap();
        Self {
            _dir: dir,
            store,
            faults: Mutex::default(),
            asked: Mutex::default(),
            held: watch::Sender::new(true),
        }
    }

    pub(super) fn store(&self) -> &DiskStore {
        &self.store
    }

    /// What becomes of the next reads; none: nothing that was said before.
    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut mine = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let before = mine.len();
        mine.extend(faults);
        if mine.len() == before {
            mine.clear();
        }
    }

    /// Lets go of what is held.
    pub(super) fn release(&self) {
        self.held.send_replace(false);
    }

    /// Where each read began.
    pub(super) fn asked(&self) -> Vec<u64> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn failure(what: &str) -> BlobError {
    BlobError::Io {
        context: format!("the origin {what}"),
        source: std::io::Error::other("500"),
    }
}

#[async_trait]
impl Origin for FaultyOrigin {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.size(digest).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.asked.lock().unwrap().push(offset);
        let fault = self.faults.lock().unwrap().pop_front();
        if fault == Some(Fault::Refuse) {
            return Err(failure("refused"));
        }
        let mut whole = self.store.read(digest, offset, length).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = whole.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        let index = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap();
        let mut stop = bytes.len();
        match fault {
            Some(Fault::WrongByteAt(at)) => bytes[index(at)] ^= 1,
            Some(Fault::BreakAt(at) | Fault::EndAt(at) | Fault::HoldAt(at)) => {
                stop = index(at).min(stop);
            }
            Some(Fault::Refuse) | None => {}
        }
        let bytes = bytes.freeze();
        let chunks = |from: usize, to: usize| -> Vec<Result<Bytes, BlobError>> {
            let starts = (from..to).step_by(CHUNK);
            starts
                .map(|at| Ok(bytes.slice(at..to.min(at + CHUNK))))
                .collect()
        };
        let before = stream::iter(chunks(0, stop));
        Ok(match fault {
            Some(Fault::BreakAt(_)) => {
                let error = stream::iter([Err(failure("broke off"))]);
                before.chain(error).boxed()
            }
            Some(Fault::HoldAt(_)) => {
                let (mut held, after) = (self.held.subscribe(), chunks(stop, bytes.len()));
                let wait = async move {
                    held.wait_for(|held| !held).await.ok();
                    stream::iter(after)
                };
                before.chain(stream::once(wait).flatten()).boxed()
            }
            _ => before.boxed(),
        })
    }
}
