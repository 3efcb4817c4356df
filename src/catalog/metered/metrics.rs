//! What is measured of a catalog.

use prometheus_client::registry::Registry;

use crate::catalog::CatalogError;
use crate::telemetry::metrics::{CounterBy, SecondsBy, label};

label! {
    /// What was asked of the catalog.
    Operation as "operation" {
        /// An export was appended.
        Append = "append",
        /// Whether it takes writes.
        Writable = "writable",
        /// Whether it answers.
        Ready = "ready",
        /// Exports were listed.
        List = "list",
        /// And counted.
        Count = "count",
        /// One was read.
        Get = "get",
        /// Whether a project holds a blob.
        Holds = "holds",
        /// Which of many it holds.
        Held = "held",
        /// Uploads were noted.
        Possess = "possess",
        /// Which refs there are.
        HoldingRefs = "holding_refs",
        /// Which of many blobs some of them hold.
        Visible = "visible",
        /// A lease was taken.
        TakeLease = "take_lease",
        /// And kept.
        RenewLease = "renew_lease",
        /// And given back.
        EndLease = "end_lease",
        /// Exports left the log.
        Retire = "retire",
        /// For a newer one.
        Subsume = "subsume",
        /// Which did.
        Subsumed = "subsumed",
        /// Steps were looked up.
        Steps = "steps",
        /// What a build was saved was noted.
        AddSaving = "add_saving",
        /// And listed.
        Savings = "savings",
        /// Which exports name a blob.
        Naming = "naming",
        /// Which blobs are kept for more than leases.
        Lasting = "lasting",
        /// Exports that are kept for leases.
        Leased = "leased",
        /// A background task was asked for.
        TryOwn = "try_own",
        /// The audit log was added to.
        Note = "note",
        /// And read.
        Audit = "audit",
        /// What is old in it was dropped.
        TrimAudit = "trim_audit",
        /// A place was flushed.
        Flush = "flush",
        /// What was flushed was looked up.
        Flushes = "flushes",
        /// A token was revoked.
        Revoke = "revoke",
        /// What was revoked was read.
        Revocations = "revocations",
        /// Something was settled for a project.
        Settle = "settle",
        /// And read.
        Settings = "settings",
        /// Projects were listed.
        Projects = "projects",
        /// And refs of one.
        Refs = "refs",
        /// Blobs were pinned.
        Pin = "pin",
        /// And let go.
        Unpin = "unpin",
        /// Blobs that may be named no more were listed.
        Candidates = "candidates",
        /// And added to.
        Nominate = "nominate",
        /// Blobs were condemned.
        Condemn = "condemn",
        /// And are gone.
        Acquit = "acquit",
        /// What has ended was dropped.
        Purge = "purge",
        /// Exports were listed with what they name.
        Kept = "kept",
        /// It was asked what the time is.
        Now = "now",
        /// Reads were noted.
        NoteUse = "note_use",
        /// Candidates were put off.
        Postpone = "postpone",
        /// It was asked which blob store is the catalog's.
        Store = "store",
        /// That was noted.
        Bind = "bind",
        /// Projects were measured.
        ProjectSizes = "project_sizes",
        /// How much there is was kept for the day.
        KeepUsage = "keep_usage",
        /// And listed.
        Usage = "usage",
        /// The name of an entry was reserved.
        Reserve = "reserve",
        /// Something for one was on its way.
        TouchUpload = "touch_upload",
        /// What nobody has finished was measured.
        Unfinished = "unfinished",
        /// What a block takes the place of was looked up.
        Replaced = "replaced",
        /// An upload for one was looked up.
        Upload = "upload",
        /// Or those of a name.
        Uploads = "uploads",
        /// A block was added to one.
        PutBlock = "put_block",
        /// Its blocks were given their order.
        OrderBlocks = "order_blocks",
        /// And listed.
        Blocks = "blocks",
        /// An entry was appended.
        AppendEntry = "append_entry",
        /// An upload has become something else.
        CloseUpload = "close_upload",
        /// Or nothing.
        DropUpload = "drop_upload",
        /// An entry was looked for.
        FindEntry = "find_entry",
        /// Its layers were.
        EntryLayers = "entry_layers",
        /// It was read.
        NoteEntryUse = "note_entry_use",
        /// A secret of all hubs was read.
        Secret = "secret",
    }
}

label! {
    /// What came of it.
    Outcome as "outcome" {
        /// It was done.
        Done = "done",
        /// It was not.
        Failed = "failed",
    }
}

label! {
    /// Why something failed, as far as an operator's next step depends on it.
    ErrorKind as "kind" {
        /// Others held it up for too long.
        Busy = "busy",
        /// It takes no writes.
        ReadOnly = "read_only",
        /// No space is left.
        Full = "full",
        /// It can't be reached.
        Unavailable = "unavailable",
        /// What is there can't be read.
        Corrupt = "corrupt",
        /// Anything else.
        Other = "other",
    }
}

impl From<&CatalogError> for ErrorKind {
    fn from(error: &CatalogError) -> Self {
        match error {
            CatalogError::Busy(_) => Self::Busy,
            CatalogError::ReadOnly(_) => Self::ReadOnly,
            CatalogError::Full(_) => Self::Full,
            CatalogError::Unavailable { .. } => Self::Unavailable,
            CatalogError::Corrupt { .. } => Self::Corrupt,
            CatalogError::InvalidUrl(_)
            | CatalogError::Newer(_)
            | CatalogError::Flushed { .. }
            | CatalogError::Other { .. } => Self::Other,
        }
    }
}

/// The metrics of a catalog; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) seconds: SecondsBy<(Operation, Outcome)>,
    pub(super) errors: CounterBy<ErrorKind>,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.seconds.register(
            registry,
            "layerd_catalog_seconds",
            "What the catalog took for one call",
        );
        metrics.errors.register(
            registry,
            "layerd_catalog_errors",
            "Calls that the catalog did not answer, by reason",
        );
        metrics
    }
}
