//! An upload of a build: to the disk of this host and to the hub at once, at
//! the pace of the slower of them.
//!
//! Where the hub breaks off, the disk goes on, and the commit brings the rest
//! from there; where the disk fails, the hub alone has it.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::failure::Failure;
use super::hub::Caller;
use super::near::Near;
use super::routes::blob_error;
use super::upload::{self, Ended, Opened, Subject};
use crate::blobs::{BlobError, Ingest};
use crate::cache::wire;
use crate::digest::{Digest, Hasher};

/// Writes of BuildKit, of up to a few MiB, that wait for the hub.
const WAITING: usize = 2;
/// How long the hub may take no byte before the disk goes on alone.
const STALL: Duration = Duration::from_secs(5);

/// One upload.
pub(super) struct RemoteIngest {
    caller: Caller,
    near: Near,
    subject: Subject,
    patience: Duration,
    disk: Disk,
    live: Option<Live>,
    /// The hub has it by now.
    stored: bool,
    /// When the hub took something of it last, or began.
    fed_at: Instant,
    started_at: SystemTime,
    updated_at: SystemTime,
}

/// What the disk has.
enum Disk {
    /// All so far.
    Follows(Box<dyn Ingest>),
    /// Nothing, from the first byte on.
    Without { hasher: Hasher, offset: u64 },
    /// It failed midway, with the hash in it.
    Lost { offset: u64, digest: Digest },
}

/// What goes to the hub as it comes.
struct Live {
    feed: mpsc::Sender<Fed>,
    task: AbortOnDropHandle<Result<(), Failure>>,
}

enum Fed {
    Bytes(Bytes),
    Commit(Digest, u64),
}

impl RemoteIngest {
    /// Opens or resumes the upload of `subject`, which the disk knows as `name`.
    pub(super) async fn open(
        caller: Caller,
        near: Near,
        name: &str,
        subject: Subject,
        patience: Duration,
    ) -> Self {
        let disk = match near.tier.ingest(name, subject.digest).await {
            Ok(ingest) => Disk::Follows(ingest),
            Err(error) => {
                tracing::warn!(%error, "an upload goes past the disk of this host");
                Disk::nothing()
            }
        };
        // What the disk has already of an earlier attempt goes later.
        let live = (disk.offset() == 0).then(|| Live::begin(caller.clone(), subject.clone()));
        Self {
            caller,
            near,
            subject,
            patience,
            disk,
            live,
            stored: false,
            fed_at: Instant::now(),
            started_at: SystemTime::now(),
            updated_at: SystemTime::now(),
        }
    }

    /// Gives the hub its part, where it takes any.
    async fn feed(&mut self, fed: Fed) {
        let Some(live) = self.live.take() else {
            return;
        };
        if live.feed(fed).await {
            self.fed_at = Instant::now();
            self.live = Some(live);
        } else if live.task.is_finished() {
            self.ended(live.end().await);
        } else {
            tracing::debug!("the hub takes nothing of an upload: the disk goes on alone");
        }
    }

    fn ended(&mut self, ended: Result<(), Failure>) {
        match ended {
            Ok(()) => self.stored = true,
            Err(failure) => tracing::debug!(?failure, "an upload broke off: the disk goes on"),
        }
    }

    /// Whether the bytes go anywhere.
    fn is_alive(&self) -> bool {
        self.stored || self.live.is_some() || matches!(self.disk, Disk::Follows(_))
    }

    fn neither(&self) -> BlobError {
        BlobError::Io {
            context: "an upload".to_owned(),
            source: io::Error::other("neither the disk of this host nor the hub takes it"),
        }
    }

    /// Has what the disk holds at the hub.
    async fn catch_up(&mut self, digest: &Digest, size: u64) -> Result<(), BlobError> {
        let sent = upload::from_disk(
            &self.caller,
            self.near.tier.disk(),
            &self.subject,
            (digest, size),
            (self.fed_at, self.patience),
        );
        sent.await.map_err(|error| blob_error(digest, error))
    }
}

