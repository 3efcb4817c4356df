//! What is counted of runners' requests.

use prometheus_client::registry::Registry;

use crate::telemetry::metrics::{CounterBy, Label as _, label};

label! {
    /// What is asked for.
    Operation as "operation" {
        /// What a key has.
        Find = "find",
        /// A key, to upload something for it.
        Reserve = "reserve",
        /// Bytes, in.
        Upload = "upload",
        /// The order of what was uploaded.
        Arrange = "arrange",
        /// The end of an upload.
        Finalize = "finalize",
        /// Bytes, out.
        Download = "download",
    }
}

impl Operation {
    /// How it is written in logs.
    pub fn name(self) -> &'static str {
        self.value()
    }
}

label! {
    /// How a request ended.
    Outcome as "outcome" {
        /// Well: what was looked for is there, what was to be done is done.
        Ok = "ok",
        /// No key has it.
        Miss = "miss",
        /// Elsewhere: in a bucket.
        Redirected = "redirected",
        /// The key is taken.
        Exists = "exists",
        /// What was asked for is not there, or not any more.
        NotFound = "not_found",
        /// The client's mistake.
        Invalid = "invalid",
        /// Without a valid token.
        Unauthenticated = "unauthenticated",
        /// With a token, or an address, that does not grant it.
        Denied = "denied",
        /// No room, or too much at once.
        Exhausted = "exhausted",
        /// The hub's own fault, or its backends'.
        Failed = "failed",
        /// The client went away, or stopped sending.
        Cancelled = "cancelled",
    }
}

impl Outcome {
    /// How it is written in logs.
    pub fn name(self) -> &'static str {
        self.value()
    }
}

label! {
    /// Whither bytes go.
    Direction as "direction" {
        /// From clients.
        Up = "up",
        /// To clients.
        Down = "down",
    }
}

label! {
    /// What an upload became.
    Kept as "kind" {
        /// A layer of BuildKit's.
        Blob = "blob",
        /// An export of BuildKit's.
        Index = "index",
        /// Anything else.
        Entry = "entry",
    }
}

/// The metrics of a door; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: CounterBy<(Operation, Outcome)>,
    bytes: CounterBy<Direction>,
    entries: CounterBy<Kept>,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.requests.register(
            registry,
            "layerd_gha_requests",
            "Requests of clients of the GitHub Actions cache that have ended",
        );
        metrics.bytes.register(
            registry,
            "layerd_gha_bytes",
            "Bytes that such clients sent and were sent",
        );
        metrics.entries.register(
            registry,
            "layerd_gha_entries",
            "Uploads of such clients that came to their end",
        );
        metrics
    }

    pub(super) fn ended(&self, operation: Operation, outcome: Outcome) {
        self.requests.count((operation, outcome));
    }

    pub(super) fn passed(&self, direction: Direction, bytes: usize) {
        self.bytes.add(direction, bytes as u64);
    }

    pub(super) fn kept(&self, kind: Kept) {
        self.entries.count(kind);
    }
}
