//! A blob, on its way in.
//!
//! So many blobs come in at a time, the others wait: what a client has sent is
//! then held up by flow control, and takes no memory here.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::Door;
use super::call::{Call, malformed, refused};
use super::service::{Answers, place_of};
use crate::blobs::Ingest;
use crate::cache::CacheError;
use crate::cache::guard::Guard;
use crate::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use crate::cache::wire::v1::write_blob_response::{Part as Answer, Stored};
use crate::cache::wire::{self, v1};
use crate::digest::Digest;
use crate::place::Place;

/// How long a client may say nothing. It goes on later from what was kept.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest blob, in bytes.
const MAX_BLOB: u64 = 1 << 38;
/// Bytes of the name that an upload is resumed by.
const MAX_NAME: usize = 512;

type Answering = mpsc::Sender<Result<v1::WriteBlobResponse, Status>>;

/// Takes a blob in, as its messages come.
pub fn write(
    door: &Arc<Door>,
    mut call: Call,
    guard: Guard,
    messages: Streaming<v1::WriteBlobRequest>,
) -> Answers<v1::WriteBlobResponse> {
    let (answers, answered) = mpsc::channel(2);
    let span = call.span().clone();
    let door = Arc::clone(door);
    let tasks = door.tasks.clone();
    let writing = async move {
        let mut upload = Upload {
            door,
            guard,
            messages,
            answers: answers.clone(),
        };
        // A client that goes away ends its messages with an error.
        match upload.run().await {
            Ok(()) => call.done(),
            Err(status) => {
                let status = call.ended(status);
                let _ = answers.send(Err(status)).await;
            }
        }
    };
    tasks.spawn(writing.instrument(span));
    ReceiverStream::new(answered).boxed()
}

struct Upload {
    door: Arc<Door>,
    guard: Guard,
    messages: Streaming<v1::WriteBlobRequest>,
    answers: Answering,
}

impl Upload {
    async fn run(&mut self) -> Result<(), Status> {
        let Some(Part::Open(open)) = self.next().await? else {
            return Err(Status::invalid_argument("an upload begins with what it is"));
        };
        let place = place_of(&open.project, &open.git_ref).map_err(malformed)?;
        tracing::Span::current().record("project", place.project.as_str());
        let expected = expected(&open)?;
        // Before anything is told or stored.
        self.guard.writable(&place).await.map_err(refused)?;
        if let Some(digest) = expected
            && let Some(size) = self.held(&place, digest).await?
        {
            return self.say(Answer::Stored(Stored { size })).await;
        }
        let slot = Arc::clone(&self.door.uploads).acquire_owned().await;
        let _slot = slot.map_err(|_| Status::unavailable("the hub is closing"))?;
        let _counted = self.door.metrics.uploading();
        let ingest = self.guard.ingest(&place, &open.name, expected).await;
        let mut ingest = ingest.map_err(refused)?;
        self.say(Answer::Offset(ingest.offset())).await?;
        let commit = self.fill(&mut *ingest).await?;
        let (digest, size) = finish(ingest, commit).await?;
        let uploaded = self.guard.uploaded(&place, digest, size).await;
        uploaded.map_err(refused)?;
        self.say(Answer::Stored(Stored { size })).await
    }

    async fn held(&self, place: &Place, digest: Digest) -> Result<Option<u64>, Status> {
        let held = self.guard.held(place, &[digest]).await.map_err(refused)?;
        Ok(held.into_iter().next().flatten())
    }

    /// Takes pieces in until the commit.
    async fn fill(&mut self, ingest: &mut dyn Ingest) -> Result<Commit, Status> {
        loop {
            match self.next().await? {
                Some(Part::Piece(piece)) => append(ingest, piece).await?,
                Some(Part::Commit(commit)) => return Ok(commit),
                Some(Part::Open(_)) => {
                    return Err(Status::invalid_argument("it is open already"));
                }
                None => return Err(Status::cancelled("the upload was left before its end")),
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Part>, Status> {
        loop {
            let message = tokio::time::timeout(SILENCE, self.messages.message()).await;
            let message = message
                .map_err(|_| Status::deadline_exceeded("nothing came for too long: go on anew"))?;
            match message? {
                None => return Ok(None),
                // A part that is not known is a newer client's.
                Some(message) => {
                    if let Some(part) = message.part {
                        return Ok(Some(part));
                    }
                }
            }
        }
    }

    async fn say(&self, answer: Answer) -> Result<(), Status> {
        let answer = v1::WriteBlobResponse { part: Some(answer) };
        let said = self.answers.send(Ok(answer)).await;
        said.map_err(|_| Status::cancelled("the client went away"))
    }
}

fn expected(open: &Open) -> Result<Option<Digest>, Status> {
    if open.name.is_empty() || open.name.len() > MAX_NAME {
        return Err(Status::invalid_argument(format!(
            "the name of an upload has 1 to {MAX_NAME} bytes"
        )));
    }
    if open.digest.is_empty() {
        return Ok(None);
    }
    wire::digest(&open.digest).map(Some).map_err(malformed)
}

async fn append(ingest: &mut dyn Ingest, piece: Piece) -> Result<(), Status> {
    if wire::checksum(&piece.bytes) != piece.crc32c {
        return Err(Status::aborted(
            "a piece was damaged on its way: go on anew",
        ));
    }
    if ingest.offset().saturating_add(piece.bytes.len() as u64) > MAX_BLOB {
        return Err(Status::invalid_argument(format!(
            "a blob has at most {MAX_BLOB} bytes"
        )));
    }
    let written = ingest.write(piece.bytes).await;
    written.map_err(|error| refused(CacheError::from(error)))
}

async fn finish(ingest: Box<dyn Ingest>, commit: Commit) -> Result<(Digest, u64), Status> {
    let digest = wire::digest(&commit.digest).map_err(malformed)?;
    let stored = ingest.commit(Some(commit.size), Some(digest)).await;
    stored.map_err(|error| refused(CacheError::from(error)))
}
