//! What a tier counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::metrics::{CounterBy, label};

label! {
    /// Where a read was served from.
    Read as "from" {
        /// It was here.
        Hit = "disk",
        /// It began a fetch.
        Miss = "origin",
        /// It shared a fetch that was under way.
        Joined = "fetch",
        /// The disk could not be read.
        Around = "around",
    }
}

/// The metrics of a tier; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reads: CounterBy<Read>,
    evictions: Counter,
    fetched: Counter,
    bytes: Gauge,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.reads.register(
            registry,
            "layerd_tier_reads",
            "Reads of the disk tier, by where the blob came from",
        );
        registry.register(
            "layerd_tier_evictions",
            "Blobs that left the disk tier to make room",
            metrics.evictions.clone(),
        );
        registry.register(
            "layerd_tier_fetched_bytes",
            "Bytes fetched from the origin into the disk tier",
            metrics.fetched.clone(),
        );
        registry.register(
            "layerd_tier_bytes",
            "Bytes of the blobs in the disk tier",
            metrics.bytes.clone(),
        );
        metrics
    }

    pub(super) fn read(&self, from: Read) {
        self.reads.count(from);
    }

    pub(super) fn evicted(&self, blobs: u64) {
        self.evictions.inc_by(blobs);
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched.inc_by(bytes);
    }

    pub(super) fn holds(&self, bytes: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    #[cfg(test)]
    pub(super) fn count(&self, from: Read) -> u64 {
        self.reads.get(from)
    }

    #[cfg(test)]
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.get()
    }
}
