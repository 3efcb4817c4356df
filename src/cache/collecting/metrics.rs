//! What is counted of collections, and of projects.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cache::CacheError;
use crate::cache::local::Swept;
use crate::cache::retention::Reason;
use crate::catalog::ProjectSize;
use crate::telemetry::metrics::{CounterBy, SecondsBy, label};

/// Projects that have a series of their own; the others share one.
const PROJECTS: usize = 20;
/// How often they are measured, at most.
const MEASURED: Duration = Duration::from_secs(15 * 60);
/// What that is called: no project's name has a space.
const OTHERS: &str = "(all others)";

label! {
    /// Why an export left the log.
    Eviction as "reason" {
        /// A newer one has all that it had.
        Subsumed = "subsumed",
        /// Nothing was written to its ref for too long.
        IdleRef = "idle_ref",
        /// It was of no use for too long.
        Expired = "expired",
        /// Its project was at its quota.
        Quota = "quota",
        /// All together were too large.
        Size = "size",
    }
}

label! {
    /// What came of a collection.
    Outcome as "outcome" {
        /// It was done.
        Done = "done",
        /// It broke off.
        Failed = "failed",
    }
}

impl From<Reason> for Eviction {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Subsumed => Self::Subsumed,
            Reason::IdleRef => Self::IdleRef,
            Reason::Expired => Self::Expired,
            Reason::Quota => Self::Quota,
            Reason::Size => Self::Size,
        }
    }
}

type ByProject = Family<Vec<(&'static str, String)>, Gauge>;

/// The metrics of collections; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    evictions: CounterBy<Eviction>,
    seconds: SecondsBy<Outcome>,
    freed_blobs: Counter,
    freed_bytes: Counter,
    refusals: Counter,
    bytes: ByProject,
    exports: ByProject,
    measured: Arc<Mutex<Option<Instant>>>,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.evictions.register(
            registry,
            "layerd_gc_evictions",
            "Exports that were taken out of the log, by reason",
        );
        metrics.seconds.register(
            registry,
            "layerd_gc_seconds",
            "What a collection took, pauses included",
        );
        registry.register(
            "layerd_gc_freed_blobs",
            "Blobs that nothing named and that were removed",
            metrics.freed_blobs.clone(),
        );
        registry.register(
            "layerd_gc_freed_bytes",
            "Bytes of those",
            metrics.freed_bytes.clone(),
        );
        registry.register(
            "layerd_quota_refusals",
            "Uploads and exports that were refused because of a project's quota",
            metrics.refusals.clone(),
        );
        registry.register(
            "layerd_project_bytes",
            "Bytes of the layers that a project's exports name",
            metrics.bytes.clone(),
        );
        registry.register(
            "layerd_project_exports",
            "Exports that a project has in the log",
            metrics.exports.clone(),
        );
        metrics.clear();
        metrics
    }

    /// Exports left the log.
    pub(in crate::cache) fn evicted(&self, reason: Eviction, exports: u64) {
        self.evictions.add(reason, exports);
    }

    pub(in crate::cache) fn freed(&self, swept: Swept) {
        self.freed_blobs.inc_by(swept.blobs);
        self.freed_bytes.inc_by(swept.bytes);
    }

    pub(in crate::cache) fn refused(&self) {
        self.refusals.inc();
    }

    #[cfg(test)]
    pub(in crate::cache) fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    pub(in crate::cache) async fn measured<T>(
        &self,
        collection: impl Future<Output = Result<T, CacheError>>,
    ) -> Result<T, CacheError> {
        let began = Instant::now();
        let done = collection.await;
        let outcome = match &done {
            Ok(_) => Outcome::Done,
            Err(_) => Outcome::Failed,
        };
        self.seconds.observe(outcome, began.elapsed());
        done
    }

    /// Shows the largest projects by name, and all others as one.
    pub(in crate::cache) fn projects(&self, mut sizes: Vec<ProjectSize>) {
        sizes.retain(|size| size.exports > 0 || size.bytes > 0);
        sizes.sort_by_key(|size| Reverse(size.bytes));
        self.clear();
        let (shown, others) = sizes.split_at(sizes.len().min(PROJECTS));
        for size in shown {
            self.show(size.project.as_str(), size.exports, size.bytes);
        }
        let sum = |of: fn(&ProjectSize) -> u64| others.iter().map(of).sum();
        self.show(OTHERS, sum(|size| size.exports), sum(|size| size.bytes));
    }

    /// Whether projects are to be measured, which counts as done then, whatever
    /// comes of it.
    pub(in crate::cache) fn projects_are_due(&self) -> bool {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let due = measured.is_none_or(|measured| measured.elapsed() >= MEASURED);
        if due {
            *measured = Some(Instant::now());
        }
        due
    }

    /// Somebody else looks at projects from now on.
    pub fn unknown(&self) {
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.clear();
    }

    fn clear(&self) {
        self.bytes.clear();
        self.exports.clear();
        self.show(OTHERS, 0, 0);
    }

    fn show(&self, name: &str, exports: u64, bytes: u64) {
        let labels = vec![("project", name.to_owned())];
        for (family, value) in [(&self.bytes, bytes), (&self.exports, exports)] {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn however_many_projects_there_are_few_have_a_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let size = |number: u64| ProjectSize {
            project: format!("p{number}").parse().unwrap(),
            exports: 1,
            bytes: number,
        };
        assert!(metrics.projects_are_due() && !metrics.projects_are_due());
        metrics.projects((1..=3).map(size).collect());
        metrics.projects((1..=25).map(size).collect());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let series = |name: &str| text.matches(&format!("{name}{{")).count();
        assert_eq!(series("layerd_project_bytes"), 21, "{text}");
        assert_eq!(series("layerd_project_exports"), 21);
        for line in [
            "layerd_project_bytes{project=\"p25\"} 25",
            "layerd_project_bytes{project=\"(all others)\"} 15",
            "layerd_project_exports{project=\"(all others)\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
