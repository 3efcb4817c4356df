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

use super::order::{Disorder, in_order};
use crate::blobs::Ingest;
use crate::cache::entries::{Became, EntryError, Part, Reader, UploadId};
use crate::cache::local::LocalCache;
use crate::cache::local::open::Opened;
use crate::cache::local::pinning::Names;
use crate::cache::{Cache as _, CacheError, Document, MAX_DOCUMENTS};
use crate::catalog::entries::{AppendedEntry, Upload};
use crate::catalog::{CatalogError, ExportId, Layer, NewExport};
use crate::digest::Digest;
use crate::graph::Manifest;
use crate::place::Place;
use crate::units::Age;

/// The media type of what nothing is known of.
const BYTES: &str = "application/octet-stream";
/// Blobs that are looked for at a time.
const LOOKED_FOR: usize = 16;
/// Indexes that are read at a time; each may have [`MAX_DOCUMENTS`].
const INDEXES: usize = 2;
static READING: Semaphore = Semaphore::const_new(INDEXES);

impl LocalCache {
    /// All that has come of an upload, in order, which has so many bytes. Of
    /// nothing at all only where that is `empty`: whoever sends an empty file
    /// as a blob has sent something.
    pub(in crate::cache) async fn whole(
        &self,
        upload: &Upload,
        size: Option<u64>,
        empty: bool,
    ) -> Result<Reader, EntryError> {
        let opened = self.opener.opened().await?;
        let blocks = opened.catalog.blocks(upload.id).await?;
        let digests: Vec<Digest> = blocks.iter().map(|block| block.digest).collect();
        let ordered = match in_order(blocks) {
            Ok(ordered) => ordered,
            Err(why) => {
                if matches!(why, Disorder::Twice(..)) {
                    // Nothing that its client would still send mends it.
                    let writing = self.opener.opened_for_writing().await?;
                    self.forget(&writing, upload, &digests).await;
                }
                return Err(EntryError::Invalid(why.to_string()));
            }
        };
        if ordered.is_empty() && !empty {
            return Err(EntryError::Invalid(
                "nothing was uploaded, or no list of blocks came".to_owned(),
            ));
        }
        let parts = ordered.into_iter().map(|block| Part {
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
    /// if something already. Where its place was flushed since it was reserved it
    /// is [`CacheError::Flushed`], and still there.
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
                self.forget(&opened, upload, &digests(whole)).await;
                return Err(refused.into());
            }
        };
        // The log must never name what a crash of the machine could still take.
        opened.blobs.persist().await.map_err(CacheError::from)?;
        names.check(&opened).await?;
        let export = entry(place, upload, whole, builder);
        let appended = opened.catalog.append_entry(upload.id, export, whole.size());
        let appended = match appended.await {
            Ok(appended) => appended,
            Err(error) => {
                self.subsuming.let_go(opened, names, false);
                return Err(match error {
                    CatalogError::Flushed { what, by, ago } => {
                        let key = &upload.name.key;
                        let why = format!(
                            "{what} was flushed {} by {by}, after key {key} was reserved: \
                             this upload is not kept",
                            Age(ago)
                        );
                        CacheError::Flushed(why).into()
                    }
                    error => error.into(),
                });
            }
        };
        let became = match appended {
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
                self.forget(&opened, upload, &digests(whole)).await;
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
        upload: &Upload,
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
                let name = format!("{}\0entry {}", place.git_ref, upload.id);
                let ingest = self.ingest(place, &name, Some(expected)).await?;
                match copy(ingest, whole, expected).await {
                    Err(wrong @ EntryError::WrongDigest { .. }) => {
                        self.forget(&opened, upload, &digests).await;
                        return Err(wrong);
                    }
                    copied => copied?,
                }
            }
        }
        if self.possess_there(place, expected, ttl).await? != Some(size) {
            return Err(gone(CacheError::Missing(vec![expected])));
        }
        let closed = opened.catalog.close_upload(upload.id, Became::Blob, size);
        closed.await?;
        self.unpin(&opened, upload.id, whole).await;
        Ok(())
    }

    /// Reads it as a config that says all of its layers: the manifest that says
    /// the same, and the config.
    pub(in crate::cache) async fn read_index(
        &self,
        upload: &Upload,
        whole: &Reader,
    ) -> Result<(Document, Document), EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        if whole.size() > MAX_DOCUMENTS / 2 {
            self.forget(&opened, upload, &digests(whole)).await;
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
                self.forget(&opened, upload, &digests(whole)).await;
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

    /// Its place was flushed, and nothing becomes of it: whoever has sent it
    /// either hears so, or is told that it has ended.
    pub(in crate::cache) async fn flushed(
        &self,
        upload: &Upload,
        whole: &Reader,
        ended: bool,
    ) -> Result<Became, EntryError> {
        let opened = self.opener.opened_for_writing().await?;
        match ended {
            true => {
                self.watch.forget(&upload.project, &digests(whole));
                let closed = opened
                    .catalog
                    .close_upload(upload.id, Became::Flushed, whole.size());
                closed.await?;
                self.unpin(&opened, upload.id, whole).await;
            }
            false => self.forget(&opened, upload, &digests(whole)).await,
        }
        Ok(Became::Flushed)
    }

    /// Nothing has become of it.
    async fn forget(&self, opened: &Opened, upload: &Upload, blocks: &[Digest]) {
        self.watch.forget(&upload.project, blocks);
        if let Err(error) = opened.catalog.drop_upload(upload.id).await {
            tracing::debug!(upload = %upload.id, %error, "a refused upload is left to expire");
        }
        self.unpin_blocks(opened, upload.id, blocks).await;
    }

    /// Its blocks are named by what it became, or by nothing.
    async fn unpin(&self, opened: &Opened, upload: UploadId, whole: &Reader) {
        self.unpin_blocks(opened, upload, &digests(whole)).await;
    }

    pub(super) async fn unpin_blocks(&self, opened: &Opened, upload: UploadId, blocks: &[Digest]) {
        if let Err(error) = opened.catalog.unpin(upload.holder(), blocks).await {
            tracing::debug!(%upload, %error, "pins are left to expire");
        }
    }
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
        began: Some(upload.began),
    }
}

/// The distinct ones.
fn digests(whole: &Reader) -> Vec<Digest> {
    sizes(whole).into_keys().collect()
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
    for part in whole.parts() {
        if !ingest.append(&part.digest, part.size).await? {
            break;
        }
    }
    // What the store does not copy by itself.
    let copied = ingest.offset();
    let rest = whole.read(copied, whole.size().saturating_sub(copied));
    let mut bytes = rest.await.map_err(CacheError::from)?;
    while let Some(chunk) = bytes.try_next().await.map_err(CacheError::from)? {
        ingest.write(chunk).await?;
    }
    ingest.commit(Some(whole.size()), Some(expected)).await?;
    Ok(())
}
