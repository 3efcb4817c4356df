//! What SQLite said, as what a caller can act on.
//!
//! The numbers are SQLite's result codes (sqlite.org/rescode.html); the low
//! byte of an extended code is the primary one.

use std::path::Path;

use super::open::Refusal;
use crate::catalog::CatalogError;
use crate::catalog::context::Context;

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

/// A context whose errors are SQLite's.
pub(super) fn context(path: &Path) -> Context {
    Context::new(path.display().to_string(), translate)
}

/// Why it takes no writes.
pub(super) fn refused(context: &Context, refusal: Refusal) -> CatalogError {
    match refusal {
        Refusal::ReadOnly => CatalogError::ReadOnly(context.name()),
        Refusal::Full => CatalogError::Full(context.name()),
    }
}

fn translate(context: &Context, error: sqlx::Error) -> CatalogError {
    match code(&error) {
        // Every connection is in use by writers that wait for the lock.
        _ if matches!(error, sqlx::Error::PoolTimedOut) => CatalogError::Busy(context.name()),
        Some(code) => match (code, code & 0xff) {
            (IOERR_SHMSIZE, _) | (_, FULL) => CatalogError::Full(context.name()),
            (_, BUSY | LOCKED) => CatalogError::Busy(context.name()),
            (_, READONLY | PERM) => CatalogError::ReadOnly(context.name()),
            (_, CORRUPT | NOTADB) => context.corrupt(error),
            _ => context.other(error),
        },
        None => context.other(error),
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
