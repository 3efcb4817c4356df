//! A blob in the making: bytes hashed once, as they are written.
//!
//! Small writes are gathered, so that hashing and writing go to a blocking
//! thread in batches; what is gathered is still written when the ingest is
//! dropped. A write that is cancelled half-way goes on in its thread, and the
//! next call finds it done.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::errors::{cut_off, write_failed};
use super::layout::Layout;
use super::read::open_file;
use super::scratch::Scratch;
use super::with_directories;
use super::{BlobError, Ingest};
use crate::digest::{Digest, Hasher};

/// How many bytes are gathered before they are written.
const BATCH: usize = 256 * 1024;

/// How much is read at a time to hash what an earlier writer left.
const REHASH_CHUNK: usize = 1024 * 1024;

/// An ingest into a file that this process has locked.
#[derive(Debug)]
pub(in crate::blobs) struct DiskIngest {
    layout: Arc<Layout>,
    written: Arc<Mutex<Written>>,
    gathered: Vec<Bytes>,
    /// The latest work on the file, where its end has not been seen.
    under_way: Option<JoinHandle<()>>,
    started_at: SystemTime,
    updated_at: SystemTime,
}

/// What has reached the file.
#[derive(Debug)]
struct Written {
    /// `None` once committed or aborted.
    scratch: Option<Scratch>,
    hasher: Hasher,
    offset: u64,
}

impl DiskIngest {
    /// Opens or resumes; reads all that is there. Blocks.
    pub(super) fn open(layout: Arc<Layout>, name: Digest) -> Result<Self, BlobError> {
        let failed = |error| write_failed(error, "open an ingest in", layout.root());
        let scratch =
            with_directories(&layout, || Scratch::open(&layout, &name)).map_err(failed)?;
        let (hasher, offset) = rehash(scratch.file()).map_err(failed)?;
        let found = scratch.file().metadata().map_err(failed)?;
        let updated_at = found.modified().map_err(failed)?;
        // Not every file system keeps a time of birth.
        let started_at = found.created().unwrap_or(updated_at);
        let written = Arc::new(Mutex::new(Written {
            scratch: Some(scratch),
            hasher,
            offset,
        }));
        Ok(Self {
            layout,
            written,
            gathered: Vec::new(),
            under_way: None,
            started_at,
            updated_at,
        })
    }

    /// Opens the file for reading what reaches it, also after the commit.
    pub(in crate::blobs) fn reader(&self) -> Result<File, BlobError> {
        let failed = |error| write_failed(error, "read an ingest in", self.layout.root());
        // Opened anew: a copy of the writer's file would keep its lock.
        let written = self.written();
        let scratch = written.scratch.as_ref().ok_or_else(finished);
        let opened = scratch.and_then(|scratch| File::open(scratch.path()));
        opened.map_err(failed)
    }

    /// How many bytes have reached the file.
    pub(in crate::blobs) fn flushed(&self) -> u64 {
        self.written().offset
    }

    /// Writes what was gathered to the file.
    pub(in crate::blobs) async fn flush(&mut self) -> Result<(), BlobError> {
        self.flush_and(|_, _| Ok(())).await
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gathered_len(&self) -> usize {
        self.gathered.iter().map(Bytes::len).sum()
    }

    /// Writes what was gathered, then does `then` on the same thread.
    async fn flush_and<T, F>(&mut self, then: F) -> Result<T, BlobError>
    where
        T: Send + 'static,
        F: FnOnce(&Layout, &mut Written) -> Result<T, BlobError> + Send + 'static,
    {
        // A write whose caller gave up goes on in its thread, and nothing may
        // overtake it.
        if let Some(before) = self.under_way.as_mut() {
            before.await.ok();
        }
        let (layout, written) = (Arc::clone(&self.layout), Arc::clone(&self.written));
        let batch = std::mem::take(&mut self.gathered);
        let (done, outcome) = oneshot::channel();
        self.under_way = Some(tokio::task::spawn_blocking(move || {
            let outcome = {
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                let appended = written
                    .append(&batch)
                    .map_err(|error| write_failed(error, "write to", layout.root()));
                appended.and_then(|()| then(&layout, &mut written))
            };
            // The file's lock must not outlive the answer.
            drop(written);
            // A caller that gave up wants none.
            done.send(outcome).ok();
        }));
        let outcome = outcome.await;
        self.under_way = None;
        outcome.unwrap_or_else(|_| Err(cut_off()))
    }
}

#[async_trait]
impl Ingest for DiskIngest {
    fn offset(&self) -> u64 {
        self.written().offset + self.gathered_len() as u64
    }

    fn digest(&self) -> Digest {
        let mut hasher = self.written().hasher.clone();
        self.gathered.iter().for_each(|bytes| hasher.update(bytes));
        hasher.finish()
    }

    fn started_at(&self) -> SystemTime {
        self.started_at
    }

