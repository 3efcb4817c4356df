//! Uploads as they come: names that are reserved, and pieces of what is to
//! become something.
//!
//! A piece is a blob, hashed as it comes and pinned for the upload before it is
//! stored. So any hub can take any piece, nothing of it is in the memory of one,
//! and what is never finished is left to those who collect.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};

use crate::access::Grant;
use crate::blobs::Ingest;
use crate::cache::CacheError;
use crate::cache::entries::{
    EntryError, EntryName, MAX_BLOCK_NAME, MAX_BLOCKS, MAX_ENTRY, Piece, Reserved, UploadId,
};
use crate::cache::local::LocalCache;
use crate::cache::local::open::Opened;
use crate::cache::local::pinning::{Pinned, Whose};
use crate::cache::local::quota::Allowance;
use crate::catalog::entries::{BLOCK_PINNED, Block, NewUpload, Put, Upload};
use crate::digest::Digest;
use crate::place::{Place, ProjectId};

/// How often it is noted that bytes come.
const ALIVE: Duration = Duration::from_secs(60);

impl LocalCache {
    pub(in crate::cache) async fn reserve_entry(
        &self,
        place: &Place,
        name: &EntryName,
        alone: bool,
    ) -> Result<Reserved, CacheError> {
        place.check_new()?;
        let opened = self.opener.opened_for_writing().await?;
        let upload = NewUpload {
            project: place.project.clone(),
            git_ref: place.git_ref.clone(),
            name: name.clone(),
            alone,
        };
        Ok(opened.catalog.reserve(&upload).await?)
    }

    pub(in crate::cache) async fn upload(
        &self,
        id: UploadId,
    ) -> Result<Option<Upload>, CacheError> {
        let opened = self.opener.opened().await?;
        Ok(opened.catalog.upload(id).await?)
    }

    /// The upload of that name that is meant, of those for refs that `grant` lets
    /// write: one that is open and has as much as is said, or else one that
    /// was finished with that, or else any.
    pub(in crate::cache) async fn upload_named(
        &self,
        project: &ProjectId,
        name: &EntryName,
        size: Option<u64>,
        grant: &Grant,
    ) -> Result<Option<Upload>, CacheError> {
        let opened = self.opener.opened().await?;
        let mut uploads = opened.catalog.uploads(project, name).await?;
        uploads.retain(|upload| grant.may_write(&upload.git_ref));
        let fits = |upload: &Upload| match upload.became {
            None => size.is_none_or(|size| size == upload.bytes),
            Some((_, became)) => size.is_none_or(|size| size == became),
        };
        let rank = |upload: &Upload| match (fits(upload), upload.became.is_none()) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        Ok(uploads.into_iter().min_by_key(rank))
    }

    pub(in crate::cache) async fn put_piece(
        &self,
        id: UploadId,
        piece: Piece<'_>,
        length: Option<u64>,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        let upload = self.open_upload(id).await?;
        let (name, start) = match piece {
            Piece::Block(name) => (checked(name)?.to_owned(), None),
            Piece::At(start) => (format!("{start:020}"), Some(start)),
            Piece::Whole => ("whole".to_owned(), None),
        };
        let alone = piece == Piece::Whole;
        if length.is_some_and(|length| length > MAX_ENTRY)
            || start.is_some_and(|start| start > MAX_ENTRY)
        {
            return Err(EntryError::TooLarge);
        }
        if !alone && upload.blocks > MAX_BLOCKS as u64 {
            return Err(EntryError::TooManyBlocks);
        }
        let room = self.room_for_piece(&opened, &upload, length).await?;
        let (mut allowance, mut replaced) = (room, Vec::new());
        if let Some(tight) =
            allowance.take_if(|room| !length.is_some_and(|length| room.fits(length)))
        {
            replaced = opened.catalog.replaced(id, &name, alone).await?;
            let bytes = replaced.iter().map(|(_, size)| size).sum();
            allowance = Some(tight.in_place_of(bytes));
        }
        let ingest = self
            .ingest_piece(&opened, &upload, &name, allowance)
            .await?;
        let alive = Alive(&opened, id);
        let (digest, size) = take_in(ingest, length, body, alive).await?;
        let block = Block {
            name,
            digest,
            size,
            start,
            position: alone.then_some(0),
        };
        match opened.catalog.put_block(id, &block, alone).await? {
            Put::Done => {
                if alone {
                    replaced.retain(|(other, _)| *other != digest);
                    self.let_go(&opened, &upload, &replaced).await;
                }
                Ok(())
            }
            Put::Closed => Err(EntryError::Closed),
            Put::Full => Err(EntryError::TooManyBlocks),
            Put::TooLarge => Err(EntryError::TooLarge),
        }
    }

