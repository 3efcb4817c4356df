//! The files of a tier's blobs, which other processes use too: a lock on one
//! keeps it there, and goes with its holder however that ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use crate::digest::Digest;

/// Every blob of a folder, with its size and when it was used.
pub(super) fn files(folder: &Path) -> io::Result<Vec<(Digest, u64, SystemTime)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(Ok(digest)) = name.to_str().map(Digest::from_hex) else {
            continue;
        };
        match entry.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            metadata => {
                let metadata = metadata?;
                found.push((digest, metadata.len(), metadata.modified()?));
            }
        }
    }
    Ok(found)
}

/// Opens a file and keeps other processes from removing it; `None` where there
/// is none.
pub(super) fn lock_shared(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.lock_shared()?;
    // Whoever had the lock may have removed the file.
    Ok(path.exists().then_some(file))
}

/// Removes a file unless a process has pinned it; `false` where it is gone.
pub(super) fn remove_unpinned(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}
