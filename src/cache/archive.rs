//! A cache as one file: exports with their graph, their steps and their layers,
//! to be carried from a laptop to CI, from a hub to another, from one backend to
//! the next.
//!
//! The file is an OCI image layout in a tar, compressed with zstd. What stands
//! in it, in this order:
//!
//! | entry | what it is |
//! |---|---|
//! | `oci-layout` | the version of the layout |
//! | `index.json` | a descriptor for each export, the oldest first; the newest is tagged `latest`, so that BuildKit's own `type=local` finds it |
//! | `blobs/sha256/…`, small | the manifest of an export, the cache config and the steps that it names; then those of the next export |
//! | `blobs/sha256/…`, large | the layers, each once: those of the oldest export, then what the next one adds |
//!
//! A manifest is an image manifest with a cache config for a config. What the
//! image specification has no field for is annotated: the place, who built it,
//! when, and the document with its steps.
//!
//! So the file can be written to a pipe and read from one. Nothing comes that
//! was not announced before, with its size: a reader knows of each layer who
//! wants it when it begins, passes over what it has, and publishes an export
//! when the last of its layers is in. It keeps names and sizes in memory, and
//! documents in a temporary file. A layer is hashed as it passes, here and
//! there; an entry's name is compared with those that are expected, and never
//! used as a path.
//!
//! | question | file |
//! |---|---|
//! | what is in the documents, and how large may they be? | `format`, `steps` |
//! | how does the tar come and go? | `pack`, `unpack` |
//! | where do the exports come from? | `source`, `united` |
//! | what is written when? | `write` |
//! | what is still to come, and who waits for it? | `plan`, `documents` |
//! | what becomes of what comes? | `read`, `target` |
//! | is an export there already? | `known` |

mod documents;
mod format;
mod known;
mod pack;
mod plan;
mod read;
mod source;
mod steps;
mod target;
#[cfg(test)]
mod tests;
mod united;
mod unpack;
mod write;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::read::{Imported, RefusedExport, import};
pub use self::source::{Exports, Omitted, Snapshot, Source};
pub use self::target::{Rehome, Target};
pub use self::united::United;
pub use self::write::{Exported, export};
use super::CacheError;
use crate::blobs::BlobError;

/// Why an archive could not be written, or not be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It is no archive, or a damaged or hostile one.
    #[error("{0}")]
    Malformed(String),
    /// There is nothing that could be written.
    #[error("there is nothing to export: {0}")]
    Empty(String),
    /// More than one archive may hold.
    #[error("too much for one archive: {0}")]
    TooMuch(String),
    /// The file, or a temporary one.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// From the cache that it is about.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ArchiveError {
    fn io(context: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { context, source }
    }
}

impl From<BlobError> for ArchiveError {
    fn from(error: BlobError) -> Self {
        Self::Cache(error.into())
    }
}

/// How far it is, in bytes of layers; for whoever looks from time to time.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// How much there is; 0 until that is known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How much has passed.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}
