//! A tar that is written entry by entry, and compressed on a thread of its own.
//!
//! Every part of the file is a frame of zstd by itself: frames that follow each
//! other decompress to one tar.

use std::fs::File;
use std::io::{self, Write as _};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::ArchiveError;

/// Layers are compressed already, mostly.
const LEVEL: i32 = 1;
/// Chunks that wait for the thread.
const AHEAD: usize = 16;
/// What a tar is made of, in bytes.
const BLOCK: u64 = 512;
const NOTHING: [u8; 1024] = [0; 1024];

/// Part of a tar on its way to a file.
pub(super) struct Packer {
    feed: mpsc::Sender<Bytes>,
    written: oneshot::Receiver<io::Result<File>>,
    /// Bytes that the entry still wants.
    left: u64,
    padding: u64,
}

impl Packer {
    /// Writes to the end of `out`.
    pub(super) fn begin(out: File) -> Result<Self, ArchiveError> {
        let (feed, mut fed) = mpsc::channel::<Bytes>(AHEAD);
        let (done, written) = oneshot::channel();
        let compress = move || {
            let mut encoder = zstd::Encoder::new(out, LEVEL)?;
            encoder.include_checksum(true)?;
            while let Some(bytes) = fed.blocking_recv() {
                encoder.write_all(&bytes)?;
            }
            encoder.finish()
        };
        // Not of the runtime's: one that waits for a pipe must not hold up its
        // end.
        std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                // Nobody may wait for it any more.
                let _ = done.send(compress());
            })
            .map_err(ArchiveError::io("starting a thread"))?;
        Ok(Self {
            feed,
            written,
            left: 0,
            padding: 0,
        })
    }

    /// Begins an entry of so many bytes, which must all come.
    pub(super) async fn entry(&mut self, name: &str, size: u64) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_gnu();
        let named = header.set_path(name);
        named.map_err(ArchiveError::io("naming an entry"))?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.send(Bytes::copy_from_slice(header.as_bytes())).await?;
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        self.pad().await
    }

    /// The next bytes of the entry; too many are an error.
    pub(super) async fn bytes(&mut self, bytes: Bytes) -> Result<(), ArchiveError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            ArchiveError::Malformed("more bytes than an entry was to have".to_owned())
        })?;
        self.send(bytes).await?;
        self.pad().await
    }

    /// An entry that is at hand.
    pub(super) async fn whole(&mut self, name: &str, bytes: Bytes) -> Result<(), ArchiveError> {
        self.entry(name, bytes.len() as u64).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.bytes(bytes).await
    }

    /// What comes after the last entry of the last part.
    pub(super) async fn end(&mut self) -> Result<(), ArchiveError> {
        self.send(Bytes::from_static(&NOTHING)).await
    }

    /// Ends this part; more can follow in the file.
    pub(super) async fn finish(self) -> Result<File, ArchiveError> {
        drop(self.feed);
        outcome(self.written.await)
    }

    async fn pad(&mut self) -> Result<(), ArchiveError> {
        if self.left > 0 || self.padding == 0 {
            return Ok(());
        }
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        self.send(Bytes::from_static(&NOTHING[..padding])).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), ArchiveError> {
        if self.feed.send(bytes).await.is_ok() {
            return Ok(());
        }
        let ended = outcome((&mut self.written).await);
        Err(match ended {
            Err(error) => error,
            Ok(_) => ArchiveError::Malformed("the archive was ended too early".to_owned()),
        })
    }
}

fn outcome(
    written: Result<io::Result<File>, oneshot::error::RecvError>,
) -> Result<File, ArchiveError> {
    let written = written.unwrap_or_else(|_| Err(io::Error::other("the thread was cut off")));
    written.map_err(ArchiveError::io("writing the archive"))
}
