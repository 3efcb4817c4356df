//! Blobs as files of one directory, shared by any number of processes.
//!
//! A blob is `blobs/sha256/<hex>`; what is still being written is a file under
//! `ingest/`, held by a `flock` for as long as its writer lives. A blob appears
//! by a rename after its bytes are flushed, so that a crash at any moment
//! leaves either the whole blob or a file in `ingest/` that can be resumed.

pub(super) mod errors;
mod ingest;
mod layout;
mod named;
mod read;
mod scratch;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;

use self::errors::{blocking, read_failed, write_failed};
pub(super) use self::ingest::DiskIngest;
use self::layout::Layout;
pub use self::scratch::UnfinishedIngest;
use super::{
    BlobError, BlobStore, BlobStream, Generation, Ingest, Location, StoreId, Taken, Version,
};
use crate::digest::Digest;

/// How many entries of a listing wait for the reader.
const LISTED_AHEAD: usize = 1024;

/// The blobs of one data directory.
#[derive(Clone, Debug)]
pub struct DiskStore {
    layout: Arc<Layout>,
}

impl DiskStore {
    /// Names the store in `dir` without touching it: enough to read and check
    /// one that exists.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            layout: Arc::new(Layout::new(dir.into())),
        }
    }

    /// Opens the store in `dir`, creates what is missing (`dir` itself for this
    /// user alone), and sweeps away what dead writers left and nobody can or
    /// will resume. A directory that
    /// exists but takes no writes, or is full, opens for reading.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let store = Self::at(dir);
        let layout = Arc::clone(&store.layout);
        blocking(move || match prepare(&layout) {
            Err(BlobError::ReadOnly(_) | BlobError::Full(_)) if layout.root().is_dir() => Ok(()),
            prepared => prepared,
        })
        .await?;
        Ok(store)
    }

    /// [`BlobStore::ingest`], as what it is here: a file that grows.
    pub(super) async fn open_ingest(&self, name: &str) -> Result<DiskIngest, BlobError> {
        let (layout, name) = (Arc::clone(&self.layout), Digest::of(name.as_bytes()));
        blocking(move || DiskIngest::open(layout, name)).await
    }

    /// The file of a blob, whether it is there or not.
    pub(super) fn file(&self, digest: &Digest) -> PathBuf {
        self.layout.blob(digest)
    }

    /// Removes what was left behind and will not be resumed any more.
    pub async fn sweep(&self) -> Result<(), BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || {
            scratch::sweep(&layout).map_err(|error| write_failed(error, "sweep", &layout.ingests()))
        })
        .await
    }

    /// Removes all that was left behind, however lately; gives how many.
    pub async fn clear_unfinished(&self) -> Result<u64, BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || {
            scratch::clear(&layout).map_err(|error| write_failed(error, "sweep", &layout.ingests()))
        })
        .await
    }

    /// What is in the making or was left behind, in no order.
    pub async fn unfinished(&self) -> Result<Vec<UnfinishedIngest>, BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || {
            scratch::unfinished(&layout)
                .map_err(|error| read_failed(error, "list", &layout.ingests()))
        })
        .await
    }
}

/// Changes that come sooner after one another may have one time.
const TICK: Duration = Duration::from_millis(100);

/// Creates the directories and sweeps.
fn prepare(layout: &Layout) -> Result<(), BlobError> {
    create(layout)?;
    scratch::sweep(layout).map_err(|error| write_failed(error, "sweep", &layout.ingests()))
}

/// Creates the directories that are missing, durably.
fn create(layout: &Layout) -> Result<(), BlobError> {
    let failed = |error| write_failed(error, "create", layout.root());
    create_private(layout.root()).map_err(failed)?;
    fs::create_dir_all(layout.blobs()).map_err(failed)?;
    fs::create_dir_all(layout.ingests()).map_err(failed)?;
    for dir in layout.parents() {
        sync_dir(&dir).map_err(|error| write_failed(error, "flush", layout.root()))?;
    }
    Ok(())
}

