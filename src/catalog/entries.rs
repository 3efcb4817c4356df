//! Entries of GitHub's cache, and uploads that are to become one.
//!
//! An entry is an export of kind [`Kind::Entry`](super::Kind), with a name. An
//! upload is a name that somebody has reserved, and the blocks that have come
//! for it, in any order and at any hub. Their blobs are kept by pins whose holder
//! is the upload.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{CatalogError, ExportId, NewExport, PinHolder};
use crate::digest::Digest;
use crate::entry::{EntryKey, EntryName, EntryVersion};
use crate::moment::Moment;
use crate::place::{GitRef, ProjectId};

/// How long an upload is kept of which nothing comes.
pub const UPLOAD_KEPT: Duration = Duration::from_secs(3600);
/// How long one of which nothing comes keeps others from its name.
pub const UPLOAD_ALIVE: Duration = Duration::from_secs(5 * 60);
/// How long a block is pinned: while others come for its upload, it is pinned
/// again, so that this is longer than anything is kept of which nothing comes.
pub const BLOCK_PINNED: Duration = Duration::from_secs(2 * 3600);
/// How often the blocks of an upload are pinned again.
pub(super) const RENEWED: Duration = Duration::from_secs(1800);
/// Uploads that nobody has finished, of a project, and of those that are alive
/// of a ref of it: what is too many for the jobs of a day, and not for a table.
pub const MAX_OPEN: [u64; 2] = [4096, 1024];

/// What a catalog does for entries.
#[async_trait]
pub trait Entries {
    /// Reserves a name. It is taken where there is such an entry in the log, or
    /// where the upload is to be the only one and another of that ref and name
    /// is alive: open, and touched within [`UPLOAD_ALIVE`].
    async fn reserve(&self, upload: &NewUpload) -> Result<Reserved, CatalogError>;

    /// Something of an upload that is open is on its way: it goes on to live.
    /// Whether there is one.
    async fn touch_upload(&self, id: UploadId) -> Result<bool, CatalogError>;

    /// How much of uploads that are open there is, for each ref that has any.
    async fn unfinished(&self) -> Result<Vec<Unfinished>, CatalogError>;

    /// An upload, as long as it is kept.
    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, CatalogError>;

    /// The uploads of a project with that name, of any ref, the last touched
    /// first; at most [`MOST_ALIKE`].
    async fn uploads(
        &self,
        project: &ProjectId,
        name: &EntryName,
    ) -> Result<Vec<Upload>, CatalogError>;

    /// Adds a block to an upload that is open, in place of the one with its
    /// name, or of all with `alone`; unless it has more than it may then. A
    /// crash of the machine may take it.
    async fn put_block(
        &self,
        id: UploadId,
        block: &Block,
        alone: bool,
    ) -> Result<Put, CatalogError>;

    /// The blocks that an upload is made of, in order; others go. Gives a name
    /// that it has no block of, if there is one, and changes nothing then; none
    /// where it is not open, too.
    async fn order_blocks(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<Option<String>, CatalogError>;

    /// What a block of that name would take the place of, or one that is alone.
    async fn replaced(
        &self,
        id: UploadId,
        name: &str,
        alone: bool,
    ) -> Result<Vec<(Digest, u64)>, CatalogError>;

    /// The blocks of an upload, by position, then by start, then by name.
    async fn blocks(&self, id: UploadId) -> Result<Vec<Block>, CatalogError>;

    /// Appends an entry to the log, and notes that the upload has become that.
    /// What was reserved before its place was flushed is
    /// [`CatalogError::Flushed`], where the export says when that was.
    async fn append_entry(
        &self,
        id: UploadId,
        export: NewExport,
        size: u64,
    ) -> Result<AppendedEntry, CatalogError>;

    /// Notes what else an upload that is open has become, and its size in bytes.
    /// Its blocks go.
    async fn close_upload(
        &self,
        id: UploadId,
        became: Became,
        size: u64,
    ) -> Result<(), CatalogError>;

    /// Forgets an upload that is open, and its blocks.
    async fn drop_upload(&self, id: UploadId) -> Result<(), CatalogError>;

    /// The entry that is meant: of the first of `refs` that has any, and there of
    /// the first key that any begins with, the one with that very key or else
    /// the newest.
    async fn find_entry(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        keys: &[EntryKey],
        version: &EntryVersion,
    ) -> Result<Option<EntryHead>, CatalogError>;

    /// The layers of an entry, in order, repetitions included, each with its size
    /// in bytes; also of one that has left the log while a lease keeps it.
    async fn entry_layers(
        &self,
        export: ExportId,
    ) -> Result<Option<Vec<(Digest, u64)>>, CatalogError>;

    /// An entry was read. Within an hour of its last use, or of its own time,
    /// nothing is written.
    async fn note_entry_use(&self, export: ExportId) -> Result<(), CatalogError>;

    /// The secret of that name: `fresh`, if there was none.
    async fn secret(&self, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32], CatalogError>;
}

/// Uploads that are given for one name.
pub const MOST_ALIKE: u32 = 64;

/// The number of an upload: what a JSON number holds exactly, and nobody can
/// guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub i64);

impl UploadId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random_range(1..1 << 53))
    }

    /// Whose the pins of its blocks are.
    pub fn holder(self) -> PinHolder {
        PinHolder(self.0)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for UploadId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// What came of reserving a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is for whoever asked to upload.
    Upload(UploadId),
    /// It is there already, or is being uploaded.
    Exists,
    /// As many as may be are being uploaded.
    TooMany,
}

