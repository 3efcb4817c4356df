//! Who does a background task: whoever has its file locked.
//!
//! The kernel lets go of the lock when the file is closed, so that a process
//! that dies owns nothing. The file stays: removing it would let two processes
//! lock two files of one name.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::SqliteCatalog;
use crate::catalog::ownership::is_task;
use crate::catalog::{CatalogError, Ownership};

impl SqliteCatalog {
    pub(super) async fn own(&self, task: &str) -> Result<Option<Ownership>, CatalogError> {
        self.writers()?;
        if !is_task(task) {
            return Err(self.context.other(format!("{task:?} is no name of a task")));
        }
        let file = self.file.with_added_extension(format!("{task}.lock"));
        let locked = self.context.blocking(move || lock(&file)).await?;
        Ok(locked.map(|file| Ownership::new(CancellationToken::new(), file)))
    }
}

/// The file, locked, unless another has it locked.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
