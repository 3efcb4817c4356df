//! What is counted of flushes.

use prometheus_client::registry::Registry;

use crate::telemetry::metrics::{CounterBy, label};

label! {
    /// Who flushes.
    Source as "source" {
        /// Whoever may write what they flush.
        Writer = "writer",
        /// An administrator.
        Admin = "admin",
    }
}

/// How often a hub was told to flush; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Flushes {
    flushes: CounterBy<Source>,
    exports: CounterBy<Source>,
}

impl Flushes {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let flushes = Self::default();
        flushes.flushes.register(
            registry,
            "layerd_hub_flushes",
            "Flushes of a project, a ref or a scope",
        );
        flushes.exports.register(
            registry,
            "layerd_hub_flushed_exports",
            "Exports that they took out of the log",
        );
        flushes
    }

    /// One more, which took so many exports.
    pub fn count(&self, source: Source, exports: u64) {
        self.flushes.count(source);
        self.exports.add(source, exports);
    }
}
