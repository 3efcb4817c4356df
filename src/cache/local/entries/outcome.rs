//! What becomes of an upload: an entry, a blob, or an export as a build writes
//! it.
//!
//! Nothing is visible before it is whole, and what is refused is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::blobs::Ingest;
use crate::cache::entries::{Became, EntryError, Part, Reader, UploadId};
use crate::cache::local::LocalCache;
use crate::cache::local::open::Opened;
use crate::cache::local::pinning::Names;
use crate::cache::{Cache as _, CacheError, Document, MAX_DOCUMENTS};
use crate::catalog::entries::{AppendedEntry, Block, Upload};
use crate::catalog::{ExportId, Layer, NewExport};
use crate::digest::Digest;
use crate::graph::Manifest;
use crate::place::Place;

/// The media type of what nothing is known of.
const BYTES: &str = "application/octet-stream";
/// Blobs that are looked for at a time.
const LOOKED_FOR: usize = 16;
/// Indexes that are read at a time; each may have [`MAX_DOCUMENTS`].
const INDEXES: usize = 2;
static READING: Semaphore = Semaphore::const_new(INDEXES);

impl LocalCache {
    /// All that has come of an upload, in order, which has so many bytes.
    pub(in crate::cache) async fn whole(
        &self,
        upload: &Upload,
        size: Option<u64>,
    ) -> Result<Reader, EntryError> {
        let opened = self.opener.opened().await?;
        let blocks = in_order(opened.catalog.blocks(upload.id).await?)?;
        if blocks.is_empty() && size != Some(0) {
            return Err(EntryError::Invalid(
                "nothing was uploaded, or no list of blocks came".to_owned(),
            ));
        }
        let parts = blocks.into_iter().map(|block| Part {
            digest: block.digest,
            size: block.size,
        });
        let whole = Reader::new(Arc::clone(&self.blobs), parts.collect());
        match size {
            Some(expected) if expected != whole.size() => Err(EntryError::WrongSize {
                expected,
                actual: whole.size(),
            }),
            _ => Ok(whole),
        }
    }