impl Live {
    fn begin(caller: Caller, subject: Subject) -> Self {
        let (feed, fed) = mpsc::channel(WAITING);
        let task = tokio::spawn(follow(caller, subject, fed));
        Self {
            feed,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Whether it was taken; else it has ended, or is stuck.
    async fn feed(&self, fed: Fed) -> bool {
        matches!(
            tokio::time::timeout(STALL, self.feed.send(fed)).await,
            Ok(Ok(()))
        )
    }

    /// How it ended.
    async fn end(self) -> Result<(), Failure> {
        drop(self.feed);
        let cut_off = |error| Failure::Unreachable(format!("an upload was cut off: {error}"));
        self.task.await.unwrap_or_else(|error| Err(cut_off(error)))
    }
}

/// Sends what is fed, until its commit, or until the hub has the blob.
async fn follow(
    caller: Caller,
    subject: Subject,
    mut fed: mpsc::Receiver<Fed>,
) -> Result<(), Failure> {
    let nobody = || Failure::Unreachable("nobody ended an upload".to_owned());
    // What it begins with tells whether it is worth compressing.
    let mut next = Some(fed.recv().await.ok_or_else(nobody)?);
    let compress = match &next {
        Some(Fed::Bytes(beginning)) => !wire::is_compressed(beginning),
        _ => false,
    };
    let (mut skipped, mut upload) = match upload::open(&caller, &subject, compress).await? {
        Opened::Stored => return Ok(()),
        Opened::At(offset, upload) => (offset, upload),
    };
    while let Some(part) = next {
        match part {
            Fed::Commit(digest, size) => return upload.commit(&digest, size).await,
            Fed::Bytes(mut bytes) => {
                let known = skipped.min(bytes.len() as u64);
                skipped -= known;
                let known = usize::try_from(known).unwrap_or(usize::MAX);
                drop(bytes.split_to(known));
                match upload.send(caller.hub(), &bytes).await {
                    Ok(()) => {}
                    Err(Ended::Stored) => return Ok(()),
                    Err(Ended::Broken(failure)) => return Err(failure),
                }
            }
        }
        next = fed.recv().await;
    }
    Err(nobody())
}

impl Disk {
    fn nothing() -> Self {
        Self::Without {
            hasher: Hasher::default(),
            offset: 0,
        }
    }

    fn offset(&self) -> u64 {
        match self {
            Self::Follows(ingest) => ingest.offset(),
            Self::Without { offset, .. } | Self::Lost { offset, .. } => *offset,
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Follows(ingest) => ingest.digest(),
            Self::Without { hasher, .. } => hasher.current(),
            Self::Lost { digest, .. } => *digest,
        }
    }

    async fn write(&mut self, bytes: &Bytes) -> Result<(), BlobError> {
        match self {
            Self::Follows(ingest) => {
                let offset = ingest.offset() + bytes.len() as u64;
                let written = ingest.write(bytes.clone()).await;
                if written.is_err() {
                    let digest = ingest.digest();
                    *self = Self::Lost { offset, digest };
                }
                written
            }
            Self::Without { hasher, offset } => {
                hasher.update(bytes);
                *offset += bytes.len() as u64;
                Ok(())
            }
            Self::Lost { offset, .. } => {
                *offset += bytes.len() as u64;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Ingest for RemoteIngest {
    fn offset(&self) -> u64 {
        self.disk.offset()
    }

    fn digest(&self) -> Digest {
        self.disk.digest()
    }

    fn started_at(&self) -> SystemTime {
        match &self.disk {
            Disk::Follows(ingest) => ingest.started_at(),
            Disk::Without { .. } | Disk::Lost { .. } => self.started_at,
        }
    }

    fn updated_at(&self) -> SystemTime {
        self.updated_at
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.updated_at = SystemTime::now();
        // Each has its own pace, and the slower one is waited for.
        let mut disk = std::mem::replace(&mut self.disk, Disk::nothing());
        let (written, ()) = tokio::join!(disk.write(&bytes), self.feed(Fed::Bytes(bytes.clone())));
        self.disk = disk;
        if let Err(error) = written {
            if self.live.is_none() && !self.stored {
                return Err(error);
            }
            tracing::warn!(%error, "the disk of this host fails: the hub alone has an upload");
        }
        if self.is_alive() {
            Ok(())
        } else {
            Err(self.neither())
        }
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.stored = false;
        match &mut self.disk {
            // What comes now may differ from what the hub was given.
            Disk::Follows(ingest) => {
                self.live = None;
                ingest.restart().await
            }
            Disk::Without { .. } | Disk::Lost { .. } => {
                self.disk = Disk::nothing();
                self.live = Some(Live::begin(self.caller.clone(), self.subject.clone()));
                Ok(())
            }
        }
    }

    async fn commit(
        self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let mut this = *self;
        let expected = expected.or(this.subject.digest);
        let pin = match &expected {
            Some(digest) => Some(this.near.tier.pin(digest).await),
            None => None,
        };
        let disk = std::mem::replace(&mut this.disk, Disk::nothing());
        let (digest, length, on_disk) = settle(disk, size, expected).await?;
        if !this.stored {
            this.feed(Fed::Commit(digest, length)).await;
        }
        if let Some(live) = this.live.take() {
            let hub = this.caller.hub();
            let stuck =
                hub.until_stuck(this.fed_at, upload::attempt_patience(this.patience, length));
            tokio::select! {
                ended = live.end() => this.ended(ended),
                () = stuck => tracing::debug!("the hub does not end an upload"),
            }
        }
        if !this.stored {
            if !on_disk {
                return Err(this.neither());
            }
            this.catch_up(&digest, length).await?;
        }
        drop(pin);
        Ok((digest, length))
    }

    async fn abort(self: Box<Self>) -> Result<(), BlobError> {
        match self.disk {
            Disk::Follows(ingest) => ingest.abort().await,
            Disk::Without { .. } | Disk::Lost { .. } => Ok(()),
        }
    }
}

/// What was written, verified as far as it can be here, and whether the disk
/// has it.
async fn settle(
    disk: Disk,
    size: Option<u64>,
    expected: Option<Digest>,
) -> Result<(Digest, u64, bool), BlobError> {
    let (digest, length) = match disk {
        Disk::Follows(ingest) => {
            let (digest, length) = (ingest.digest(), ingest.offset());
            match ingest.commit(size, expected).await {
                Ok((digest, length)) => return Ok((digest, length, true)),
                Err(wrong @ (BlobError::WrongDigest { .. } | BlobError::WrongSize { .. })) => {
                    return Err(wrong);
                }
                Err(error) => {
                    tracing::warn!(%error, "the disk of this host fails: the hub alone has an upload");
                    (digest, length)
                }
            }
        }
        Disk::Without { hasher, offset } => (hasher.finish(), offset),
        // The hub hashes it, too.
        Disk::Lost { offset, digest } => (expected.unwrap_or(digest), offset),
    };
    if let Some(expected) = size.filter(|size| *size != length) {
        return Err(BlobError::WrongSize {
            expected,
            actual: length,
        });
    }
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        return Err(BlobError::WrongDigest {
            expected,
            actual: digest,
        });
    }
    Ok((digest, length, false))
}
