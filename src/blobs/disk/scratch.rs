//! Files under `ingest/`: who may write one, and who clears it away.
//!
//! The right to write, rename or remove such a file is its `flock`, which the
//! system gives back when its holder dies, however it dies. A lock belongs to
//! the file and not to its name, and a holder renames its file when it
//! commits: so whoever gets a lock looks again whether the name still means
//! that file, before believing that it may write.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::layout::{Layout, is_named};
use super::with_directories;
use crate::digest::Digest;

/// How long an unfinished ingest waits for its writer to come back.
const RESUMABLE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A file of `ingest/` whose lock is held here.
#[derive(Debug)]
pub(super) struct Scratch {
    file: File,
    path: PathBuf,
    resumable: bool,
}

impl Scratch {
    /// The file of that name; while another writer has it, a private one.
    pub(super) fn open(layout: &Layout, name: &Digest) -> io::Result<Self> {
        let path = layout.named(name);
        if let Claim::Held(file) = claim(&path, true)? {
            return Ok(Self {
                file,
                path,
                resumable: true,
            });
        }
        Self::private(layout, name)
    }

    fn private(layout: &Layout, name: &Digest) -> io::Result<Self> {
        loop {
            let path = layout.private(name);
            // A sweep may take the file between its creation and the lock.
            if let Claim::Held(file) = claim(&path, true)? {
                return Ok(Self {
                    file,
                    path,
                    resumable: false,
                });
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file to its place among the blobs.
    pub(super) fn publish(mut self, layout: &Layout, digest: &Digest) -> io::Result<()> {
        let blob = layout.blob(digest);
        with_directories(layout, || fs::rename(&self.path, &blob))?;
        // From here on the name in `ingest/` is nobody's, or another writer's.
        self.resumable = true;
        Ok(())
    }

    /// Removes the file.
    pub(super) fn discard(mut self) -> io::Result<()> {
        self.resumable = true;
        fs::remove_file(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.resumable {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// What came of asking for a file's lock.
enum Claim {
    Held(File),
    /// Another writer lives.
    Taken,
    /// There is no such file.
    Gone,
}

fn claim(path: &Path, create: bool) -> io::Result<Claim> {
    loop {
        let file = match OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)
        {
            Err(error) if error.kind() == ErrorKind::NotFound && !create => return Ok(Claim::Gone),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Claim::Taken),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if still_named(&file, path)? {
            return Ok(Claim::Held(file));
        }
    }
}

fn still_named(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |found: Metadata| (found.dev(), found.ino());
    match fs::metadata(path) {
        Ok(named) => Ok(identity(named) == identity(file.metadata()?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes private files of writers that died, and named ones that nobody came
/// back for.
pub(super) fn sweep(layout: &Layout) -> io::Result<()> {
    let now = SystemTime::now();
    for found in unfinished(layout)? {
        let age = now.duration_since(found.updated_at).unwrap_or_default();
        if found.in_use || (found.resumable && age < RESUMABLE_FOR) {
            continue;
        }
        // Asked for again: since the listing a writer may have come.
        if let Claim::Held(_lock) = claim(&found.path, false)? {
            fs::remove_file(&found.path)?;
        }
    }
    Ok(())
}

/// Removes all that nobody writes to now; gives how many.
pub(super) fn clear(layout: &Layout) -> io::Result<u64> {
    let mut cleared = 0;
    for found in unfinished(layout)? {
        if let Claim::Held(_lock) = claim(&found.path, false)? {
            fs::remove_file(&found.path)?;
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// A file of `ingest/`: a blob in the making, or what was left of one.
#[derive(Clone, Debug)]
pub struct UnfinishedIngest {
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes came.
    pub size: u64,
    /// When the last byte came.
    pub updated_at: SystemTime,
    /// Whether its writer lives.
    pub in_use: bool,
    /// Whether a writer of the same name would go on with it.
    pub resumable: bool,
}

/// Every file of `ingest/`, in no order.
pub(super) fn unfinished(layout: &Layout) -> io::Result<Vec<UnfinishedIngest>> {
    let dir = match fs::read_dir(layout.ingests()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        dir => dir?,
    };
    let mut all = Vec::new();
    for entry in dir {
        let path = entry?.path();
        let resumable = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_named);
        // A shared lock would do as a test, but would look like a writer to one
        // that comes right now; it would go private, which is harmless.
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        let found = file.metadata()?;
        if found.is_file() {
            let in_use = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
            all.push(UnfinishedIngest {
                path,
                size: found.len(),
                updated_at: found.modified()?,
                in_use,
                resumable,
            });
        }
    }
    Ok(all)
}

/// Writes and removes a private file.
pub(super) fn probe(layout: &Layout) -> io::Result<()> {
    let scratch = Scratch::private(layout, &Digest::of(b"probe"))?;
    scratch.file().write_all(&[0; 4096])?;
    scratch.discard()
}