    /// Has it be an entry of that name, unless there is one; what it has become,
    /// if something already.
    pub(in crate::cache) async fn become_entry(
        &self,
        place: &Place,
        upload: &Upload,
        whole: &Reader,
        builder: String,
    ) -> Result<Became, EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        let sizes = sizes(whole);
        let names = Names::pin(&opened, &place.project, sizes.keys().copied().collect()).await;
        let names = names.map_err(gone)?;
        check_there(&opened, &sizes).await?;
        let room = match self.make_room(&opened, place, &sizes).await {
            Ok(room) => room,
            Err(refused) => {
                self.subsuming.let_go(Arc::clone(&opened), names, false);
                self.forget(&opened, upload.id, whole, place).await;
                return Err(refused.into());
            }
        };
        // The log must never name what a crash of the machine could still take.
        opened.blobs.persist().await.map_err(CacheError::from)?;
        names.check(&opened).await?;
        let export = entry(place, upload, whole, builder);
        let appended = opened.catalog.append_entry(upload.id, export, whole.size());
        let became = match appended.await? {
            AppendedEntry::Done(id) => {
                if let Some(room) = room {
                    self.settle(&opened, place, &sizes, room).await;
                }
                self.grown.notify_one();
                self.unpin(&opened, upload.id, whole).await;
                Ok(Became::Entry(id))
            }
            AppendedEntry::Already(became) => Ok(became),
            AppendedEntry::Exists => {
                self.forget(&opened, upload.id, whole, place).await;
                Err(EntryError::Exists)
            }
            AppendedEntry::Gone => Err(EntryError::NoUpload),
        };
        self.subsuming.let_go(opened, names, false);
        became
    }

    /// Has it be a blob that the ref of `place` may name for so long; its bytes
    /// are those that `expected` says.
    pub(in crate::cache) async fn become_blob(
        &self,
        place: &Place,
        upload: UploadId,
        whole: &Reader,
        expected: Digest,
        ttl: Duration,
    ) -> Result<(), EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        let size = whole.size();
        match whole.parts() {
            [one] if one.digest == expected => {}
            parts => {
                let digests: Vec<Digest> = parts.iter().map(|part| part.digest).collect();
                // They count once, as what they become.
                self.watch.forget(&place.project, &digests);
                let name = format!("{}\0entry {upload}", place.git_ref);
                let ingest = self.ingest(place, &name, Some(expected)).await?;
                match copy(ingest, whole, expected).await {
                    Err(wrong @ EntryError::WrongDigest { .. }) => {
                        self.forget(&opened, upload, whole, place).await;
                        return Err(wrong);
                    }
                    copied => copied?,
                }
            }
        }
        if self.possess_there(place, expected, ttl).await? != Some(size) {
            return Err(gone(CacheError::Missing(vec![expected])));
        }
        let closed = opened.catalog.close_upload(upload, Became::Blob, size);
        closed.await?;
        self.unpin(&opened, upload, whole).await;
        Ok(())
    }

    /// Reads it as a config that says all of its layers: the manifest that says
    /// the same, and the config.
    pub(in crate::cache) async fn read_index(
        &self,
        upload: UploadId,
        whole: &Reader,
        place: &Place,
    ) -> Result<(Document, Document), EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        if whole.size() > MAX_DOCUMENTS / 2 {
            self.forget(&opened, upload, whole, place).await;
            return Err(EntryError::Invalid(format!(
                "an index may have {} bytes at most",
                MAX_DOCUMENTS / 2
            )));
        }
        let _turn = READING.acquire().await;
        let read = whole
            .read(0, whole.size())
            .await
            .map_err(CacheError::from)?;
        let read = read.try_fold(BytesMut::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        let config: Bytes = read.await.map_err(CacheError::from)?.freeze();
        let parsing = tokio::task::spawn_blocking(move || {
            let manifest = Manifest::of_whole(&config)?.to_json()?;
            Ok((Document::new(manifest.into()), Document::new(config)))
        });
        let parsed = parsing.await.map_err(|stopped| {
            CacheError::Unavailable(format!("reading the index was cut off: {stopped}"))
        })?;
        match parsed {
            Ok(documents) => Ok(documents),
            Err(error) => {
                self.forget(&opened, upload, whole, place).await;
                Err(CacheError::Graph(error).into())
            }
        }
    }

    /// It has become an export that a build could have written.
    pub(in crate::cache) async fn close_index(
        &self,
        upload: UploadId,
        whole: &Reader,
        export: ExportId,
    ) -> Result<Became, EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        let became = Became::Cache(export);
        let closed = opened.catalog.close_upload(upload, became, whole.size());
        closed.await?;
        self.unpin(&opened, upload, whole).await;
        Ok(became)
    }

    /// Nothing has become of it.
    async fn forget(&self, opened: &Opened, upload: UploadId, whole: &Reader, place: &Place) {
        let digests: Vec<Digest> = sizes(whole).into_keys().collect();
        self.watch.forget(&place.project, &digests);
        if let Err(error) = opened.catalog.drop_upload(upload).await {
            tracing::debug!(%upload, %error, "a refused upload is left to expire");
        }
        self.unpin(opened, upload, whole).await;
    }

    /// Its blocks are named by what it became, or by nothing.
    async fn unpin(&self, opened: &Opened, upload: UploadId, whole: &Reader) {
        let digests: Vec<Digest> = sizes(whole).into_keys().collect();
        if let Err(error) = opened.catalog.unpin(upload.holder(), &digests).await {
            tracing::debug!(%upload, %error, "pins are left to expire");
        }
    }
}

