//! What is kept beside the log of exports.

mod audit;
mod flushes;
mod projects;
mod revocations;

use async_trait::async_trait;
use jiff::Timestamp;

use super::PostgresCatalog;
use crate::catalog::ledger::{
    AuditEntry, AuditFilter, AuditId, FlushNote, Ledger, NewAudit, NewFlush, NewRevocation, Origin,
    ProjectHead, ProjectSettings, RefHead, Revision, Revocation, Settled,
};
use crate::catalog::{CatalogError, columns};
use crate::place::{GitRef, Place, ProjectId};

/// The database's clock, as times are kept here: microseconds since 1970.
macro_rules! now {
    () => {
        "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
    };
}
use now;

#[async_trait]
impl Ledger for PostgresCatalog {
    async fn note(&self, entry: &NewAudit) -> Result<AuditId, CatalogError> {
        self.connections.bounded(self.insert_audit(entry)).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, CatalogError> {
        self.connections.bounded(self.list_audit(filter)).await
    }

    async fn trim_audit(&self, before: Timestamp) -> Result<u64, CatalogError> {
        self.connections.bounded(self.delete_audit(before)).await
    }

    async fn flush(&self, flush: &NewFlush) -> Result<u64, CatalogError> {
        self.connections.bounded(self.flush_exports(flush)).await
    }

    async fn flushes(&self, place: &Place) -> Result<Vec<FlushNote>, CatalogError> {
        self.connections.bounded(self.list_flushes(place)).await
    }

    async fn revoke(&self, revocation: &NewRevocation) -> Result<(), CatalogError> {
        let call = self.insert_revocation(revocation);
        self.connections.bounded(call).await
    }

    async fn revocations(&self, after: Revision) -> Result<Vec<Revocation>, CatalogError> {
        self.connections.bounded(self.list_revocations(after)).await
    }

    async fn settle(
        &self,
        project: &ProjectId,
        settings: &ProjectSettings,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        let call = self.upsert_settings(project, settings, origin);
        self.connections.bounded(call).await
    }

    async fn settings(&self, project: &ProjectId) -> Result<Option<Settled>, CatalogError> {
        let call = self.list_settings(Some(project), None, 1);
        let found = self.connections.bounded(call).await?;
        Ok(found.into_iter().next())
    }

    async fn all_settings(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Settled>, CatalogError> {
        let call = self.list_settings(None, after, limit);
        self.connections.bounded(call).await
    }

    async fn projects(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<ProjectHead>, CatalogError> {
        let call = self.list_projects(after, limit);
        self.connections.bounded(call).await
    }

    async fn refs(
        &self,
        project: &ProjectId,
        after: Option<&GitRef>,
        limit: u32,
    ) -> Result<Vec<RefHead>, CatalogError> {
        let call = self.list_refs(project, after, limit);
        self.connections.bounded(call).await
    }
}

impl PostgresCatalog {
    fn time(&self, microsecond: i64) -> Result<Timestamp, CatalogError> {
        columns::microsecond(&self.context, microsecond)
    }

    /// A name that need not be there.
    fn name_of<T>(&self, text: Option<String>) -> Result<Option<T>, CatalogError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let parsed = |text: String| columns::parsed(&self.context, &text);
        text.map(parsed).transpose()
    }
}
