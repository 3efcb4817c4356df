//! The folders of exports that wait, and of those that were put aside.
//!
//! `outbox/<time>-<random>/` appears by a rename, and goes by one: to
//! `outbox-refused/` where the hub will never take it, so that an operator sees
//! it there with the reason in `why.txt`, or to a hidden name under which it is
//! removed. A process that is killed in between leaves what waits whole, and
//! what is half made or half gone hidden. Moved back to `outbox/`, a refused one
//! is tried again.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::entry::{self, Draft, EXPORT, Entry};
use crate::blobs::BlobError;
use crate::cache::{CacheError, Publication};

const FOLDER: &str = "outbox";
const REFUSED: &str = "outbox-refused";
/// Why an export was put aside.
const WHY: &str = "why.txt";
/// Folders in the making, and on their way out.
const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// How many that were put aside are kept, and for how long.
const MAX_REFUSED: usize = 100;
const REFUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Nobody takes longer to make a folder.
const MAKING: Duration = Duration::from_secs(3600);

/// The folders.
pub(super) struct Shelf {
    dir: PathBuf,
    refused: PathBuf,
}

/// What was found on the shelf.
#[derive(Default)]
pub(super) struct Found {
    /// What nobody owns, the oldest first.
    pub(super) entries: Vec<Entry>,
    /// How many could not be read, and were put aside.
    pub(super) unreadable: usize,
    /// How many that were put aside are kept.
    pub(super) refused: usize,
}

impl Shelf {
    /// Makes the folder, for this user alone.
    pub(super) async fn open(data_dir: &Path) -> Result<Self, CacheError> {
        let shelf = Self {
            dir: data_dir.join(FOLDER),
            refused: data_dir.join(REFUSED),
        };
        let dir = shelf.dir.clone();
        shelf.work(move || make(&dir)).await?;
        Ok(shelf)
    }

    /// Whether it takes anything.
    pub(super) async fn probe(&self) -> Result<(), CacheError> {
        let dir = self.dir.clone();
        let probed = move || tempfile::Builder::new().prefix(NEW).tempdir_in(dir);
        self.work(move || probed().map(drop)).await
    }

    /// Writes an export down, durably.
    pub(super) async fn write(&self, draft: Draft) -> Result<Entry, CacheError> {
        let dir = self.dir.clone();
        self.work(move || write(&dir, draft)).await
    }

    /// Looks through all that is there. What can't be read is put aside, what
    /// killed processes left is removed, and of what was put aside the oldest
    /// goes.
    pub(super) async fn look(&self) -> Result<Found, CacheError> {
        let (dir, refused) = (self.dir.clone(), self.refused.clone());
        self.work(move || {
            let mut found = look(&dir, &refused)?;
            found.refused = trim(&refused)?;
            Ok(found)
        })
        .await
    }

    /// All of an export; [`CacheError::Refused`] where it never can be read.
    pub(super) async fn load(&self, entry: &Entry) -> Result<Publication, CacheError> {
        let folder = self.dir.join(&entry.name);
        let read = self.work(move || {
            Ok(match entry::read_whole(&folder) {
                Err(error) if is_final(&error) => Err(CacheError::Refused(format!(
                    "it can't be read on this disk: {error}"
                ))),
                read => Ok(read?),
            })
        });
        read.await?
    }

    /// Removes one that is done.
    pub(super) async fn remove(&self, entry: &Entry) -> Result<(), CacheError> {
        let (dir, name) = (self.dir.clone(), entry.name.clone());
        self.work(move || remove(&dir, &name)).await
    }

    /// Puts one aside, and says why. Gives how many are kept there.
    pub(super) async fn put_aside(&self, entry: &Entry, why: String) -> Result<usize, CacheError> {
        let (dir, refused) = (self.dir.clone(), self.refused.clone());
        let name = entry.name.clone();
        self.work(move || {
            put_aside(&dir, &refused, &name, &why)?;
            trim(&refused)
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, CacheError> {
        let done = tokio::task::spawn_blocking(work).await;
        let shown = || self.dir.display();
        done.unwrap_or_else(|stopped| Err(stopped.into()))
            .map_err(|source| {
                CacheError::Blob(match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        BlobError::Full(shown().to_string())
                    }
                    io::ErrorKind::ReadOnlyFilesystem => BlobError::ReadOnly(shown().to_string()),
                    _ => BlobError::Io {
                        context: format!("outbox {}", shown()),
                        source,
                    },
                })
            })
    }
}

fn make(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir)
}