    pub(in crate::cache) async fn put_list(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<(), EntryError> {
        if names.len() > MAX_BLOCKS {
            return Err(EntryError::TooManyBlocks);
        }
        if names.is_empty() {
            // An empty file, as much as one that comes as a blob.
            let nothing = stream::empty();
            return self.put_piece(id, Piece::Whole, Some(0), nothing).await;
        }
        let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|two| two[0] == two[1]) {
            let why = format!("the list names block {:?} twice", twice[0]);
            return Err(EntryError::Invalid(why));
        }
        self.open_upload(id).await?;
        let opened = self.opener.opened_for_writing().await?;
        match opened.catalog.order_blocks(id, names).await? {
            None => Ok(()),
            Some(unknown) => Err(EntryError::UnknownBlock(unknown)),
        }
    }

    async fn open_upload(&self, id: UploadId) -> Result<Upload, EntryError> {
        match self.upload(id).await? {
            None => Err(EntryError::NoUpload),
            Some(upload) if upload.became.is_some() => Err(EntryError::Closed),
            Some(upload) => Ok(upload),
        }
    }

    /// Blocks that an upload has no more.
    async fn let_go(&self, opened: &Opened, upload: &Upload, blocks: &[(Digest, u64)]) {
        if blocks.is_empty() {
            return;
        }
        let blocks: Vec<Digest> = blocks.iter().map(|(digest, _)| *digest).collect();
        self.watch.forget(&upload.project, &blocks);
        self.unpin_blocks(opened, upload.id, &blocks).await;
    }

    async fn ingest_piece(
        &self,
        opened: &Arc<Opened>,
        upload: &Upload,
        name: &str,
        allowance: Option<Allowance>,
    ) -> Result<Box<dyn Ingest>, CacheError> {
        // Neither a project nor a ref holds a NUL.
        let name = format!(
            "{}\0{}\0upload {} {name}",
            upload.project, upload.git_ref, upload.id
        );
        let ingest = opened.blobs.ingest(&name, None).await?;
        Ok(Box::new(Pinned {
            ingest,
            opened: Arc::clone(opened),
            allowance,
            whose: Whose::Holder(upload.id.holder(), BLOCK_PINNED),
        }))
    }
}

fn checked(name: &str) -> Result<&str, EntryError> {
    let is_name =
        !name.is_empty() && name.len() <= MAX_BLOCK_NAME && !name.chars().any(char::is_control);
    match is_name {
        true => Ok(name),
        false => Err(EntryError::Invalid(format!(
            "a block's id has 1 to {MAX_BLOCK_NAME} bytes and no control characters"
        ))),
    }
}

/// An upload that lives as long as bytes come.
struct Alive<'a>(&'a Opened, UploadId);

impl Alive<'_> {
    async fn tell(&self) -> Result<(), EntryError> {
        let Self(opened, id) = *self;
        match opened.catalog.touch_upload(id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(EntryError::Closed),
            Err(error) => {
                tracing::debug!(upload = %id, %error, "that an upload goes on is not noted");
                Ok(())
            }
        }
    }
}

/// Stores what comes, and says now and then that it does. What is not all that
/// was announced is not stored.
async fn take_in(
    mut ingest: Box<dyn Ingest>,
    length: Option<u64>,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
    alive: Alive<'_>,
) -> Result<(Digest, u64), EntryError> {
    let limit = length.unwrap_or(MAX_ENTRY);
    let mut told = Instant::now();
    if ingest.offset() > 0 {
        // Whoever sends it again begins at its beginning.
        ingest.restart().await?;
    }
    let mut body = pin!(body);
    let failed = loop {
        let chunk = match body.next().await {
            None => break None,
            Some(Err(error)) => break Some(EntryError::Body(error)),
            Some(Ok(chunk)) => chunk,
        };
        let size = ingest.offset().saturating_add(chunk.len() as u64);
        if size > limit {
            break Some(match length {
                Some(expected) => EntryError::WrongSize {
                    expected,
                    actual: size,
                },
                None => EntryError::TooLarge,
            });
        }
        if let Err(error) = ingest.write(chunk).await {
            break Some(error.into());
        }
        if told.elapsed() >= ALIVE {
            told = Instant::now();
            if let Err(error) = alive.tell().await {
                break Some(error);
            }
        }
    };
    match failed {
        None => Ok(ingest.commit(length, None).await?),
        Some(error) => {
            if let Err(left) = ingest.abort().await {
                tracing::debug!(error = %left, "what came of a block is left to housekeeping");
            }
            Err(error)
        }
    }
}
