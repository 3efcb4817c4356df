//! What can go wrong with a catalog, by what a caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use crate::units::Age;

/// What can go wrong with the catalog. It is named by its file or by host and
/// database, never with a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// Another process has held the lock for too long; later may do.
    #[error("the catalog {0} is locked by another process")]
    Busy(String),
    /// The catalog takes no writes.
    #[error("the catalog {0} is read-only")]
    ReadOnly(String),
    /// No space is left.
    #[error("no space left for the catalog {0}")]
    Full(String),
    /// What is there can't be read as a catalog.
    #[error("the catalog {path} is damaged: {detail}")]
    Corrupt {
        /// The file, or the database.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It can't be reached; later may do.
    #[error("the catalog {path} can't be reached: {why}")]
    Unavailable {
        /// The database.
        path: String,
        /// What was tried, and what came of it.
        why: String,
    },
    /// What was given can't be used as the address of a catalog.
    #[error("the catalog's URL can't be used: {0}")]
    InvalidUrl(String),
    /// A newer layerd wrote it.
    #[error("the catalog {0} was written by a newer layerd; use that version or a later one")]
    Newer(String),
    /// The place of an export was flushed after its build began.
    #[error("{what} was flushed {} by {by}, after this build began: its export would bring that back", Age(*.ago))]
    Flushed {
        /// What was flushed.
        what: String,
        /// By whom, as people know them.
        by: String,
        /// How long ago.
        ago: Duration,
    },
    /// Anything else from below.
    #[error("the catalog {path}: {source}")]
    Other {
        /// The file, or the database.
        path: String,
        /// What the database said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}
