//! A blob's bytes to a hub: opened, resumed where the hub is, committed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status, Streaming};

use super::failure::Failure;
use super::hub::{Call, Caller, Hub};
use super::metrics::Method;
use super::pauses::Pauses;
use crate::blobs::{BlobError, BlobStore as _, DiskStore};
use crate::cache::CacheError;
use crate::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use crate::cache::wire::v1::write_blob_response::Part as Answer;
use crate::cache::wire::{self, PIECE, joined, v1};
use crate::digest::Digest;
use crate::place::Place;

/// How long a hub may say nothing where it has to, be it that all its places are
/// taken.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take no piece, unless it says that the upload waits.
const STALL: Duration = Duration::from_secs(10);
/// How long it may take to make a blob durable,
const COMMIT: Duration = Duration::from_secs(20);
/// and one second more for so many bytes of it: it may have to copy them.
const COPIED: u64 = 32 << 20;
/// Pieces that wait to be sent.
const WAITING: usize = 4;

/// What is uploaded, for an export to where, under which name.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) place: Place,
    /// What the hub resumes it by.
    pub(super) name: String,
    pub(super) digest: Option<Digest>,
}

/// What the hub says to the first message.
pub(super) enum Opened {
    /// It has the blob.
    Stored,
    /// It wants pieces from there on.
    At(u64, Box<Upload>),
}

/// An upload that takes pieces.
pub(super) struct Upload {
    pieces: mpsc::Sender<v1::WriteBlobRequest>,
    answers: Streaming<v1::WriteBlobResponse>,
}

/// How an upload ended before its commit.
pub(super) enum Ended {
    /// The hub has the blob by now.
    Stored,
    /// It broke.
    Broken(Failure),
}

/// Opens or resumes an upload, whose bytes are compressed on their way where
/// that pays; ends when there is a place for it, however late.
pub(super) async fn open(
    caller: &Caller,
    subject: &Subject,
    compress: bool,
) -> Result<Opened, Failure> {
    let first = v1::WriteBlobRequest {
        part: Some(Part::Open(Open {
            project: subject.place.project.to_string(),
            git_ref: subject.place.git_ref.to_string(),
            name: subject.name.clone(),
            digest: subject.digest.iter().flat_map(|d| *d.as_bytes()).collect(),
        })),
    };
    let call = Call::within(Method::WriteBlob, LIMIT);
    let (mut upload, mut answer) = caller
        .call(call, first, move |mut client, request| async move {
            if compress {
                client = client.send_compressed(CompressionEncoding::Zstd);
            }
            let (metadata, extensions, first) = request.into_parts();
            let (pieces, waiting) = mpsc::channel(WAITING);
            let rest = stream::unfold(waiting, |mut waiting| async move {
                Some((waiting.recv().await?, waiting))
            });
            let all = stream::once(std::future::ready(first)).chain(rest);
            let request = tonic::Request::from_parts(metadata, extensions, all);
            let mut answers = client.write_blob(request).await?.into_inner();
            let answer = answers.message().await?.and_then(|answer| answer.part);
            let answer =
                answer.ok_or_else(|| Status::unavailable("it ended an upload without a word"))?;
            Ok((Box::new(Upload { pieces, answers }), answer))
        })
        .await?;
    loop {
        match answer {
            Answer::Offset(offset) => return Ok(Opened::At(offset, upload)),
            Answer::Stored(_) => return Ok(Opened::Stored),
            Answer::Waiting(_) => answer = upload.answer(LIMIT).await?,
        }
    }
}

impl Ended {
    /// What an answer to an upload that was begun makes of it; nothing where it
    /// waits.
    fn by(answer: Result<Answer, Failure>) -> Option<Self> {
        match answer {
            Ok(Answer::Waiting(_)) => None,
            Ok(Answer::Stored(_)) => Some(Self::Stored),
            Ok(Answer::Offset(_)) => Some(Self::Broken(Failure::Unreachable(
                "the hub began an upload a second time".to_owned(),
            ))),
            Err(failure) => Some(Self::Broken(failure)),
        }
    }
}

impl Upload {
    /// Sends the next bytes to that hub, as fast as it takes them.
    pub(super) async fn send(&mut self, hub: &Hub, bytes: &Bytes) -> Result<(), Ended> {
        for at in (0..bytes.len()).step_by(PIECE) {
            let bytes = bytes.slice(at..bytes.len().min(at + PIECE));
            let crc32c = wire::checksum(&bytes);
            self.say(Part::Piece(Piece { bytes, crc32c })).await?;
            hub.moves();
        }
        Ok(())
    }

    /// Ends it: the hub then has the blob.
    pub(super) async fn commit(mut self, digest: &Digest, size: u64) -> Result<(), Failure> {
        let limit = attempt_patience(COMMIT, size);
        let digest = joined([digest]);
        let ended = match self.say(Part::Commit(Commit { digest, size })).await {
            Ok(()) => self.ended(limit).await,
            Err(ended) => ended,
        };
        match ended {
            Ended::Stored => Ok(()),
            Ended::Broken(failure) => Err(failure),
        }
    }

