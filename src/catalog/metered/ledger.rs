//! The same of what is kept beside the log of exports.

use async_trait::async_trait;
use jiff::Timestamp;

use super::metrics::Operation;
use super::{CatalogError, Metered};
use crate::catalog::ledger::{
    AuditEntry, AuditFilter, AuditId, FlushNote, Ledger, NewAudit, NewFlush, NewRevocation, Origin,
    ProjectHead, ProjectSettings, RefHead, Revision, Revocation, Settled,
};
use crate::place::{GitRef, Place, ProjectId};

#[async_trait]
impl Ledger for Metered {
    async fn note(&self, entry: &NewAudit) -> Result<AuditId, CatalogError> {
        self.measured(Operation::Note, self.inner.note(entry)).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, CatalogError> {
        self.measured(Operation::Audit, self.inner.audit(filter))
            .await
    }

    async fn trim_audit(&self, before: Timestamp) -> Result<u64, CatalogError> {
        self.measured(Operation::TrimAudit, self.inner.trim_audit(before))
            .await
    }

    async fn flush(&self, flush: &NewFlush) -> Result<u64, CatalogError> {
        self.measured(Operation::Flush, self.inner.flush(flush))
            .await
    }

    async fn flushes(&self, place: &Place) -> Result<Vec<FlushNote>, CatalogError> {
        self.measured(Operation::Flushes, self.inner.flushes(place))
            .await
    }

    async fn revoke(&self, revocation: &NewRevocation) -> Result<(), CatalogError> {
        self.measured(Operation::Revoke, self.inner.revoke(revocation))
            .await
    }

    async fn revocations(&self, after: Revision) -> Result<Vec<Revocation>, CatalogError> {
        self.measured(Operation::Revocations, self.inner.revocations(after))
            .await
    }

    async fn settle(
        &self,
        project: &ProjectId,
        settings: &ProjectSettings,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        let call = self.inner.settle(project, settings, origin);
        self.measured(Operation::Settle, call).await
    }

    async fn settings(&self, project: &ProjectId) -> Result<Option<Settled>, CatalogError> {
        self.measured(Operation::Settings, self.inner.settings(project))
            .await
    }

    async fn all_settings(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Settled>, CatalogError> {
        let call = self.inner.all_settings(after, limit);
        self.measured(Operation::Settings, call).await
    }

    async fn projects(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<ProjectHead>, CatalogError> {
        let call = self.inner.projects(after, limit);
        self.measured(Operation::Projects, call).await
    }

    async fn refs(
        &self,
        project: &ProjectId,
        after: Option<&GitRef>,
        limit: u32,
    ) -> Result<Vec<RefHead>, CatalogError> {
        let call = self.inner.refs(project, after, limit);
        self.measured(Operation::Refs, call).await
    }
}
