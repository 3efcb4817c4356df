//! A tar that is read entry by entry, decompressed on a thread of its own.
//!
//! Only files are taken. A link, a device, an extended header or a long name is
//! an error, since nothing here writes them, and each of them has been a way to
//! have a reader see another file than was meant.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::ArchiveError;

/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the reader.
const AHEAD: usize = 8;
/// How a file of zstd begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The most that decompressing may look back, as a power of two: 32 MiB, more
/// than any level but `--ultra --long` asks for.
const WINDOW: u32 = 25;
/// Folders that a tool may have put in when it packed a layout again.
const MAX_FOLDERS: usize = 64;

/// An entry, without its content.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// In bytes.
    pub(super) size: u64,
}

enum Part {
    Entry(Entry),
    Bytes(Bytes),
    End,
}

/// A tar on its way in.
pub(super) struct Unpacker {
    parts: mpsc::Receiver<Result<Part, ArchiveError>>,
    /// Bytes of the entry that are still to come.
    left: u64,
}

impl Unpacker {
    /// Reads `input` from where it stands.
    pub(super) fn begin(input: impl Read + Send + 'static) -> Result<Self, ArchiveError> {
        let (feed, parts) = mpsc::channel(AHEAD);
        // Not of the runtime's: one that waits for a pipe must not hold up its
        // end.
        std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                let last = unpack(input, &feed).map(|()| Part::End);
                // Nobody may want to know any more.
                let _ = feed.blocking_send(last);
            })
            .map_err(ArchiveError::io("starting a thread"))?;
        Ok(Self { parts, left: 0 })
    }

    /// The next entry, or none at the end. What is left of the one before is
    /// passed over.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        while self.bytes().await?.is_some() {}
        match self.part().await? {
            Part::Entry(entry) => {
                self.left = entry.size;
                Ok(Some(entry))
            }
            Part::End => Ok(None),
            Part::Bytes(_) => Err(cut_off()),
        }
    }

    /// The next bytes of the entry, or none at its end.
    pub(super) async fn bytes(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.part().await? {
            Part::Bytes(bytes) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Part::Entry(_) | Part::End => Err(cut_off()),
        }
    }

    /// All of the entry, which must not be larger than `limit`.
    pub(super) async fn whole(&mut self, entry: &Entry, limit: u64) -> Result<Bytes, ArchiveError> {
        if entry.size > limit {
            return Err(ArchiveError::Malformed(format!(
                "{} has {} bytes; more than {limit} are not taken",
                entry.name, entry.size
            )));
        }
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.bytes().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    async fn part(&mut self) -> Result<Part, ArchiveError> {
        self.parts.recv().await.unwrap_or_else(|| Err(cut_off()))
    }
}

fn cut_off() -> ArchiveError {
    ArchiveError::Malformed("reading it was cut off".to_owned())
}

fn damaged(error: io::Error) -> ArchiveError {
    ArchiveError::Malformed(format!("it breaks off or is damaged: {error}"))
}

/// Feeds all parts but the end, until nobody wants them.
fn unpack(
    mut input: impl Read,
    feed: &mpsc::Sender<Result<Part, ArchiveError>>,
) -> Result<(), ArchiveError> {
    let mut magic = [0; ZSTD.len()];
    let begun = input.read_exact(&mut magic);
    if begun.is_err() || magic != ZSTD {
        return Err(ArchiveError::Malformed(
            "it is not what layerd cache export writes: a tar compressed with zstd".to_owned(),
        ));
    }
    let mut decoder = zstd::Decoder::new(io::Cursor::new(magic).chain(input)).map_err(damaged)?;
    decoder.window_log_max(WINDOW).map_err(damaged)?;
    let mut archive = tar::Archive::new(decoder);
    let mut folders = 0;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut content = entry.map_err(damaged)?;
        let name = name(content.header())?;
        match content.header().entry_type() {
            tar::EntryType::Regular => {}
            tar::EntryType::Directory if content.size() == 0 && folders < MAX_FOLDERS => {
                folders += 1;
                continue;
            }
            kind => {
                return Err(ArchiveError::Malformed(format!(
                    "{name} is no plain file: {kind:?}"
                )));
            }
        }
        let size = content.size();
        let entry = Entry { name, size };
        if feed.blocking_send(Ok(Part::Entry(entry))).is_err() {
            return Ok(());
        }
        let mut left = size;
        while left > 0 {
            let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            let read = content.read(&mut chunk).map_err(damaged)?;
            if read == 0 {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            chunk.truncate(read);
            left -= read as u64;
            if feed.blocking_send(Ok(Part::Bytes(chunk.into()))).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What an entry is called, in a form that can be shown.
fn name(header: &tar::Header) -> Result<String, ArchiveError> {
    let bytes = header.path_bytes();
    let name = std::str::from_utf8(&bytes).ok();
    let name = name.filter(|name| name.chars().all(|letter| letter.is_ascii_graphic()));
    let Some(name) = name else {
        return Err(ArchiveError::Malformed(format!(
            "an entry has a strange name: {:?}",
            String::from_utf8_lossy(&bytes)
        )));
    };
    Ok(name.strip_prefix("./").unwrap_or(name).to_owned())
}
