//! A blob, on its way in.
//!
//! So many blobs come in at a time, the others wait: what a client has sent is
//! then held up by flow control, and takes no memory here. Who waits is told so,
//! again and again, and knows that this hub is well. A client that sends nothing,
//! or little while others wait, gives its place up and waits for it again, with
//! all that it has sent kept.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::Door;
use super::call::{Call, about, malformed, refused, unauthenticated, unread};
use super::metrics::Counted;
use super::service::{Answers, place_of};
use crate::access::{Client, Share};
use crate::blobs::Ingest;
use crate::cache::CacheError;
use crate::cache::guard::Guard;
use crate::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use crate::cache::wire::v1::write_blob_response::{Part as Answer, Stored, Waiting};
use crate::cache::wire::{self, v1};
use crate::digest::Digest;
use crate::place::Place;

/// How long it may take to say what comes.
const FIRST: Duration = Duration::from_secs(20);
/// How long a client may say nothing. It goes on later from what was kept.
const SILENCE: Duration = Duration::from_secs(60);
/// After how much of that it gives its place up, until it goes on.
const PAUSE: Duration = Duration::from_secs(5);
/// Bytes in a second that keep a place; less counts as a pause.
const LEAST: u64 = 16 << 10;
/// The same while others wait.
const LEAST_WANTED: u64 = 2 << 20;
/// After how long who waits for a place is told so, and how often then.
const WAITING: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];
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
            client: call.client().clone(),
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

/// A place for an upload.
struct Seat {
    // Dropped first: who is next may go on with what it leaves.
    ingest: Box<dyn Ingest>,
    _slot: Share,
    _counted: Counted,
}

struct Upload {
    door: Arc<Door>,
    client: Client,
    guard: Guard,
    messages: Streaming<v1::WriteBlobRequest>,
    answers: Answering,
}

impl Upload {
    async fn run(&mut self) -> Result<(), Status> {
        let first = tokio::time::timeout(FIRST, self.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing came at all"))?;
        let Some(Part::Open(open)) = first? else {
            return Err(Status::invalid_argument("an upload begins with what it is"));
        };
        let place = place_of(&open.project, &open.git_ref).map_err(malformed)?;
        about(&self.guard, &place.project);
        let expected = expected(&open)?;
        // Before anything is told or stored; whether the store takes writes is seen
        // when it is written to.
        let granted = self.guard.grant();
        let granted = granted.check_write(&place.project, &place.git_ref);
        granted.map_err(|refusal| refused(refusal.into()))?;
        if let Some(digest) = expected
            && let Some(size) = self.held(&place, digest).await?
        {
            return self.say(Answer::Stored(Stored { size })).await;
        }
        let mut seat = self.seat(&place, &open.name, expected).await?;
        self.say(Answer::Offset(seat.ingest.offset())).await?;
        let commit = loop {
            if let Some(commit) = self.fill(&mut *seat.ingest).await? {
                break commit;
            }
            let offset = seat.ingest.offset();
            drop(seat);
            let part = self.next().await?;
            seat = self.seat(&place, &open.name, expected).await?;
            if seat.ingest.offset() != offset {
                return Err(Status::aborted(
                    "what came last was dropped in the silence: go on anew",
                ));
            }
            if let Some(commit) = take(&mut *seat.ingest, part).await? {
                break commit;
            }
        };
        let (digest, size) = finish(seat.ingest, commit, expected).await?;
        let uploaded = self.guard.uploaded(&place, digest, size).await;
        uploaded.map_err(refused)?;
        self.say(Answer::Stored(Stored { size })).await
    }

    /// One of the places for uploads, as soon as one is free.
    async fn seat(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Seat, Status> {
        let slot = {
            let taking = pin!(self.door.uploads.take(&self.client, 1));
            tokio::select! {
                slot = taking => slot?,
                Err(gone) = self.keep_waiting() => return Err(gone),
            }
        };
        let ingest = self.guard.ingest(place, name, expected).await;
        Ok(Seat {
            ingest: ingest.map_err(refused)?,
            _slot: slot,
            _counted: self.door.metrics.uploading(),
        })
    }

    /// Says that there is no place yet, until the client has gone away: who has
    /// waits for nothing.
    async fn keep_waiting(&self) -> Result<Infallible, Status> {
        let [mut pause, next] = WAITING;
        loop {
            if tokio::time::timeout(pause, self.answers.closed())
                .await
                .is_ok()
            {
                return Err(Status::cancelled("the client went away"));
            }
            self.say(Answer::Waiting(Waiting {})).await?;
            pause = next;
        }
    }

    async fn held(&self, place: &Place, digest: Digest) -> Result<Option<u64>, Status> {
        let held = self.guard.held(place, &[digest]).await.map_err(refused)?;
        Ok(held.into_iter().next().flatten())
    }

    /// Takes pieces in until the commit; none where the client pauses, or sends
    /// hardly anything: others are waiting.
    async fn fill(&mut self, ingest: &mut dyn Ingest) -> Result<Option<Commit>, Status> {
        let (began, start) = (Instant::now(), ingest.offset());
        loop {
            let least = match self.door.uploads.is_wanted() {
                true => LEAST_WANTED,
                false => LEAST,
            };
            let least = began.elapsed().saturating_sub(PAUSE).as_secs() * least;
            if ingest.offset().saturating_sub(start) < least {
                return Ok(None);
            }
            let Ok(part) = tokio::time::timeout(PAUSE, self.next()).await else {
                return Ok(None);
            };
            if let Some(commit) = take(ingest, part?).await? {
                return Ok(Some(commit));
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Part>, Status> {
        loop {
            let message = tokio::time::timeout(SILENCE, self.messages.message()).await;
            let message = message
                .map_err(|_| Status::deadline_exceeded("nothing came for too long: go on anew"))?;
            let granted = self.guard.still_granted().await;
            granted.map_err(unauthenticated)?;
            match message.map_err(unread)? {
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

/// Takes a part in; gives the last.
async fn take(ingest: &mut dyn Ingest, part: Option<Part>) -> Result<Option<Commit>, Status> {
    match part {
        Some(Part::Piece(piece)) => append(ingest, piece).await.map(|()| None),
        Some(Part::Commit(commit)) => Ok(Some(commit)),
        Some(Part::Open(_)) => Err(Status::invalid_argument("it is open already")),
        None => Err(Status::cancelled("the upload was left before its end")),
    }
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

async fn finish(
    ingest: Box<dyn Ingest>,
    commit: Commit,
    expected: Option<Digest>,
) -> Result<(Digest, u64), Status> {
    let digest = wire::digest(&commit.digest).map_err(malformed)?;
    if expected.is_some_and(|expected| expected != digest) {
        return Err(Status::invalid_argument(
            "it is not the blob that it was opened for",
        ));
    }
    let stored = ingest.commit(Some(commit.size), Some(digest)).await;
    stored.map_err(|error| refused(CacheError::from(error)))
}