    fn updated_at(&self) -> SystemTime {
        self.updated_at
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.updated_at = SystemTime::now();
        self.gathered.push(bytes);
        if self.gathered_len() < BATCH {
            Ok(())
        } else {
            self.flush_and(|_, _| Ok(())).await
        }
    }

    async fn append(&mut self, blob: &Digest, size: u64) -> Result<bool, BlobError> {
        let blob = *blob;
        self.updated_at = SystemTime::now();
        self.flush_and(move |layout, written| {
            let (source, expected) = open_file(layout, &blob)?;
            if expected != size {
                let (expected, actual) = (size, expected);
                return Err(BlobError::WrongSize { expected, actual });
            }
            written
                .append_file(&source, size)
                .map_err(|error| write_failed(error, "write to", layout.root()))
        })
        .await?;
        Ok(true)
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.gathered.clear();
        self.flush_and(|layout, written| {
            written
                .truncate()
                .map_err(|error| write_failed(error, "empty an ingest in", layout.root()))
        })
        .await
    }

    async fn commit(
        mut self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        self.flush_and(move |layout, written| written.commit(layout, size, expected))
            .await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), BlobError> {
        self.gathered.clear();
        self.flush_and(|layout, written| written.discard(layout))
            .await
    }
}

impl Drop for DiskIngest {
    fn drop(&mut self) {
        if self
            .under_way
            .as_ref()
            .is_some_and(|write| !write.is_finished())
        {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        // Less than a batch, into the page cache; what fails is only not resumed.
        self.written().append(&gathered).ok();
    }
}

impl Written {
    /// Appends whole chunks: one that fails leaves no part of itself behind.
    fn append(&mut self, batch: &[Bytes]) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let scratch = self.scratch.as_ref().ok_or_else(finished)?;
        for bytes in batch {
            if let Err(error) = scratch.file().write_all_at(bytes, self.offset) {
                scratch.file().set_len(self.offset).ok();
                return Err(error);
            }
            self.hasher.update(bytes);
            self.offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Appends another file: the kernel copies it, or shares its blocks where the
    /// file system can, while it is read to be hashed.
    fn append_file(&mut self, source: &File, size: u64) -> io::Result<()> {
        let mut file = self.scratch.as_ref().ok_or_else(finished)?.file();
        let (begin, mut hasher) = (self.offset, self.hasher.clone());
        file.seek(SeekFrom::Start(begin))?;
        let copied = thread::scope(|scope| {
            let copying = scope.spawn(|| io::copy(&mut source.take(size), &mut file));
            let hashed = hash(source, &mut hasher);
            let copied = copying
                .join()
                .map_err(|_| io::Error::other("copying panicked"))??;
            Ok((hashed?, copied))
        });
        let whole = copied.and_then(|copied| match copied == (size, size) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        match whole {
            Ok(()) => (self.hasher, self.offset) = (hasher, begin + size),
            Err(_) => drop(file.set_len(begin)),
        }
        whole
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.scratch
            .as_ref()
            .ok_or_else(finished)?
            .file()
            .set_len(0)?;
        self.hasher = Hasher::default();
        self.offset = 0;
        Ok(())
    }

    fn commit(
        &mut self,
        layout: &Layout,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let (actual, offset) = (self.hasher.current(), self.offset);
        if let Some(expected) = size.filter(|size| *size != offset) {
            self.discard(layout)?;
            return Err(BlobError::WrongSize {
                expected,
                actual: offset,
            });
        }
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            self.discard(layout)?;
            return Err(BlobError::WrongDigest { expected, actual });
        }
        let failed = |error| write_failed(error, "commit to", layout.root());
        let file = self
            .scratch
            .as_ref()
            .ok_or_else(finished)
            .map_err(failed)?
            .file();
        // Whatever a write that failed could not take back.
        file.set_len(offset).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // Over a blob of the same name, too: these bytes are verified just now.
        self.scratch
            .take()
            .map_or(Ok(()), |scratch| scratch.publish(layout, &actual))
            .map_err(failed)?;
        Ok((actual, offset))
    }

    fn discard(&mut self, layout: &Layout) -> Result<(), BlobError> {
        self.scratch
            .take()
            .map_or(Ok(()), Scratch::discard)
            .map_err(|error| write_failed(error, "drop an ingest in", layout.root()))
    }
}

fn finished() -> io::Error {
    io::Error::other("the ingest was committed or aborted")
}

fn rehash(file: &File) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::default();
    let offset = hash(file, &mut hasher)?;
    Ok((hasher, offset))
}

/// Hashes all of a file; gives how many bytes those are.
fn hash(file: &File, hasher: &mut Hasher) -> io::Result<u64> {
    let (mut offset, mut chunk) = (0, vec![0; REHASH_CHUNK]);
    loop {
        let read = match file.read_at(&mut chunk, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(offset);
        }
        hasher.update(&chunk[..read]);
        offset += read as u64;
    }
}