/// Creates a directory for this user alone: what builds leave in their layers
/// is not for everyone. One that exists keeps the mode that it was given.
fn create_private(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        // Another process was faster, or a file stands there: what is made
        // inside next tells.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Does it, and where directories are gone, once more with new ones.
fn with_directories<T>(layout: &Layout, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match work() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !layout.exists() => {
            // What keeps them from being made is told by the work itself.
            create(layout).ok();
            work()
        }
        done => done,
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn stat(layout: &Layout, digest: &Digest) -> Result<Option<u64>, BlobError> {
    let path = layout.blob(digest);
    match fs::metadata(&path) {
        Ok(found) => Ok(found.is_file().then_some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_failed(error, "look at", &path)),
    }
}

/// A blob is stored anew as a file of its own. The number of a file that is gone
/// may be given to the next one, at another time.
fn version(file: &fs::Metadata) -> Version {
    let (dev, ino) = (file.dev(), file.ino());
    let written = (file.mtime(), file.mtime_nsec());
    let changed = (file.ctime(), file.ctime_nsec());
    Version::new(format!("{dev} {ino} {written:?} {changed:?}"))
}

#[async_trait]
impl BlobStore for DiskStore {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let (layout, digest) = (Arc::clone(&self.layout), *digest);
        blocking(move || stat(&layout, &digest)).await
    }

    async fn version(&self, digest: &Digest) -> Result<Option<Version>, BlobError> {
        let path = self.layout.blob(digest);
        blocking(move || match fs::metadata(&path) {
            Ok(found) => Ok(found.is_file().then(|| version(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(read_failed(error, "look at", &path)),
        })
        .await
    }

    async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        let (layout, digests) = (Arc::clone(&self.layout), digests.to_vec());
        blocking(move || digests.iter().map(|digest| stat(&layout, digest)).collect()).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        read::open(Arc::clone(&self.layout), *digest, offset, length).await
    }

    async fn ingest(
        &self,
        name: &str,
        _expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, BlobError> {
        let ingest = self.open_ingest(name).await?;
        Ok(Box::new(ingest))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.layout.blob(digest);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| write_failed(error, "remove", &path)),
        })
        .await
    }

    async fn persist(&self) -> Result<(), BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || {
            sync_dir(&layout.blobs()).map_err(|error| write_failed(error, "flush", layout.root()))
        })
        .await
    }

    async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<(Digest, u64), BlobError>>, BlobError> {
        let layout = Arc::clone(&self.layout);
        let (entries, listed) = mpsc::channel(LISTED_AHEAD);
        // Ends by itself once the stream is dropped: a send then fails.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = list_into(&layout, &entries) {
                entries
                    .blocking_send(Err(read_failed(error, "list", &layout.blobs())))
                    .ok();
            }
        });
        Ok(stream::unfold(listed, |mut listed| async {
            listed.recv().await.map(|entry| (entry, listed))
        })
        .boxed())
    }

    async fn generation(&self) -> Option<Generation> {
        let directory = tokio::fs::metadata(self.layout.blobs()).await.ok()?;
        let age = directory.modified().ok()?.elapsed().ok()?;
        (age > TICK).then(|| {
            Generation::new(
                (directory.dev(), directory.ino()),
                (directory.mtime(), directory.mtime_nsec()),
            )
        })
    }

    async fn ready(&self) -> Result<(), BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || {
            fs::read_dir(layout.blobs())
                .map(drop)
                .map_err(|error| read_failed(error, "open", &layout.blobs()))
        })
        .await
    }

    /// Writes and removes a small file; directories that were removed
    /// meanwhile are made anew.
    async fn probe(&self) -> Result<(), BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || {
            if !layout.exists() {
                create(&layout)?;
            }
            scratch::probe(&layout).map_err(|error| write_failed(error, "write to", layout.root()))
        })
        .await
    }

    async fn id(&self) -> Result<Option<StoreId>, BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || named::read(&layout)).await
    }

    async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        let layout = Arc::clone(&self.layout);
        blocking(move || named::take(&layout, id, taken)).await
    }

    async fn locate(&self, _: &Digest, _: Duration) -> Result<Option<Location>, BlobError> {
        Ok(None)
    }
}

/// Sends every blob until all are sent or nobody listens. Names that are no
/// digest are none of ours.
fn list_into(
    layout: &Layout,
    entries: &mpsc::Sender<Result<(Digest, u64), BlobError>>,
) -> io::Result<()> {
    let dir = match fs::read_dir(layout.blobs()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    for entry in dir {
        let entry = entry?;
        let Some(digest) = entry
            .file_name()
            .to_str()
            .and_then(|name| Digest::from_hex(name).ok())
        else {
            continue;
        };
        let found = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        if found.is_file() && entries.blocking_send(Ok((digest, found.len()))).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
