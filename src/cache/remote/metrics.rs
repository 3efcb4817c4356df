//! What is counted of calls to hubs, and of exports that wait for one.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::metrics::{CounterBy, SecondsBy, label};

label! {
    /// What a hub was asked.
    Method as "method" {
        /// `LookUp`.
        LookUp = "look_up",
        /// `FindMissing`.
        FindMissing = "find_missing",
        /// `ReadBlob`.
        ReadBlob = "read_blob",
        /// `WriteBlob`.
        WriteBlob = "write_blob",
        /// `Publish`.
        Publish = "publish",
        /// `Writable`.
        Writable = "writable",
        /// `Steps`.
        Steps = "steps",
        /// `Report`.
        Report = "report",
        /// `TakeLease`.
        TakeLease = "take_lease",
        /// `RenewLease`.
        RenewLease = "renew_lease",
        /// `Suspect`.
        Suspect = "suspect",
        /// `Flush`.
        Flush = "flush",
        /// `POST /v1/token`.
        Exchange = "exchange",
    }
}

label! {
    /// What came of it.
    Outcome as "outcome" {
        /// An answer.
        Answered = "answered",
        /// A refusal that no other address would change.
        Refused = "refused",
        /// No answer, or one that broke off.
        Failed = "failed",
        /// It was not asked, since it has just failed.
        Spared = "spared",
    }
}

label! {
    /// How an export that waited ended.
    Ended as "outcome" {
        /// The hub has it.
        Delivered = "delivered",
        /// It was refused for good.
        Refused = "refused",
        /// What it would have brought back was flushed.
        Flushed = "flushed",
        /// It has waited for too long.
        Expired = "expired",
    }
}

/// The metrics of hubs; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: CounterBy<(Method, Outcome)>,
    seconds: SecondsBy<Method>,
    open: Gauge,
    waiting: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    failures: Counter,
    ended: CounterBy<Ended>,
    refused: Gauge,
    stranded: Gauge,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.requests.register(
            registry,
            "layerd_hub_requests",
            "Requests to hubs, each address that was tried on its own",
        );
        metrics.seconds.register(
            registry,
            "layerd_hub_seconds",
            "What a hub took for its answer, or for the first part of it",
        );
        registry.register(
            "layerd_hub_breakers_open",
            "Addresses of hubs that are not asked for now, since they have failed",
            metrics.open.clone(),
        );
        registry.register(
            "layerd_outbox_exports",
            "Exports that wait on this disk for the hub",
            metrics.waiting.clone(),
        );
        registry.register(
            "layerd_outbox_oldest_timestamp_seconds",
            "When the oldest of those was written, in seconds since 1970; 0: there is none",
            metrics.oldest.clone(),
        );
        registry.register(
            "layerd_outbox_failures",
            "Attempts to bring such an export to the hub that failed",
            metrics.failures.clone(),
        );
        metrics
            .ended
            .register(registry, "layerd_outbox_ended", "Exports that wait no more");
        registry.register(
            "layerd_outbox_refused_exports",
            "Exports that the hub refused for good and that are kept to be looked at",
            metrics.refused.clone(),
        );
        registry.register(
            "layerd_outbox_stranded_exports",
            "Exports on this disk that wait for another hub than this sidecar has",
            metrics.stranded.clone(),
        );
        metrics
    }

    pub(super) fn request(&self, method: Method, outcome: Outcome, took: Duration) {
        self.requests.count((method, outcome));
        if outcome != Outcome::Spared {
            self.seconds.observe(method, took);
        }
    }

    pub(super) fn opened(&self, change: i64) {
        self.open.inc_by(change);
    }

    pub(super) fn outbox(&self, waiting: usize, oldest: Option<f64>) {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.oldest.set(oldest.unwrap_or(0.0));
    }

    pub(super) fn outbox_failed(&self) {
        self.failures.inc();
    }

    pub(super) fn outbox_ended(&self, ended: Ended) {
        self.ended.count(ended);
    }

    pub(super) fn outbox_refused(&self, kept: usize) {
        self.refused.set(i64::try_from(kept).unwrap_or(i64::MAX));
    }

    pub(super) fn outbox_stranded(&self, waiting: usize) {
        self.stranded
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    #[cfg(test)]
    pub(super) fn ended(&self, ended: Ended) -> u64 {
        self.ended.get(ended)
    }

    #[cfg(test)]
    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    #[cfg(test)]
    pub(super) fn stranded(&self) -> i64 {
        self.stranded.get()
    }

    #[cfg(test)]
    pub(super) fn count(&self, method: Method) -> u64 {
        let all = [Outcome::Answered, Outcome::Refused, Outcome::Failed];
        let counts = all.map(|outcome| self.requests.get((method, outcome)));
        counts.iter().sum()
    }

    #[cfg(test)]
    pub(super) fn breakers_open(&self) -> i64 {
        self.open.get()
    }
}