/// The blocks that something is made of. Chunks that say where they begin must
/// follow each other without a gap; of others, a list has said which they are.
fn in_order(mut blocks: Vec<Block>) -> Result<Vec<Block>, EntryError> {
    if blocks.iter().all(|block| block.start.is_none()) {
        let unlisted = blocks.len();
        blocks.retain(|block| block.position.is_some());
        if blocks.is_empty() && unlisted > 0 {
            let why = "no list says which blocks it is made of";
            return Err(EntryError::Invalid(why.to_owned()));
        }
        blocks.sort_by_key(|block| block.position);
        return Ok(blocks);
    }
    blocks.retain(|block| block.size > 0 || block.start.is_none());
    blocks.sort_by_key(|block| block.start);
    let mut end = 0;
    for block in &blocks {
        match block.start {
            Some(start) if start == end => end += block.size,
            Some(start) if start > end => {
                let why = format!("bytes {end} to {start} were not uploaded");
                return Err(EntryError::Invalid(why));
            }
            Some(start) => {
                let why = format!("bytes {start} to {end} were uploaded twice");
                return Err(EntryError::Invalid(why));
            }
            None => {
                let why = "some of it says where it begins, and some does not";
                return Err(EntryError::Invalid(why.to_owned()));
            }
        }
    }
    Ok(blocks)
}

fn entry(place: &Place, upload: &Upload, whole: &Reader, builder: String) -> NewExport {
    // As exactly as it is kept.
    let time = Timestamp::now();
    let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
    // A number in place of layers: an older layerd must not take it for a cache
    // with nothing in it, to which any other adds something.
    let config = serde_json::json!({
        "key": upload.name.key,
        "version": upload.name.version,
        "size": whole.size(),
        "layers": whole.parts().len(),
    });
    let layer = |part: &Part| Layer {
        digest: part.digest,
        size: part.size,
        media_type: BYTES.to_owned(),
        diff_id: None,
        created_at: None,
        annotations: BTreeMap::new(),
    };
    NewExport {
        place: place.clone(),
        time,
        builder,
        records: 0,
        config: config.to_string().into(),
        layers: whole.parts().iter().map(layer).collect(),
        steps: Vec::new(),
        began: None,
    }
}

fn sizes(whole: &Reader) -> BTreeMap<Digest, u64> {
    let parts = whole.parts().iter();
    parts.map(|part| (part.digest, part.size)).collect()
}

/// Refuses to name what is not there. What is remembered of a size may be of
/// another time, since nothing but a pin has kept it.
async fn check_there(opened: &Opened, sizes: &BTreeMap<Digest, u64>) -> Result<(), EntryError> {
    let looked = stream::iter(sizes.clone())
        .map(|(digest, size)| {
            let blobs = Arc::clone(&opened.blobs);
            async move {
                let found = blobs.size(&digest).await?;
                Ok::<_, CacheError>((found != Some(size)).then_some(digest))
            }
        })
        .buffer_unordered(LOOKED_FOR);
    let missing: Vec<Option<Digest>> = looked.try_collect().await?;
    let missing: Vec<Digest> = missing.into_iter().flatten().collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(gone(CacheError::Missing(missing))),
    }
}

fn gone(error: CacheError) -> EntryError {
    match error {
        CacheError::Missing(blobs) => EntryError::Invalid(format!(
            "{} of its blocks are gone: the upload took too long",
            blobs.len()
        )),
        error => error.into(),
    }
}

/// One blob out of several.
async fn copy(
    mut ingest: Box<dyn Ingest>,
    whole: &Reader,
    expected: Digest,
) -> Result<(), EntryError> {
    if ingest.offset() > 0 {
        ingest.restart().await?;
    }
    let mut bytes = whole
        .read(0, whole.size())
        .await
        .map_err(CacheError::from)?;
    while let Some(chunk) = bytes.try_next().await.map_err(CacheError::from)? {
        ingest.write(chunk).await?;
    }
    ingest.commit(Some(whole.size()), Some(expected)).await?;
    Ok(())
}
