//! Entries of GitHub's cache: what its clients save under a key, and find again.
//!
//! Whatever is saved comes as an upload: a name that is reserved, and blocks
//! that arrive in any order, each of which is a blob. When it is
//! [finalized](super::guard::Guard::finalize), its key says what it becomes.
//! BuildKit's layers become blobs of the project, and BuildKit's index an export
//! of its scope, like that of any other door; the rest becomes an entry, which
//! is an export of its own kind. What needs rights is asked of a
//! [`Guard`](super::guard::Guard); [`Entries`] serves whoever bears an address
//! that was given after that.

mod index;
mod meaning;
mod reader;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;

pub(in crate::cache) use self::index::LIMITS;
pub(super) use self::meaning::is_of;
pub use self::meaning::{BUILDKIT_VERSION, Meaning};
pub use self::reader::{Part, Reader};
use super::{CacheError, Import, LocalCache};
use crate::blobs::BlobError;
pub use crate::catalog::entries::{Became, MAX_BLOCKS, MAX_ENTRY, Reserved, UploadId};
use crate::catalog::{CatalogError, ExportId};
use crate::digest::Digest;
pub use crate::entry::{EntryKey, EntryName, EntryVersion, InvalidKey, MAX_KEY};
use crate::place::GitRef;

/// The scope of entries in their place, beside those of builds.
pub const SCOPE: &str = "actions-cache";

/// The longest name of a block, in bytes: Azure takes no longer id, in base64.
pub const MAX_BLOCK_NAME: usize = 128;

/// What a key was found to mean.
#[derive(Clone, Debug)]
pub enum Found {
    /// An entry.
    Entry(FoundEntry),
    /// A layer of BuildKit's.
    Blob(FoundBlob),
    /// What BuildKit may see in a scope.
    Index(Box<FoundIndex>),
}

impl Found {
    /// The key under which it was found.
    pub fn key(&self) -> &EntryKey {
        match self {
            Self::Entry(entry) => &entry.name.key,
            Self::Blob(blob) => &blob.key,
            Self::Index(index) => &index.key,
        }
    }
}

/// An entry that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEntry {
    /// The export that it is.
    pub id: ExportId,
    /// What it is called.
    pub name: EntryName,
    /// The ref that it was saved for.
    pub git_ref: GitRef,
    /// Its size in bytes.
    pub size: u64,
    /// When it was saved.
    pub created: Timestamp,
}

/// A layer that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBlob {
    /// What it is called.
    pub key: EntryKey,
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A union that was found.
#[derive(Clone, Debug)]
pub struct FoundIndex {
    /// What it is called: the key that was asked for, with a number.
    pub key: EntryKey,
    /// What is to be downloaded: a config that says all of its layers.
    pub document: Bytes,
    /// Where it comes from.
    pub import: Import,
}

/// Which upload is to be finalized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// That one.
    Upload(UploadId),
    /// One of that name, for a ref that may be written.
    Named(EntryName),
}

/// What an upload has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finalized {
    /// The upload.
    pub upload: UploadId,
    /// What it is by now.
    pub became: Became,
    /// Its size in bytes.
    pub size: u64,
}

/// A part of an upload, as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A block with that name; a list will say where it belongs.
    Block(&'a str),
    /// What begins at that byte.
    At(u64),
    /// All of it, in place of whatever came before.
    Whole,
}

/// Why an upload goes no further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// There is no such upload, or not for whoever asks.
    #[error("there is no such upload")]
    NoUpload,
    /// It has been finalized.
    #[error("the upload is finished already")]
    Closed,
    /// Another upload of that name was first.
    #[error("there is an entry of that key, version and ref already")]
    Exists,
    /// A list names a block that never came.
    #[error("block {0:?} was not uploaded")]
    UnknownBlock(String),
    /// What was sent can't be used; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// It is larger than anything may be.
    #[error("an entry may have {MAX_ENTRY} bytes at most")]
    TooLarge,
    /// It is in more pieces than anything may be.
    #[error("an entry may have {MAX_BLOCKS} blocks at most")]
    TooManyBlocks,
    /// More or fewer bytes than were announced.
    #[error("{expected} bytes were announced, and {actual} came")]
    WrongSize {
        /// What was announced.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The bytes of a layer are not those of its key.
    #[error("the bytes hash to {actual}, and not to {expected}")]
    WrongDigest {
        /// What the key says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Its sender broke off.
    #[error("the body broke off: {0}")]
    Body(#[source] io::Error),
    /// From the engine.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<CatalogError> for EntryError {
    fn from(error: CatalogError) -> Self {
        Self::Cache(error.into())
    }
}

impl From<BlobError> for EntryError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::WrongSize { expected, actual } => Self::WrongSize { expected, actual },
            BlobError::WrongDigest { expected, actual } => Self::WrongDigest { expected, actual },
            error => Self::Cache(error.into()),
        }
    }
}

/// Entries and uploads, for whoever bears an address: who may have one was
/// checked when it was given.
#[derive(Clone)]
pub struct Entries {
    local: Arc<LocalCache>,
}

impl Entries {
    pub(super) fn new(local: Arc<LocalCache>) -> Self {
        Self { local }
    }

    /// Takes a piece of an upload in, whose length in bytes is `length` where
    /// that is known. One that is sent again replaces what came before.
    pub async fn put(
        &self,
        upload: UploadId,
        piece: Piece<'_>,
        length: Option<u64>,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), EntryError> {
        self.local.put_piece(upload, piece, length, body).await
    }

    /// Has an upload be made of these blocks, in that order; others go.
    pub async fn put_list(&self, upload: UploadId, names: &[String]) -> Result<(), EntryError> {
        self.local.put_list(upload, names).await
    }

    /// Opens an entry for reading; none where it has left the log, and nobody
    /// who could still read it is left.
    pub async fn open(&self, entry: ExportId) -> Result<Option<Reader>, CacheError> {
        self.local.open_entry(entry).await
    }

    /// Opens a layer for reading; none where it is gone, or has another size.
    pub async fn open_blob(&self, blob: Digest, size: u64) -> Result<Option<Reader>, CacheError> {
        self.local.open_blob(blob, size).await
    }

    /// What all hubs of this catalog sign addresses with, and nobody else knows.
    pub async fn secret(&self) -> Result<[u8; 32], CacheError> {
        self.local.entry_secret().await
    }
}

#[cfg(test)]
mod tests;
