//! A multipart upload: parts on their way, several at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use object_store::PutPayload;
use object_store::multipart::PartId;
use object_store::path::Path;
use tokio::task::JoinSet;

use super::bucket::Bucket;
use super::buffers::Room;
use crate::blobs::BlobError;

/// Parts of one upload on their way at once.
const AT_ONCE: usize = 4;

/// More are refused by the providers.
const MOST: usize = 10_000;

type Sent = (usize, object_store::Result<PartId>);

/// An upload that the bucket knows of.
pub(super) struct Parts {
    /// Where it appears when it is completed.
    pub(super) path: Path,
    id: String,
    sent: usize,
    done: BTreeMap<usize, PartId>,
    flying: JoinSet<Sent>,
}

impl Parts {
    pub(super) async fn begin(bucket: &Bucket, path: Path) -> Result<Self, BlobError> {
        let id = bucket.backend().create_multipart(&path).await;
        let id = id.map_err(|error| bucket.write_failed(error, "begin an upload to"))?;
        Ok(Self {
            path,
            id,
            sent: 0,
            done: BTreeMap::new(),
            flying: JoinSet::new(),
        })
    }

    /// Waits until another part may go.
    pub(super) async fn ready(&mut self, bucket: &Bucket) -> Result<(), BlobError> {
        if self.sent >= MOST {
            let most = MOST * bucket.part_size();
            return Err(BlobError::Io {
                context: format!("{} takes no blob of more than {most} bytes", bucket.place()),
                source: std::io::ErrorKind::FileTooLarge.into(),
            });
        }
        while self.flying.len() >= AT_ONCE {
            self.settle(bucket).await?;
        }
        Ok(())
    }

    /// Sends the next part, whose room is free when it is there.
    pub(super) fn send(&mut self, bucket: &Bucket, bytes: Bytes, room: Room) {
        let index = self.sent;
        self.sent += 1;
        let (backend, path, id) = (bucket.shared_backend(), self.path.clone(), self.id.clone());
        self.flying.spawn(async move {
            let payload = PutPayload::from(bytes);
            let sent = backend.put_part(&path, &id, index, payload).await;
            drop(room);
            (index, sent)
        });
    }

    /// Makes the object appear, all parts of which were sent.
    pub(super) async fn complete(&mut self, bucket: &Bucket) -> Result<(), Failed> {
        while !self.flying.is_empty() {
            self.settle(bucket).await.map_err(Failed::Part)?;
        }
        if self.done.len() != self.sent {
            return Err(Failed::Part(crate::blobs::disk::errors::cut_off()));
        }
        let parts = std::mem::take(&mut self.done).into_values().collect();
        let completed = bucket
            .backend()
            .complete_multipart(&self.path, &self.id, parts)
            .await;
        completed.map(drop).map_err(Failed::Completion)
    }

    /// Ends it, with nothing to be seen.
    pub(super) async fn abort(mut self, bucket: &Bucket) {
        self.flying.shutdown().await;
        let aborted = bucket.backend().abort_multipart(&self.path, &self.id).await;
        if let Err(error) = aborted {
            let error = bucket.write_failed(error, "abort an upload to");
            tracing::debug!(%error, "an upload is left to the bucket's own rules");
        }
    }

    async fn settle(&mut self, bucket: &Bucket) -> Result<(), BlobError> {
        match self.flying.join_next().await {
            Some(Ok((index, Ok(part)))) => {
                self.done.insert(index, part);
                Ok(())
            }
            Some(Ok((_, Err(error)))) => Err(bucket.write_failed(error, "write to")),
            Some(Err(_)) => Err(crate::blobs::disk::errors::cut_off()),
            None => Ok(()),
        }
    }
}

/// Why an upload was not completed.
pub(super) enum Failed {
    /// A part did not get there.
    Part(BlobError),
    /// All are there, and the bucket does not put them together.
    Completion(object_store::Error),
}
