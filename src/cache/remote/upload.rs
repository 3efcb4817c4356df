//! A blob's bytes to a hub: opened, resumed where the hub is, committed.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status, Streaming};

use super::hub::{Call, Caller, Failure};
use super::metrics::Method;
use crate::blobs::{BlobError, BlobStore as _, DiskStore};
use crate::cache::CacheError;
use crate::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use crate::cache::wire::v1::write_blob_response::{Part as Answer, Stored};
use crate::cache::wire::{self, PIECE, joined, v1};
use crate::digest::Digest;
use crate::place::Place;

/// How long a hub may take to answer the first message: longer than it has a
/// client wait its turn.
const LIMIT: Duration = Duration::from_secs(12);
/// How long it may take no piece.
const STALL: Duration = Duration::from_secs(10);
/// How long it may take to make a blob durable: it may have to copy it.
const COMMIT: Duration = Duration::from_secs(60);
/// Pieces that wait to be sent.
const WAITING: usize = 4;
/// The first pause after a failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

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
/// that pays.
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
    caller
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
            match answer {
                Some(Answer::Offset(offset)) => {
                    Ok(Opened::At(offset, Box::new(Upload { pieces, answers })))
                }
                Some(Answer::Stored(Stored { .. })) => Ok(Opened::Stored),
                None => Err(Status::unavailable("it ended an upload without a word")),
            }
        })
        .await
}

impl Upload {
    /// Sends the next bytes, as fast as the hub takes them.
    pub(super) async fn send(&mut self, bytes: &Bytes) -> Result<(), Ended> {
        for at in (0..bytes.len()).step_by(PIECE) {
            let bytes = bytes.slice(at..bytes.len().min(at + PIECE));
            let crc32c = wire::checksum(&bytes);
            self.say(Part::Piece(Piece { bytes, crc32c })).await?;
        }
        Ok(())
    }

    /// Ends it: the hub then has the blob.
    pub(super) async fn commit(mut self, digest: &Digest, size: u64) -> Result<(), Failure> {
        let digest = joined([digest]);
        match self.say(Part::Commit(Commit { digest, size })).await {
            Ok(()) => {}
            Err(Ended::Stored) => return Ok(()),
            Err(Ended::Broken(failure)) => return Err(failure),
        }
        match self.answer(COMMIT).await {
            Ended::Stored => Ok(()),
            Ended::Broken(failure) => Err(failure),
        }
    }

    async fn say(&mut self, part: Part) -> Result<(), Ended> {
        let message = v1::WriteBlobRequest { part: Some(part) };
        match timeout(STALL, self.pieces.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // The hub has hung up, and says why.
            Ok(Err(_)) => Err(self.answer(LIMIT).await),
            Err(_) => Err(Ended::Broken(silent(STALL))),
        }
    }

    async fn answer(&mut self, limit: Duration) -> Ended {
        let answer = match timeout(limit, self.answers.message()).await {
            Ok(answer) => answer,
            Err(_) => return Ended::Broken(silent(limit)),
        };
        match answer.map(|answer| answer.and_then(|answer| answer.part)) {
            Ok(Some(Answer::Stored(Stored { .. }))) => Ended::Stored,
            Ok(_) => Ended::Broken(Failure::Unreachable(
                "the hub ended an upload without a word".to_owned(),
            )),
            Err(status) => Ended::Broken(Failure::of(status)),
        }
    }
}

fn silent(limit: Duration) -> Failure {
    let seconds = limit.as_secs();
    Failure::Unreachable(format!("the hub took nothing of an upload for {seconds} s"))
}

/// Uploads a blob that is on `disk`, whatever of it the hub has; tried again
/// while the hub fails for less than `patience` with no byte in between, and is
/// not gone altogether.
pub(super) async fn from_disk(
    caller: &Caller,
    disk: &DiskStore,
    subject: &Subject,
    (digest, size): (&Digest, u64),
    patience: Duration,
) -> Result<(), CacheError> {
    let [mut pause, longest] = PAUSES;
    let mut since = Instant::now();
    let mut best = 0;
    let mut forgiven = false;
    loop {
        let mut sent = 0;
        let failure = match attempt(caller, disk, subject, (digest, size), &mut sent).await? {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let error = failure.cache_error(None);
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
            since = Instant::now();
            pause = PAUSES[0];
        }
        if refused || since.elapsed() >= patience || caller.hub().is_gone() {
            return Err(error);
        }
        tracing::debug!(blob = %digest, %error, "an upload is taken up again");
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(longest);
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
        match upload.send(&chunk).await {
            Ok(()) => *sent += chunk.len() as u64,
            Err(Ended::Stored) => return Ok(Ok(())),
            Err(Ended::Broken(failure)) => return Ok(Err(failure)),
        }
    }
    Ok(upload.commit(digest, size).await)
}
