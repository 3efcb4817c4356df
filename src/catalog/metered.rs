//! A catalog whose every call is measured: how long it took, and what it could
//! not do.

mod collecting;
mod entries;
mod ledger;
mod metrics;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;

pub use self::metrics::Metrics;
use self::metrics::{Operation, Outcome};
use super::{
    Catalog, CatalogError, Export, ExportHead, ExportId, Filter, LeaseId, NewExport, Ownership,
    Saving, SavingFilter,
};
use crate::digest::{Digest, RecordDigest};
use crate::place::{GitRef, ProjectId};
use crate::step::Step;

/// Another catalog, measured.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Catalog>,
    metrics: Metrics,
    /// What is asked is written down there.
    #[cfg(test)]
    journal: Option<crate::blobs::Journal>,
}

impl Metered {
    /// Measures what is asked of `inner` in `metrics`.
    pub fn new(inner: Arc<dyn Catalog>, metrics: Metrics) -> Self {
        Self {
            inner,
            metrics,
            #[cfg(test)]
            journal: None,
        }
    }

    /// Writes down what is asked of `inner`.
    #[cfg(test)]
    pub(crate) fn noting(inner: Arc<dyn Catalog>, journal: crate::blobs::Journal) -> Self {
        Self {
            journal: Some(journal),
            ..Self::new(inner, Metrics::default())
        }
    }

    async fn measured<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        #[cfg(test)]
        if let Some(journal) = &self.journal {
            journal.note(format!("catalog: {operation:?}"));
        }
        let began = Instant::now();
        let done = call.await;
        let outcome = match &done {
            // It is an answer.
            Ok(_) | Err(CatalogError::Flushed { .. }) => Outcome::Done,
            Err(error) => {
                self.metrics.errors.count(error.into());
                Outcome::Failed
            }
        };
        self.metrics
            .seconds
            .observe((operation, outcome), began.elapsed());
        done
    }
}

#[async_trait]
impl Catalog for Metered {
    async fn append(&self, export: NewExport) -> Result<ExportId, CatalogError> {
        self.measured(Operation::Append, self.inner.append(export))
            .await
    }

    async fn writable(&self) -> Result<(), CatalogError> {
        self.measured(Operation::Writable, self.inner.writable())
            .await
    }

    async fn ready(&self) -> Result<(), CatalogError> {
        self.measured(Operation::Ready, self.inner.ready()).await
    }

    fn refusal(&self) -> Option<CatalogError> {
        self.inner.refusal()
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<ExportHead>, CatalogError> {
        self.measured(Operation::List, self.inner.list(filter))
            .await
    }

    async fn count(&self, filter: &Filter) -> Result<u64, CatalogError> {
        self.measured(Operation::Count, self.inner.count(filter))
            .await
    }

    async fn get(&self, id: ExportId) -> Result<Option<Export>, CatalogError> {
        self.measured(Operation::Get, self.inner.get(id)).await
    }

    async fn holds(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError> {
        self.measured(Operation::Holds, self.inner.holds(project, digest))
            .await
    }

    async fn held(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        self.measured(Operation::Held, self.inner.held(project, digests))
            .await
    }

    async fn possess(
        &self,
        project: &ProjectId,
        git_ref: &GitRef,
        blobs: &[(Digest, u64)],
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        self.measured(
            Operation::Possess,
            self.inner.possess(project, git_ref, blobs, ttl),
        )
        .await
    }

    async fn holding_refs(&self, project: &ProjectId) -> Result<Vec<GitRef>, CatalogError> {
        self.measured(Operation::HoldingRefs, self.inner.holding_refs(project))
            .await
    }

    async fn visible(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        self.measured(
            Operation::Visible,
            self.inner.visible(project, refs, digests),
        )
        .await
    }

    /// Only its errors are counted: how long it takes is its reader's doing.
    fn referenced(&self) -> BoxStream<'_, Result<(Digest, u64), CatalogError>> {
        let counted = |error: &CatalogError| self.metrics.errors.count(error.into());
        Box::pin(self.inner.referenced().inspect_err(counted))
    }

    async fn lasting(&self, blobs: &[Digest]) -> Result<Vec<Digest>, CatalogError> {
        self.measured(Operation::Lasting, self.inner.lasting(blobs))
            .await
    }

    async fn leased(&self) -> Result<u64, CatalogError> {
        self.measured(Operation::Leased, self.inner.leased()).await
    }

    async fn take_lease_as(&self, lease: LeaseId, ttl: Duration) -> Result<(), CatalogError> {
        let call = self.inner.take_lease_as(lease, ttl);
        self.measured(Operation::TakeLease, call).await
    }

    async fn renew_lease(&self, lease: LeaseId, ttl: Duration) -> Result<bool, CatalogError> {
        self.measured(Operation::RenewLease, self.inner.renew_lease(lease, ttl))
            .await
    }

    async fn end_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        self.measured(Operation::EndLease, self.inner.end_lease(lease))
            .await
    }

    async fn retire(&self, exports: &[ExportId]) -> Result<u64, CatalogError> {
        self.measured(Operation::Retire, self.inner.retire(exports))
            .await
    }

    async fn subsume(&self, exports: &[ExportId], by: ExportId) -> Result<u64, CatalogError> {
        self.measured(Operation::Subsume, self.inner.subsume(exports, by))
            .await
    }

    async fn subsumed(&self, exports: &[ExportId]) -> Result<Vec<ExportId>, CatalogError> {
        self.measured(Operation::Subsumed, self.inner.subsumed(exports))
            .await
    }

    async fn steps(
        &self,
        project: &ProjectId,
        refs: Option<&[GitRef]>,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CatalogError> {
        self.measured(Operation::Steps, self.inner.steps(project, refs, results))
            .await
    }

    async fn add_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        self.measured(Operation::AddSaving, self.inner.add_saving(saving))
            .await
    }

    async fn savings(&self, filter: &SavingFilter) -> Result<Vec<Saving>, CatalogError> {
        self.measured(Operation::Savings, self.inner.savings(filter))
            .await
    }

    async fn naming(&self, digest: &Digest) -> Result<Vec<ExportId>, CatalogError> {
        self.measured(Operation::Naming, self.inner.naming(digest))
            .await
    }

    async fn try_own(&self, task: &str) -> Result<Option<Ownership>, CatalogError> {
        self.measured(Operation::TryOwn, self.inner.try_own(task))
            .await
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::catalog::SqliteCatalog;
    use crate::catalog::conformance::catalog_conformance;

    async fn open() -> (TempDir, Metered) {
        let dir = TempDir::new().unwrap();
        let catalog = SqliteCatalog::open(dir.path()).await.unwrap();
        (dir, Metered::new(Arc::new(catalog), Metrics::default()))
    }

    catalog_conformance!(open);

    #[tokio::test]
    async fn a_call_is_measured_by_what_it_does_and_what_came_of_it() {
        let dir = TempDir::new().unwrap();
        let catalog = SqliteCatalog::open(dir.path()).await.unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let catalog = Metered::new(Arc::new(catalog), metrics);
        catalog.list(&Filter::default()).await.unwrap();
        catalog.close().await;
        catalog.list(&Filter::default()).await.unwrap_err();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "layerd_catalog_seconds_count{operation=\"list\",outcome=\"done\"} 1",
            "layerd_catalog_seconds_count{operation=\"list\",outcome=\"failed\"} 1",
            "layerd_catalog_seconds_count{operation=\"append\",outcome=\"done\"} 0",
            "layerd_catalog_errors_total{kind=\"other\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