impl Reserved {
    /// The upload, if there is one.
    pub fn upload(self) -> Option<UploadId> {
        match self {
            Self::Upload(id) => Some(id),
            Self::Exists | Self::TooMany => None,
        }
    }
}

/// Whether so many of a project, and of the ref, leave no room for one more.
pub(super) fn too_many(open: [u64; 2]) -> bool {
    open.iter().zip(MAX_OPEN).any(|(open, most)| *open >= most)
}

/// What there is of uploads that are open, of one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The project.
    pub project: ProjectId,
    /// The ref.
    pub git_ref: GitRef,
    /// Bytes of all of their blocks.
    pub bytes: u64,
    /// Bytes of those that are alive.
    pub alive: u64,
}

/// An upload that is to begin.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Of this project,
    pub project: ProjectId,
    /// for this ref,
    pub git_ref: GitRef,
    /// under this name.
    pub name: EntryName,
    /// Whether it is to be the only one.
    pub alone: bool,
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its number.
    pub id: UploadId,
    /// Of this project,
    pub project: ProjectId,
    /// for this ref,
    pub git_ref: GitRef,
    /// under this name.
    pub name: EntryName,
    /// Blocks that have come.
    pub blocks: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// When it was reserved, at the latest.
    pub began: Moment,
    /// What it is by now, and how large; none while it is open.
    pub became: Option<(Became, u64)>,
}

/// What an upload has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// An entry.
    Entry(ExportId),
    /// A cache: an export as a build writes it.
    Cache(ExportId),
    /// A blob.
    Blob,
    /// Nothing: its place was flushed after it was reserved.
    Flushed,
}

impl Became {
    pub(super) fn as_columns(self) -> (&'static str, Option<i64>) {
        match self {
            Self::Entry(id) => ("entry", Some(id.0)),
            Self::Cache(id) => ("cache", Some(id.0)),
            Self::Blob => ("blob", None),
            Self::Flushed => ("flushed", None),
        }
    }

    pub(super) fn of_columns(became: &str, export: Option<i64>) -> Result<Self, String> {
        match (became, export.map(ExportId)) {
            ("entry", Some(id)) => Ok(Self::Entry(id)),
            ("cache", Some(id)) => Ok(Self::Cache(id)),
            ("blob", None) => Ok(Self::Blob),
            ("flushed", None) => Ok(Self::Flushed),
            _ => Err(format!("an upload became {became:?}")),
        }
    }
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What its sender calls it.
    pub name: String,
    /// Its bytes.
    pub digest: Digest,
    /// How many those are.
    pub size: u64,
    /// The byte of the whole where it begins, if its sender said that.
    pub start: Option<u64>,
    /// Its number among those of the whole, once that is known.
    pub position: Option<u64>,
}

/// What came of adding a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there.
    Done,
    /// The upload is not open.
    Closed,
    /// There are as many blocks as there may be.
    Full,
    /// There would be more bytes than there may be.
    TooLarge,
}

/// Blocks of an upload, at most: 10 GiB are 10,240 of those that BuildKit
/// sends, and Azure takes no more than this.
pub const MAX_BLOCKS: usize = 50_000;
/// Bytes of an upload, at most: `@actions/cache` saves nothing larger
/// (`saveCacheV2` in `packages/cache/src/cache.ts`).
pub const MAX_ENTRY: u64 = 10 << 30;

/// What came of appending an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendedEntry {
    /// It is in the log.
    Done(ExportId),
    /// The upload has become something already.
    Already(Became),
    /// Another upload was first.
    Exists,
    /// There is no such upload any more.
    Gone,
}

/// An entry that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// The export that it is.
    pub id: ExportId,
    /// Of this ref,
    pub git_ref: GitRef,
    /// under this name.
    pub name: EntryName,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written.
    pub time: Timestamp,
}
