//! What is asked for the sake of removing blobs, measured.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::Metered;
use super::metrics::Operation;
use crate::blobs::{StoreId, Taken};
use crate::catalog::{
    CatalogError, Collecting, KeptExport, KeptFilter, PinHolder, ProjectSize, Uses,
};
use crate::digest::Digest;

#[async_trait]
impl Collecting for Metered {
    async fn pin(
        &self,
        holder: PinHolder,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        self.measured(Operation::Pin, self.inner.pin(holder, blobs, ttl))
            .await
    }

    async fn unpin(&self, holder: PinHolder, blobs: &[Digest]) -> Result<(), CatalogError> {
        self.measured(Operation::Unpin, self.inner.unpin(holder, blobs))
            .await
    }

    async fn candidates(&self, limit: u32) -> Result<Vec<Digest>, CatalogError> {
        self.measured(Operation::Candidates, self.inner.candidates(limit))
            .await
    }

    async fn nominate(
        &self,
        blobs: &[Digest],
        wait: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        self.measured(Operation::Nominate, self.inner.nominate(blobs, wait))
            .await
    }

    async fn condemn(&self, blobs: &[Digest], ttl: Duration) -> Result<Vec<Digest>, CatalogError> {
        self.measured(Operation::Condemn, self.inner.condemn(blobs, ttl))
            .await
    }

    async fn postpone(&self, blobs: &[Digest], wait: Duration) -> Result<(), CatalogError> {
        self.measured(Operation::Postpone, self.inner.postpone(blobs, wait))
            .await
    }

    async fn acquit(&self, blobs: &[Digest]) -> Result<(), CatalogError> {
        self.measured(Operation::Acquit, self.inner.acquit(blobs))
            .await
    }

    async fn purge(&self) -> Result<(), CatalogError> {
        self.measured(Operation::Purge, self.inner.purge()).await
    }

    async fn kept(&self, filter: &KeptFilter) -> Result<Vec<KeptExport>, CatalogError> {
        self.measured(Operation::Kept, self.inner.kept(filter))
            .await
    }

    async fn now(&self) -> Result<Timestamp, CatalogError> {
        self.measured(Operation::Now, self.inner.now()).await
    }

    async fn note_use(&self, uses: &Uses, at: Timestamp) -> Result<(), CatalogError> {
        self.measured(Operation::NoteUse, self.inner.note_use(uses, at))
            .await
    }

    async fn store(&self) -> Result<Option<StoreId>, CatalogError> {
        self.measured(Operation::Store, self.inner.store()).await
    }

    async fn bind(&self, store: StoreId, taken: Taken) -> Result<StoreId, CatalogError> {
        self.measured(Operation::Bind, self.inner.bind(store, taken))
            .await
    }

    async fn project_sizes(&self) -> Result<Vec<ProjectSize>, CatalogError> {
        self.measured(Operation::ProjectSizes, self.inner.project_sizes())
            .await
    }
}
