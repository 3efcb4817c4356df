//! What this door counts: builds, what the cache was for them, and what is
//! open now.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::metrics::{CounterBy, TimeBy, label};

label! {
    /// How a `Control.Solve` ended.
    SolveOutcome as "outcome" {
        /// The build is done.
        Ok = "ok",
        /// buildkitd, or this door, answered with an error.
        Failed = "failed",
        /// The client went away, or took it back.
        Canceled = "canceled",
    }
}

label! {
    /// What the imports of a build became.
    ImportOutcome as "outcome" {
        /// An export was served to it.
        Served = "served",
        /// There is none yet.
        Empty = "empty",
        /// There may be one, but it can't be served.
        Failed = "failed",
    }
}

label! {
    /// What an export became.
    ExportOutcome as "outcome" {
        /// It is in the log.
        Published = "published",
        /// It was left out, or the store took something of it not.
        Failed = "failed",
        /// buildkitd never wrote it to its end: the build failed before, or
        /// had nothing to export.
        Unfinished = "unfinished",
    }
}

label! {
    /// What brings an export from buildkitd.
    ExportCarrier as "carrier" {
        /// The Content service in the build's own session.
        Session = "session",
    }
}

label! {
    /// What brings an import to buildkitd.
    Carrier as "carrier" {
        /// The Content service in the build's own session.
        Session = "session",
        /// The pull endpoint, when it is asked for the config.
        Pull = "pull",
    }
}

label! {
    /// What became of a step in the end.
    Fate as "result" {
        /// Its result came from a cache.
        Cached = "cached",
        /// It was run.
        Ran = "ran",
        /// It was run, or begun, and ended with an error.
        Failed = "failed",
    }
}

label! {
    /// How it is known what an import saved.
    Basis as "basis" {
        /// An export of the build lists the results that it used.
        Recorded = "recorded",
        /// By the names of its steps.
        Estimated = "estimated",
    }
}

/// The metrics of this door; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) solves: CounterBy<SolveOutcome>,
    pub(super) imports: CounterBy<(Carrier, ImportOutcome)>,
    pub(super) exports: CounterBy<(ExportCarrier, ExportOutcome)>,
    pub(super) vertices: CounterBy<Fate>,
    pub(super) saved: TimeBy<Basis>,
    pub(super) sessions: Gauge,
    pub(super) leases: Gauge,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.solves.register(
            registry,
            "layerd_solves",
            "Builds, by how they ended; what clients ask for themselves is none",
        );
        metrics.imports.register(
            registry,
            "layerd_imports",
            "Builds that asked for an import of layerd, by what it became",
        );
        metrics.exports.register(
            registry,
            "layerd_exports",
            "Exports to layerd that builds asked for, by what they became",
        );
        metrics.vertices.register(
            registry,
            "layerd_vertices",
            "Steps of builds that ended, by what became of them at last",
        );
        metrics.saved.register(
            registry,
            "layerd_saved_seconds",
            "How long steps had run elsewhere that builds took from an import of layerd",
        );
        registry.register(
            "layerd_sessions",
            "Sessions of clients that are open now",
            metrics.sessions.clone(),
        );
        registry.register(
            "layerd_leases",
            "Imports that are kept readable now",
            metrics.leases.clone(),
        );
        metrics
    }

    /// One export that begins now; what it became is counted when this is
    /// dropped.
    pub fn export(&self) -> ExportTally {
        ExportTally {
            exports: self.exports.clone(),
            published: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }
}

/// What becomes of one export.
#[derive(Debug)]
pub struct ExportTally {
    exports: CounterBy<(ExportCarrier, ExportOutcome)>,
    published: AtomicBool,
    failed: AtomicBool,
}

impl ExportTally {
    /// It is in the log, whatever went wrong before.
    pub fn published(&self) {
        self.published.store(true, Ordering::Relaxed);
    }

    /// Neither is it in the log, nor did anything of it fail.
    pub fn is_untried(&self) -> bool {
        !self.published.load(Ordering::Relaxed) && !self.failed.load(Ordering::Relaxed)
    }

    /// Something of it could not be taken.
    pub fn failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for ExportTally {
    fn drop(&mut self) {
        let outcome = if *self.published.get_mut() {
            ExportOutcome::Published
        } else if *self.failed.get_mut() {
            ExportOutcome::Failed
        } else {
            ExportOutcome::Unfinished
        };
        self.exports.count((ExportCarrier::Session, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_counted_once_as_what_it_became() {
        let metrics = Metrics::default();
        let count = |outcome| metrics.exports.get((ExportCarrier::Session, outcome));
        drop(metrics.export());
        metrics.export().failed();
        let mended = metrics.export();
        mended.failed();
        mended.published();
        drop(mended);
        assert_eq!(count(ExportOutcome::Unfinished), 1);
        assert_eq!(count(ExportOutcome::Failed), 1);
        assert_eq!(count(ExportOutcome::Published), 1);
    }
}
