//! What is moved in one go: bytes that do not compress, in one blob or in
//! eight.

use bytes::Bytes;
use layerd::cache::wire::{PIECE, checksum};
use layerd::digest::Digest;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Scale;

/// How many blobs at a time, and on how many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// One blob.
    One,
    /// Eight on one connection.
    Streams,
    /// Eight, each on a connection of its own.
    Clients,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::One, Self::Streams, Self::Clients];

    /// As the page names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one blob",
            Self::Streams => "eight blobs, one connection",
            Self::Clients => "eight blobs, eight connections",
        }
    }

    /// Fresh blobs: nobody has seen them before.
    pub fn blobs(self, scale: Scale) -> Vec<Blob> {
        let all = bytes(scale);
        match self {
            Self::One => vec![Blob::new(all)],
            Self::Streams | Self::Clients => (0..8).map(|_| Blob::new(all / 8)).collect(),
        }
    }

    /// How many connections that many blobs take.
    pub const fn connections(self) -> usize {
        match self {
            Self::One | Self::Streams => 1,
            Self::Clients => 8,
        }
    }
}

/// Bytes that are moved in one go.
pub fn bytes(scale: Scale) -> usize {
    if scale.quick { 64 << 20 } else { 512 << 20 }
}

/// One blob, in memory.
#[derive(Clone)]
pub struct Blob {
    pub content: Bytes,
    pub digest: Digest,
}

impl Blob {
    fn new(size: usize) -> Self {
        let mut content = vec![0; size];
        StdRng::seed_from_u64(rand::random()).fill_bytes(&mut content);
        // What layers begin with, which are compressed.
        content[..2].copy_from_slice(&[0x1f, 0x8b]);
        Self {
            digest: Digest::of(&content),
            content: content.into(),
        }
    }

    /// It, in pieces, with their checksums.
    pub fn pieces(&self) -> Vec<(Bytes, u32)> {
        let starts = (0..self.content.len()).step_by(PIECE);
        let ends = starts.map(|at| (at, self.content.len().min(at + PIECE)));
        let pieces = ends.map(|(at, end)| self.content.slice(at..end));
        pieces
            .map(|piece| (piece.clone(), checksum(&piece)))
            .collect()
    }
}