fn write(dir: &Path, draft: Draft) -> io::Result<Entry> {
    let written_at = Timestamp::now();
    let making = tempfile::Builder::new().prefix(NEW).tempdir_in(dir)?;
    let mut entry = entry::write(making.path(), draft, written_at)?;
    let random: u32 = rand::random();
    entry.name = format!("{:020}-{random:08x}", written_at.as_nanosecond());
    fs::rename(making.path(), dir.join(&entry.name))?;
    // Nothing is left to be removed under the old name.
    let _ = making.keep();
    File::open(dir)?.sync_all()?;
    Ok(entry)
}

fn look(dir: &Path, refused: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        let Ok(name) = folder.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            clear(&folder, &name);
            continue;
        }
        match entry::read(&folder.path(), &name) {
            Ok(Some(entry)) => found.entries.push(entry),
            Ok(None) if folder.path().join(EXPORT).exists() => {}
            // One that an earlier version was killed in removing.
            Ok(None) => drop(remove(dir, &name)),
            Err(error) if is_final(&error) => {
                let why = format!("it can't be read: {error}");
                tracing::error!(name, why, "an export in the outbox is put aside");
                match put_aside(dir, refused, &name, &why) {
                    Ok(()) => found.unreadable += 1,
                    Err(error) => tracing::warn!(name, %error, "it stays in the outbox"),
                }
            }
            Err(error) => {
                tracing::warn!(name, %error, "an export in the outbox can't be read now");
            }
        }
    }
    found.entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes what a process that was killed left half made or half gone.
fn clear(folder: &DirEntry, name: &str) {
    let left = name.starts_with(OLD)
        || (name.starts_with(NEW) && age(folder).is_some_and(|age| age > MAKING));
    // Another process may be about it.
    if left && let Err(error) = fs::remove_dir_all(folder.path()) {
        tracing::debug!(name, %error, "a folder stays in the outbox");
    }
}

fn age(folder: &DirEntry) -> Option<Duration> {
    let modified = folder.metadata().and_then(|about| about.modified()).ok()?;
    SystemTime::now().duration_since(modified).ok()
}

fn remove(dir: &Path, name: &str) -> io::Result<()> {
    let old = dir.join(format!("{OLD}{name}"));
    match fs::rename(dir.join(name), &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    File::open(dir)?.sync_all()?;
    fs::remove_dir_all(old)
}

fn put_aside(dir: &Path, refused: &Path, name: &str, why: &str) -> io::Result<()> {
    make(refused)?;
    let folder = dir.join(name);
    entry::put(&folder.join(WHY), format!("{why}\n").as_bytes())?;
    let aside = refused.join(name);
    // One that was tried again, by a copy.
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(folder, aside)?;
    File::open(refused)?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Removes what was put aside too long ago, and the oldest beyond the limit.
/// Gives how many stay.
fn trim(refused: &Path) -> io::Result<usize> {
    let folders = match fs::read_dir(refused) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        folders => folders?,
    };
    let mut kept = Vec::new();
    for folder in folders {
        let path = folder?.path();
        let modified = fs::metadata(path.join(WHY)).and_then(|about| about.modified());
        kept.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), path));
    }
    kept.sort();
    let now = SystemTime::now();
    let is_old = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age > REFUSED_FOR);
    let beyond = kept.len().saturating_sub(MAX_REFUSED);
    let old = kept.iter().filter(|(at, _)| is_old(at)).count();
    for (_, path) in kept.drain(..beyond.max(old)) {
        tracing::info!(folder = %path.display(), "an export that was refused is removed");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(kept.len())
}

/// Whether reading it again would give the same.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound
    )
}
