//! Reading what is in several blobs as if it were in one.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::blobs::{BlobError, BlobStore, BlobStream, Location};
use crate::digest::Digest;

/// How long a place is good where it can be read without us: nobody can take it
/// back, and whoever is sent there goes at once.
const LOCATED: Duration = Duration::from_secs(300);

/// A blob of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What is read: blobs, one after the other.
#[derive(Clone)]
pub struct Reader {
    blobs: Arc<dyn BlobStore>,
    parts: Arc<[Part]>,
    /// Where each ends, in bytes of the whole.
    ends: Arc<[u64]>,
}

impl Reader {
    pub(in crate::cache) fn new(blobs: Arc<dyn BlobStore>, parts: Vec<Part>) -> Self {
        let ends = parts.iter().scan(0u64, |end, part| {
            *end = end.saturating_add(part.size);
            Some(*end)
        });
        Self {
            blobs,
            ends: ends.collect(),
            parts: parts.into(),
        }
    }

    /// Bytes of all.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The blobs, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Streams `length` bytes from `offset` on, fewer where it ends first. Each
    /// blob is opened when those before it are read, the first one at once.
    pub async fn read(&self, offset: u64, length: u64) -> Result<BlobStream, BlobError> {
        let end = offset.saturating_add(length).min(self.size());
        if offset >= end {
            return Ok(stream::empty().boxed());
        }
        let first = self.ends.partition_point(|part_end| *part_end <= offset);
        let reader = self.clone();
        let wanted = move |part: usize| {
            let (size, part_end) = (reader.parts[part].size, reader.ends[part]);
            let begin = part_end - size;
            let from = offset.max(begin);
            (from < end).then(|| (from - begin, end.min(part_end) - from))
        };
        let opened = match wanted(first) {
            Some((from, some)) => Some(self.part(first, from, some).await?),
            None => None,
        };
        let reader = self.clone();
        let rest = stream::iter(first + 1..self.parts.len())
            .map(move |part| wanted(part).map(|(from, some)| (part, from, some)))
            .take_while(|wanted| std::future::ready(wanted.is_some()))
            .filter_map(std::future::ready)
            .filter(|(_, _, some)| std::future::ready(*some > 0))
            .then(move |(part, from, some)| {
                let reader = reader.clone();
                async move { reader.part(part, from, some).await }
            })
            .try_flatten();
        Ok(stream::iter(opened).flatten().chain(rest).boxed())
    }

    /// So much of a part; an error where the blob has less.
    async fn part(&self, part: usize, from: u64, some: u64) -> Result<BlobStream, BlobError> {
        let Part { digest, size } = self.parts[part];
        let bytes = self.blobs.read(&digest, from, some).await?;
        let (mut left, expected) = (some, size);
        let checked = bytes
            .map(Some)
            .chain(stream::once(std::future::ready(None)))
            .map(move |chunk| match chunk {
                Some(Ok(chunk)) => {
                    left = left.saturating_sub(chunk.len() as u64);
                    Ok(chunk)
                }
                Some(Err(error)) => Err(error),
                None if left > 0 => Err(BlobError::WrongSize {
                    expected,
                    actual: expected - left,
                }),
                None => Ok(bytes::Bytes::new()),
            })
            .try_filter(|chunk| std::future::ready(!chunk.is_empty()));
        Ok(checked.boxed())
    }

    /// Where all of it can be read without us; none where it is in several
    /// blobs, or there is no such place.
    pub async fn locate(&self) -> Result<Option<Location>, BlobError> {
        match &*self.parts {
            [one] => self.blobs.locate(&one.digest, LOCATED).await,
            _ => Ok(None),
        }
    }
}
