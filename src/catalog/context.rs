//! Which catalog an error is of, and how what its database says becomes one
//! that a caller can act on.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use sqlx::migrate::MigrateError;

use super::CatalogError;

/// What a database's own error comes to.
type Translate = fn(&Context, sqlx::Error) -> CatalogError;

/// Names the catalog in errors.
#[derive(Clone)]
pub(super) struct Context {
    name: Arc<str>,
    translate: Translate,
}

impl Context {
    /// Of the catalog with that name: a path, or an address without secrets.
    pub(super) fn new(name: String, translate: Translate) -> Self {
        Self {
            name: name.into(),
            translate,
        }
    }

    pub(super) fn name(&self) -> String {
        self.name.to_string()
    }

    pub(super) fn corrupt(&self, detail: impl ToString) -> CatalogError {
        CatalogError::Corrupt {
            path: self.name(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn other(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> CatalogError {
        CatalogError::Other {
            path: self.name(),
            source: source.into().into(),
        }
    }

    pub(super) fn unavailable(&self, why: impl ToString) -> CatalogError {
        CatalogError::Unavailable {
            path: self.name(),
            why: why.to_string(),
        }
    }

    /// A count as a database's signed integer.
    pub(super) fn integer(&self, count: u64) -> Result<i64, CatalogError> {
        i64::try_from(count).map_err(|error| self.other(error))
    }

    /// The same, as it was read.
    pub(super) fn count(&self, number: i64) -> Result<u64, CatalogError> {
        u64::try_from(number).map_err(|error| self.corrupt(error))
    }

    pub(super) fn of(&self, error: sqlx::Error) -> CatalogError {
        (self.translate)(self, error)
    }

    pub(super) fn of_migration(&self, error: MigrateError) -> CatalogError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                self.of(error)
            }
            MigrateError::VersionMissing(_) => CatalogError::Newer(self.name()),
            MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => self.corrupt(error),
            error => self.other(error),
        }
    }

    /// Runs work that would hold a runtime thread up.
    pub(super) async fn blocking<T, F>(&self, work: F) -> Result<T, CatalogError>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::from)
            .and_then(|done| done)
            .map_err(|error| self.other(error))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.name).finish()
    }
}
