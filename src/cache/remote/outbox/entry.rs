//! A waiting export on disk: a folder that appears by a rename.
//!
//! `outbox/<time>-<random>/` holds `export.json`, `manifest.json` and
//! `config.json`, as the client wrote the last two. The first is locked by the
//! process that brings it to the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::blobs::BlobError;
use crate::cache::wire::{self, Malformed, v1};
use crate::cache::{CacheError, Document, Publication};
use crate::digest::Digest;
use crate::place::Place;
use crate::step::Step;

const FOLDER: &str = "outbox";
/// Folders in the making.
const NEW: &str = ".new-";
const EXPORT: &str = "export.json";
const MANIFEST: &str = "manifest.json";
const CONFIG: &str = "config.json";

/// The folder of all that wait.
pub(super) struct Shelf {
    dir: PathBuf,
}

/// One that waits, locked by this process.
pub(super) struct Entry {
    /// Of its folder; in the order of time.
    pub(super) name: String,
    pub(super) written_at: Timestamp,
    pub(super) export: Publication,
    /// The size of each layer that it names, in bytes.
    pub(super) blobs: BTreeMap<Digest, u64>,
    _lock: File,
}

/// What `export.json` says.
#[derive(Serialize, Deserialize)]
struct Written {
    project: String,
    git_ref: String,
    scope: String,
    builder: String,
    written_at: Timestamp,
    uploaded: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, u64>,
    steps: Vec<WrittenStep>,
}

#[derive(Serialize, Deserialize)]
struct WrittenStep {
    record: String,
    created_at_ns: i64,
    name: String,
    duration_ms: u64,
    builder: Option<String>,
    daemon: Option<String>,
}

impl Shelf {
    /// Makes the folder, for this user alone.
    pub(super) async fn open(data_dir: &Path) -> Result<Self, CacheError> {
        let dir = data_dir.join(FOLDER);
        let made = dir.clone();
        blocking(&dir, move || {
            use std::os::unix::fs::DirBuilderExt as _;
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&made)
        })
        .await?;
        Ok(Self { dir })
    }

    /// Whether it takes anything.
    pub(super) async fn probe(&self) -> Result<(), CacheError> {
        let dir = self.dir.clone();
        blocking(&self.dir, move || {
            tempfile::Builder::new()
                .prefix(NEW)
                .tempdir_in(dir)
                .map(drop)
        })
        .await
    }

    /// Writes an export down, durably.
    pub(super) async fn write(
        &self,
        export: Publication,
        blobs: BTreeMap<Digest, u64>,
    ) -> Result<Entry, CacheError> {
        let dir = self.dir.clone();
        blocking(&self.dir, move || write(&dir, export, blobs)).await
    }

    /// Those that nobody owns, the oldest first. What can't be read is left,
    /// and told.
    pub(super) async fn abandoned(&self) -> Result<Vec<Entry>, CacheError> {
        let dir = self.dir.clone();
        blocking(&self.dir, move || abandoned(&dir)).await
    }

    /// Removes one that is done.
    pub(super) async fn remove(&self, entry: &Entry) -> Result<(), CacheError> {
        let folder = self.dir.join(&entry.name);
        blocking(&self.dir, move || fs::remove_dir_all(folder)).await
    }
}

async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CacheError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| Err(stopped.into()))
        .map_err(|source| {
            CacheError::Blob(match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    BlobError::Full(dir.display().to_string())
                }
                io::ErrorKind::ReadOnlyFilesystem => BlobError::ReadOnly(dir.display().to_string()),
                _ => BlobError::Io {
                    context: format!("outbox {}", dir.display()),
                    source,
                },
            })
        })
}

fn write(dir: &Path, export: Publication, blobs: BTreeMap<Digest, u64>) -> io::Result<Entry> {
    let written_at = Timestamp::now();
    let written = Written {
        project: export.place.project.to_string(),
        git_ref: export.place.git_ref.to_string(),
        scope: export.place.scope.to_string(),
        builder: export.builder.clone(),
        written_at,
        uploaded: export.uploaded.clone(),
        blobs: blobs.clone(),
        steps: export.steps.iter().map(WrittenStep::from).collect(),
    };
    let making = tempfile::Builder::new().prefix(NEW).tempdir_in(dir)?;
    put(&making.path().join(MANIFEST), &export.manifest.bytes)?;
    put(&making.path().join(CONFIG), &export.config.bytes)?;
    let lock = put(&making.path().join(EXPORT), &serde_json::to_vec(&written)?)?;
    // Before anybody can see it.
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    File::open(making.path())?.sync_all()?;
    let random: u32 = rand::random();
    let name = format!("{:020}-{random:08x}", written_at.as_nanosecond());
    fs::rename(making.path(), dir.join(&name))?;
    // Nothing is left to be removed under the old name.
    let _ = making.keep();
    File::open(dir)?.sync_all()?;
    Ok(Entry {
        name,
        written_at,
        export,
        blobs,
        _lock: lock,
    })
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

fn abandoned(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        let Ok(name) = folder.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        match read(&folder.path(), name) {
            Ok(entry) => entries.extend(entry),
            Err(error) => {
                tracing::warn!(folder = %folder.path().display(), %error, "an export in the outbox can't be read");
            }
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// `None` where another process owns it, or has just finished it.
fn read(folder: &Path, name: String) -> io::Result<Option<Entry>> {
    let path = folder.join(EXPORT);
    let mut lock = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    if !path.exists() {
        return Ok(None);
    }
    let mut text = Vec::new();
    lock.read_to_end(&mut text)?;
    let written: Written = serde_json::from_slice(&text)?;
    let document = |name| fs::read(folder.join(name)).map(|bytes| Document::new(bytes.into()));
    let (manifest, config) = (document(MANIFEST)?, document(CONFIG)?);
    let (written_at, blobs) = (written.written_at, written.blobs.clone());
    let export = written
        .publication(manifest, config)
        .map_err(io::Error::other)?;
    Ok(Some(Entry {
        name,
        written_at,
        export,
        blobs,
        _lock: lock,
    }))
}

impl Written {
    fn publication(self, manifest: Document, config: Document) -> Result<Publication, Malformed> {
        let steps = self.steps.into_iter().map(v1::Step::from);
        Ok(Publication {
            place: Place {
                project: wire::project(&self.project)?,
                git_ref: wire::git_ref(&self.git_ref)?,
                scope: wire::scope(&self.scope)?,
            },
            builder: wire::short("builder", self.builder)?,
            manifest,
            config,
            uploaded: self.uploaded,
            steps: wire::steps(steps.collect())?,
            readable: None,
        })
    }
}

impl From<&Step> for WrittenStep {
    fn from(step: &Step) -> Self {
        let step = v1::Step::from(step);
        let (builder, daemon) = match step.origin {
            Some(origin) => (Some(origin.builder), origin.daemon),
            None => (None, None),
        };
        Self {
            record: step.record,
            created_at_ns: step.created_at_ns,
            name: step.name,
            duration_ms: step.duration_ms,
            builder,
            daemon,
        }
    }
}

impl From<WrittenStep> for v1::Step {
    fn from(step: WrittenStep) -> Self {
        let daemon = step.daemon;
        Self {
            record: step.record,
            created_at_ns: step.created_at_ns,
            name: step.name,
            duration_ms: step.duration_ms,
            origin: step.builder.map(|builder| v1::Origin { builder, daemon }),
        }
    }
}
