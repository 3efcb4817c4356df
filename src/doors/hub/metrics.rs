//! What a hub counts of its calls.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tonic::Code;

use crate::telemetry::metrics::{CounterBy, Label as _, Labels as _, SecondsBy, label};

label! {
    /// A method of `layerd.v1.Cache`.
    Method as "method" {
        /// What an import gets.
        LookUp = "look_up",
        /// Which blobs need not be sent.
        FindMissing = "find_missing",
        /// A blob, out.
        ReadBlob = "read_blob",
        /// A blob, in.
        WriteBlob = "write_blob",
        /// An export.
        Publish = "publish",
        /// Whether an export would be taken.
        Writable = "writable",
        /// The steps of results.
        Steps = "steps",
        /// What a build was saved.
        Report = "report",
        /// A lease, taken.
        TakeLease = "take_lease",
        /// A lease, renewed.
        RenewLease = "renew_lease",
        /// A blob that somebody found wrong.
        Suspect = "suspect",
        /// Exports that leave the log.
        Flush = "flush",
        /// One that there is not.
        Unknown = "unknown",
    }
}

impl Method {
    /// The method at the path of a request.
    pub fn at(path: &str) -> Self {
        let name = path.strip_prefix("/layerd.v1.Cache/").unwrap_or_default();
        let mut written = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !written.is_empty() {
                written.push('_');
            }
            written.push(letter.to_ascii_lowercase());
        }
        let known = Self::all();
        let known = known.into_iter().find(|method| method.value() == written);
        known.unwrap_or(Self::Unknown)
    }

    /// How it is written in logs.
    pub fn name(self) -> &'static str {
        self.value()
    }
}

label! {
    /// How a call ended.
    Outcome as "outcome" {
        /// Well.
        Ok = "ok",
        /// What was asked for is not there, or not any more.
        NotFound = "not_found",
        /// The client's mistake.
        Invalid = "invalid",
        /// Without a valid token.
        Unauthenticated = "unauthenticated",
        /// With a token that does not grant it.
        Denied = "denied",
        /// Blobs are missing, or what was asked for can't be done in this state.
        Missing = "missing",
        /// No room, or too much at once.
        Exhausted = "exhausted",
        /// The hub's own fault, or its backends'.
        Failed = "failed",
        /// The client went away.
        Cancelled = "cancelled",
    }
}

impl Outcome {
    /// What a status stands for.
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::NotFound => Self::NotFound,
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Invalid,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Denied,
            Code::FailedPrecondition => Self::Missing,
            Code::ResourceExhausted => Self::Exhausted,
            Code::Cancelled | Code::DeadlineExceeded => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// The metrics of a door; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: CounterBy<(Method, Outcome)>,
    seconds: SecondsBy<Method>,
    running: Gauge,
    uploads: Gauge,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.requests.register(
            registry,
            "layerd_hub_calls",
            "Calls of sidecars that have ended",
        );
        metrics.seconds.register(
            registry,
            "layerd_hub_call_seconds",
            "How long calls took, streams to their last byte",
        );
        registry.register(
            "layerd_hub_running_calls",
            "Calls that run",
            metrics.running.clone(),
        );
        registry.register(
            "layerd_hub_uploads",
            "Blobs that are being uploaded",
            metrics.uploads.clone(),
        );
        metrics
    }

    pub(super) fn began(&self) {
        self.running.inc();
    }

    pub(super) fn ended(&self, method: Method, outcome: Outcome, took: Duration) {
        self.running.dec();
        self.requests.count((method, outcome));
        self.seconds.observe(method, took);
    }

    /// An upload, until what this gives is dropped.
    pub(super) fn uploading(&self) -> Counted {
        Counted::one(&self.uploads)
    }
}

/// One more in a gauge, until it is dropped.
pub struct Counted(Gauge);

impl Counted {
    fn one(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
