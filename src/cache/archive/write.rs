//! An archive on its way out.
//!
//! The documents go to a temporary file while the exports are gone through,
//! already compressed: the index, which stands before them, is known only then.
//! The layers are read once, when they are written.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Seek as _};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use serde::Serialize;

use super::format::{
    self, INDEX, Index, LATEST, LAYOUT, Labels, Listed, MAX_DOCUMENT_BYTES, MAX_DOCUMENTS_BYTES,
    MAX_EXPORTS, MAX_NAMED, blob_entry,
};
use super::pack::Packer;
use super::source::{Omitted, Snapshot, Source};
use super::{ArchiveError, Progress, steps};
use crate::blobs::{BlobError, BlobStream};
use crate::cache::{CacheError, Document};
use crate::digest::{Digest, Hasher};

/// Layers that are opened ahead: a bucket takes its time to begin.
const OPENED_AHEAD: usize = 4;

/// What is in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Exports.
    pub exports: usize,
    /// Layers, each once.
    pub layers: usize,
    /// Bytes of those, before they are compressed again.
    pub bytes: u64,
    /// What did not come along.
    pub omitted: Vec<Omitted>,
}

/// Writes all exports of `source` to the end of `out`, and gives that back;
/// nothing is flushed to the disk. A layer that is not what it should be is an
/// error: what was written until then is no archive.
pub async fn export(
    source: &mut dyn Source,
    out: File,
    progress: &Progress,
) -> Result<(File, Exported), ArchiveError> {
    let mut gathered = Gathered::begin()?;
    while let Some(snapshot) = source.next().await? {
        gathered.add(snapshot).await?;
    }
    let omitted = source.omitted().to_vec();
    let Gathered {
        documents,
        mut listed,
        layers,
        ..
    } = gathered;
    let Some(newest) = listed.last_mut() else {
        let why = match omitted.first() {
            None => "no export is there that was asked for".to_owned(),
            Some(Omitted { export, why }) => format!("export {export}: {why}"),
        };
        return Err(ArchiveError::Empty(why));
    };
    newest.rename(LATEST);
    let exported = Exported {
        exports: listed.len(),
        layers: layers.len(),
        bytes: layers.iter().map(|(_, size)| size).sum(),
        omitted,
    };
    progress.expect(exported.bytes);

    let mut head = Packer::begin(out)?;
    head.whole(LAYOUT, format::layout().into()).await?;
    head.whole(INDEX, Index::new(listed).to_json()?.into())
        .await?;
    let out = append(head.finish().await?, documents.finish().await?).await?;
    let mut tail = Packer::begin(out)?;
    let source: &dyn Source = source;
    let opening = |(digest, size)| async move { (digest, size, source.read(&digest).await) };
    let mut opened = stream::iter(layers).map(opening).buffered(OPENED_AHEAD);
    while let Some((digest, size, bytes)) = opened.next().await {
        layer(&mut tail, (digest, size), bytes?, progress).await?;
    }
    drop(opened);
    tail.end().await?;
    Ok((tail.finish().await?, exported))
}

/// What is known once all exports are gone through.
struct Gathered {
    documents: Packer,
    documents_bytes: u64,
    listed: Vec<Listed>,
    written: HashSet<Digest>,
    /// In the order in which exports name them.
    layers: Vec<(Digest, u64)>,
    known: HashSet<Digest>,
    named: usize,
}

impl Gathered {
    fn begin() -> Result<Self, ArchiveError> {
        let file = tempfile::tempfile().map_err(ArchiveError::io("making a temporary file"))?;
        Ok(Self {
            documents: Packer::begin(file)?,
            documents_bytes: 0,
            listed: Vec::new(),
            written: HashSet::new(),
            layers: Vec::new(),
            known: HashSet::new(),
            named: 0,
        })
    }

    async fn add(&mut self, snapshot: Snapshot) -> Result<(), ArchiveError> {
        let steps = steps::document(&snapshot.steps)?;
        let labels = Labels {
            place: snapshot.place,
            time: Some(snapshot.time),
            builder: snapshot.builder,
            steps: steps
                .as_ref()
                .map(|steps| (steps.digest, steps.bytes.len() as u64)),
        };
        let manifest = format::manifest(&snapshot.config, &snapshot.layers, &labels)?;
        if self.written.contains(&manifest.digest) {
            // The same one, twice in the log.
            return Ok(());
        }
        self.listed.push(Listed::new(&manifest, snapshot.name));
        for document in [Some(manifest), steps, Some(snapshot.config)] {
            self.document(document).await?;
        }
        let mut own = HashSet::new();
        for layer in &snapshot.layers {
            self.named += usize::from(own.insert(layer.digest));
            if self.known.insert(layer.digest) {
                self.layers.push((layer.digest, layer.size));
            }
        }
        if self.listed.len() > MAX_EXPORTS || self.named > MAX_NAMED {
            return Err(ArchiveError::TooMuch(format!(
                "more than {MAX_EXPORTS} exports, or more than {MAX_NAMED} layers that they name; take a part of them (--project, --ref)"
            )));
        }
        Ok(())
    }

    async fn document(&mut self, document: Option<Document>) -> Result<(), ArchiveError> {
        let Some(Document { digest, bytes }) = document else {
            return Ok(());
        };
        if !self.written.insert(digest) {
            return Ok(());
        }
        let size = bytes.len() as u64;
        self.documents_bytes += size;
        if size > MAX_DOCUMENT_BYTES || self.documents_bytes > MAX_DOCUMENTS_BYTES {
            return Err(ArchiveError::TooMuch(format!(
                "a document of {size} bytes, or all of them together; take a part of the exports (--project, --ref)"
            )));
        }
        self.documents.whole(&blob_entry(&digest), bytes).await
    }
}

/// Puts a part that is done behind `out`.
async fn append(mut out: File, mut part: File) -> Result<File, ArchiveError> {
    let appended = tokio::task::spawn_blocking(move || {
        part.rewind()?;
        io::copy(&mut part, &mut out)?;
        Ok(out)
    });
    let appended = appended.await.unwrap_or_else(|stopped| Err(stopped.into()));
    appended.map_err(ArchiveError::io("writing the archive"))
}

/// Writes one, and looks whether it is what it should be.
async fn layer(
    packer: &mut Packer,
    (digest, size): (Digest, u64),
    mut bytes: BlobStream,
    progress: &Progress,
) -> Result<(), ArchiveError> {
    packer.entry(&blob_entry(&digest), size).await?;
    let mut hasher = Hasher::default();
    let mut actual_size = 0;
    while let Some(chunk) = bytes.next().await {
        let chunk: Bytes = chunk?;
        actual_size += chunk.len() as u64;
        if actual_size > size {
            break;
        }
        hasher.update(&chunk);
        progress.add(chunk.len() as u64);
        packer.bytes(chunk).await?;
    }
    if actual_size != size {
        return Err(rotten(
            &digest,
            BlobError::WrongSize {
                expected: size,
                actual: actual_size,
            },
        ));
    }
    match hasher.finish() {
        actual if actual == digest => Ok(()),
        actual => Err(rotten(
            &digest,
            BlobError::WrongDigest {
                expected: digest,
                actual,
            },
        )),
    }
}

fn rotten(digest: &Digest, error: BlobError) -> ArchiveError {
    tracing::error!(blob = %digest, "a layer has rotted: layerd cache fsck tells which exports need it; once its file is removed, they are left out");
    ArchiveError::Cache(CacheError::from(error))
}
