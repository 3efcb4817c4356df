//! What SQLite said, as what a caller can act on.
//!
//! The numbers are SQLite's result codes (sqlite.org/rescode.html); the low
//! byte of an extended code is the primary one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sqlx::migrate::MigrateError;

use super::CatalogError;
use super::open::Refusal;

const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;
/// The shared memory of the write-ahead log could not be made larger.
const IOERR_SHMSIZE: i32 = 4874;

/// Names the catalog in errors.
#[derive(Clone, Debug)]
pub(super) struct Context {
    path: Arc<str>,
}

impl Context {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.display().to_string().into(),
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> CatalogError {
        match refusal {
            Refusal::ReadOnly => CatalogError::ReadOnly(self.path.to_string()),
            Refusal::Full => CatalogError::Full(self.path.to_string()),
        }
    }

    pub(super) fn corrupt(&self, detail: impl ToString) -> CatalogError {
        CatalogError::Corrupt {
            path: self.path.to_string(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn other(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CatalogError {
        CatalogError::Other {
            path: self.path.to_string(),
            source: source.into(),
        }
    }

    /// A count as SQLite's signed integer.
    pub(super) fn integer(&self, count: u64) -> Result<i64, CatalogError> {
        i64::try_from(count).map_err(|error| self.other(error))
    }

    pub(super) fn of(&self, error: sqlx::Error) -> CatalogError {
        let path = self.path.to_string();
        match code(&error) {
            // Every connection is in use by writers that wait for the lock.
            _ if matches!(error, sqlx::Error::PoolTimedOut) => CatalogError::Busy(path),
            Some(code) => match (code, code & 0xff) {
                (IOERR_SHMSIZE, _) | (_, FULL) => CatalogError::Full(path),
                (_, BUSY | LOCKED) => CatalogError::Busy(path),
                (_, READONLY | PERM) => CatalogError::ReadOnly(path),
                (_, CORRUPT | NOTADB) => self.corrupt(error),
                _ => self.other(error),
            },
            None => self.other(error),
        }
    }

    pub(super) fn of_migration(&self, error: MigrateError) -> CatalogError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                self.of(error)
            }
            MigrateError::VersionMissing(_) => CatalogError::Newer(self.path.to_string()),
            MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => self.corrupt(error),
            error => self.other(error),
        }
    }
}

/// Whether a file could not be opened at all: what a write-ahead log in a
/// directory without write access comes to.
pub(super) fn cannot_open(error: &CatalogError) -> bool {
    let CatalogError::Other { source, .. } = error else {
        return false;
    };
    source
        .downcast_ref::<sqlx::Error>()
        .and_then(code)
        .is_some_and(|code| code & 0xff == CANTOPEN)
}

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Runs work that would hold a runtime thread up.
pub(super) async fn blocking<T, F>(context: &Context, work: F) -> Result<T, CatalogError>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::from)
        .and_then(|done| done)
        .map_err(|error| context.other(error))
}
