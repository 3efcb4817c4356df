//! A blob as a stream of chunks, the next one being read while the last one
//! is on its way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

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
    let file = Arc::new(file);
    let chunks = starts.map(move |start| {
        let (layout, file) = (Arc::clone(&layout), Arc::clone(&file));
        let length = CHUNK.min(end - start) as usize;
        blocking(move || {
            read_chunk(&file, start, length)
                .map_err(|error| read_failed(error, "read", &layout.blob(&digest)))
        })
    });
    Ok(chunks.buffered(CHUNKS_AHEAD).boxed())
}

fn open_file(layout: &Layout, digest: &Digest) -> Result<(File, u64), BlobError> {
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
fn read_chunk(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, start)?;
    Ok(chunk.into())
}
