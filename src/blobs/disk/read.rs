//! A blob as a stream of chunks, the next one being read while the last one
//! is on its way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};

use super::errors::{blocking, read_failed};
use super::layout::Layout;
use super::{BlobError, BlobStream};
use crate::digest::Digest;

/// Bytes a chunk.
const CHUNK: u64 = 512 * 1024;

/// Chunks in memory for each stream.
const CHUNKS_AHEAD: usize = 2;

/// Opens the blob and streams the part of the range that exists.
pub(super) async fn open(
    layout: Arc<Layout>,
    digest: Digest,
    offset: u64,
    length: u64,
) -> Result<BlobStream, BlobError> {
    let (file, size) = blocking({
        let layout = Arc::clone(&layout);
        move || open_file(&layout, &digest)
    })
    .await?;
    let end = offset.saturating_add(length).min(size);
    let starts = stream::iter(
        std::iter::successors(Some(offset), move |start| start.checked_add(CHUNK))
            .take_while(move |start| *start < end),
    );
    let (file, buffers) = (Arc::new(file), Buffers::default());
    let chunks = starts.map(move |start| {
        let (layout, file, buffers) = (Arc::clone(&layout), Arc::clone(&file), buffers.clone());
        let length = CHUNK.min(end - start) as usize;
        blocking(move || {
            read_chunk(&file, start, buffers.take(length))
                .map_err(|error| read_failed(error, "read", &layout.blob(&digest)))
        })
    });
    Ok(chunks.buffered(CHUNKS_AHEAD).boxed())
}

pub(super) fn open_file(layout: &Layout, digest: &Digest) -> Result<(File, u64), BlobError> {
    let path = layout.blob(digest);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::NotFound(*digest),
        _ => read_failed(error, "open", &path),
    };
    let file = File::open(&path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((file, size))
}

/// Reads exactly that much: a file that became shorter is an error, never a
/// short blob.
fn read_chunk(file: &File, start: u64, mut buffer: Buffer) -> io::Result<Bytes> {
    file.read_exact_at(&mut buffer.bytes, start)?;
    Ok(Bytes::from_owner(buffer))
}

/// Buffers of one stream that its reader has done with: to be filled again,
/// since new memory takes the kernel longer than the read itself.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, length: usize) -> Buffer {
        let mut bytes = self.free().pop().unwrap_or_default();
        bytes.resize(length, 0);
        Buffer {
            bytes,
            home: Arc::downgrade(&self.0),
        }
    }
}

/// One of them, in use.
struct Buffer {
    bytes: Vec<u8>,
    /// Gone with the stream.
    home: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            Buffers(home).free().push(std::mem::take(&mut self.bytes));
        }
    }
}
