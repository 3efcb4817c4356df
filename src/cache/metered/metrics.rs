//! What is counted of a cache, and which errors there are.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::blobs::BlobError;
use crate::cache::{CacheError, Import};
use crate::catalog::CatalogError;
use crate::telemetry::metrics::{CounterBy, SecondsBy, label};

label! {
    /// Which way bytes go.
    Direction as "direction" {
        /// Out of the store.
        Read = "read",
        /// Into it.
        Written = "written",
    }
}

label! {
    /// What went wrong, as far as an operator's next step depends on it.
    ErrorKind as "kind" {
        /// No space is left, or a quota is used up.
        Full = "full",
        /// The store takes no writes.
        ReadOnly = "read_only",
        /// The catalog was locked by others for too long.
        Busy = "busy",
        /// A damaged catalog.
        Corrupt = "corrupt",
        /// The store can't be opened.
        Unavailable = "unavailable",
        /// What the one who asked may not do.
        Denied = "denied",
        /// An export of what was flushed after its build began.
        Flushed = "flushed",
        /// A blob that was looked for, or that a publication names, is not
        /// there.
        NotFound = "not_found",
        /// Bytes that are not those which were announced.
        WrongDigest = "wrong_digest",
        /// More or fewer bytes than announced.
        WrongSize = "wrong_size",
        /// A manifest or a config that is none.
        Invalid = "invalid",
        /// Anything else: mostly, what the disk said.
        Io = "io",
    }
}

impl From<&BlobError> for ErrorKind {
    fn from(error: &BlobError) -> Self {
        match error {
            BlobError::NotFound(_) => Self::NotFound,
            BlobError::WrongDigest { .. } => Self::WrongDigest,
            BlobError::WrongSize { .. } => Self::WrongSize,
            BlobError::Full(_) | BlobError::Refused(_) => Self::Full,
            BlobError::ReadOnly(_) => Self::ReadOnly,
            BlobError::Io { .. } => Self::Io,
        }
    }
}

impl From<&CacheError> for ErrorKind {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::Unavailable(_) | CacheError::Foreign(_) => Self::Unavailable,
            CacheError::Flushed(_) => Self::Flushed,
            CacheError::Denied(_) | CacheError::Unauthenticated(_) => Self::Denied,
            CacheError::Exhausted(_) => Self::Full,
            CacheError::Refused(_) => Self::Invalid,
            CacheError::Lost(_) | CacheError::Missing(_) => Self::NotFound,
            CacheError::Graph(_) => Self::Invalid,
            CacheError::Blob(error) => error.into(),
            CacheError::Catalog(error) => match error {
                CatalogError::Busy(_) => Self::Busy,
                CatalogError::ReadOnly(_) => Self::ReadOnly,
                CatalogError::Full(_) => Self::Full,
                CatalogError::Corrupt { .. } => Self::Corrupt,
                CatalogError::Unavailable { .. }
                | CatalogError::InvalidUrl(_)
                | CatalogError::Newer(_) => Self::Unavailable,
                CatalogError::Flushed { .. } => Self::Flushed,
                CatalogError::Other { .. } => Self::Io,
            },
        }
    }
}

label! {
    /// Why an import has not all that exports hold.
    Reason as "reason" {
        /// Records beyond what a build may get.
        Cut = "cut",
        /// Results with a layer that is not there.
        Absent = "absent",
        /// Results older than was asked for.
        Old = "old",
        /// Links that would make a record its own ancestor.
        Loop = "loop",
        /// Parts of an export that can't be used; counted when it is read.
        Refused = "refused",
    }
}

/// The metrics of a cache; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) bytes: CounterBy<Direction>,
    pub(super) seconds: SecondsBy<Direction>,
    pub(super) ingest_errors: CounterBy<ErrorKind>,
    pub(super) read_errors: CounterBy<ErrorKind>,
    pub(super) left_out: CounterBy<Reason>,
    pub(super) grown: Arc<Notify>,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.bytes.register(
            registry,
            "layerd_blob_bytes",
            "Bytes of layers read out of the store and written into it",
        );
        metrics.seconds.register(
            registry,
            "layerd_blob_seconds",
            "What the store took for one read or one upload; waiting for the client is not in it",
        );
        metrics.ingest_errors.register(
            registry,
            "layerd_ingest_errors",
            "Uploads and exports, or attempts at one, that the store did not take",
        );
        metrics.read_errors.register(
            registry,
            "layerd_blob_read_errors",
            "Reads of a layer that failed or broke off",
        );
        metrics.left_out.register(
            registry,
            "layerd_graph_left_out",
            "What exports hold and imports did not get, by reason",
        );
        metrics
    }

    pub(super) fn imported(&self, import: &Import) {
        let left_out = &import.left_out;
        for (reason, count) in [
            (Reason::Cut, left_out.cut),
            (Reason::Absent, left_out.absent),
            (Reason::Old, left_out.old),
            (Reason::Loop, left_out.loops),
            (Reason::Refused, import.refused),
        ] {
            self.left_out.add(reason, count);
        }
    }

    /// Signalled when something was published.
    pub fn grown(&self) -> Arc<Notify> {
        Arc::clone(&self.grown)
    }

    pub(super) fn ingest_failed(&self, error: &CacheError) {
        self.ingest_errors.count(error.into());
    }

    pub(super) fn read_failed(&self, error: &CacheError) {
        self.read_errors.count(error.into());
    }
}