    /// Gives the hub a part; it may say meanwhile that the upload waits.
    async fn say(&mut self, part: Part) -> Result<(), Ended> {
        let message = v1::WriteBlobRequest { part: Some(part) };
        loop {
            let answer = tokio::select! {
                biased;
                place = timeout(STALL, self.pieces.reserve()) => match place {
                    Ok(Ok(place)) => {
                        place.send(message);
                        return Ok(());
                    }
                    // The hub has hung up, and says why.
                    Ok(Err(_)) => None,
                    Err(_) => return Err(Ended::Broken(silent(STALL))),
                },
                answer = self.answers.message() => Some(answer),
            };
            match answer {
                None => return Err(self.ended(LIMIT).await),
                Some(answer) => match Ended::by(said(answer)) {
                    None => {}
                    Some(ended) => return Err(ended),
                },
            }
        }
    }

    async fn ended(&mut self, limit: Duration) -> Ended {
        loop {
            if let Some(ended) = Ended::by(self.answer(limit).await) {
                return ended;
            }
        }
    }

    async fn answer(&mut self, limit: Duration) -> Result<Answer, Failure> {
        let answer = timeout(limit, self.answers.message()).await;
        said(answer.map_err(|_| silent(limit))?)
    }
}

fn said(answer: Result<Option<v1::WriteBlobResponse>, Status>) -> Result<Answer, Failure> {
    let part = answer.map_err(Failure::of)?.and_then(|answer| answer.part);
    part.ok_or_else(|| Failure::Unreachable("the hub ended an upload without a word".to_owned()))
}

fn silent(limit: Duration) -> Failure {
    let seconds = limit.as_secs();
    Failure::Unreachable(format!("the hub took nothing of an upload for {seconds} s"))
}

/// How long nothing may move in an attempt with a blob of that size: nothing
/// does while it is made durable.
pub(super) fn attempt_patience(patience: Duration, size: u64) -> Duration {
    patience.max(LIMIT) + Duration::from_secs(size / COPIED)
}

/// Uploads a blob that is on `disk`, whatever of it the hub has; tried again
/// while the hub fails, until it has taken nothing of any upload for `patience`
/// since then, or is gone altogether.
pub(super) async fn from_disk(
    caller: &Caller,
    disk: &DiskStore,
    subject: &Subject,
    (digest, size): (&Digest, u64),
    (since, patience): (Instant, Duration),
) -> Result<(), CacheError> {
    let hub = caller.hub();
    let stuck = attempt_patience(patience, size);
    let mut pauses = Pauses::begin();
    let mut best = 0;
    let mut forgiven = false;
    let mut last = silent(stuck);
    loop {
        let mut sent = 0;
        let trying = attempt(caller, disk, subject, (digest, size), &mut sent);
        let failure = tokio::select! {
            biased;
            tried = trying => match tried? {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
            () = hub.until_stuck(since, stuck) => return Err(last.cache_error(None)),
        };
        // What stood there under that name may have been wrong; the hub has
        // dropped it.
        let wrong =
            matches!(&failure, Failure::Refused(status) if status.code() == Code::InvalidArgument);
        // A token that has expired on the way may have been renewed since.
        let late =
            matches!(&failure, Failure::Refused(status) if status.code() == Code::Unauthenticated);
        let late = late && sent > best;
        let refused = matches!(failure, Failure::Refused(_)) && !late && (!wrong || forgiven);
        forgiven |= wrong;
        if sent > best {
            best = sent;
            pauses = Pauses::begin();
        }
        if refused || hub.is_gone() {
            return Err(failure.cache_error(None));
        }
        tracing::debug!(blob = %digest, ?failure, "an upload is taken up again");
        last = failure;
        tokio::select! {
            () = sleep(pauses.next()) => {}
            () = hub.until_stuck(since, patience) => return Err(last.cache_error(None)),
        }
    }
}

/// One attempt; `Err` outside is an error of the disk.
async fn attempt(
    caller: &Caller,
    disk: &DiskStore,
    subject: &Subject,
    (digest, size): (&Digest, u64),
    sent: &mut u64,
) -> Result<Result<(), Failure>, BlobError> {
    let (offset, mut upload) = match open(caller, subject, false).await {
        Ok(Opened::Stored) => return Ok(Ok(())),
        Ok(Opened::At(offset, upload)) => (offset.min(size), upload),
        Err(failure) => return Ok(Err(failure)),
    };
    *sent = offset;
    let mut bytes = disk.read(digest, offset, size - offset).await?;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        match upload.send(caller.hub(), &chunk).await {
            Ok(()) => *sent += chunk.len() as u64,
            Err(Ended::Stored) => return Ok(Ok(())),
            Err(Ended::Broken(failure)) => return Ok(Err(failure)),
        }
    }
    Ok(upload.commit(digest, size).await)
}
