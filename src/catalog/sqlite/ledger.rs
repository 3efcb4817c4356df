//! What is kept beside the log of exports.
//!
//! A catalog that takes no writes may be as an older layerd left it, without
//! these tables: then nothing was ever kept.

mod audit;
mod flushes;
mod projects;
mod revocations;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;

use super::{SqliteCatalog, rows};
use crate::catalog::ledger::{
    AuditEntry, AuditFilter, AuditId, FlushNote, Ledger, NewAudit, NewFlush, NewRevocation, Origin,
    ProjectHead, ProjectSettings, RefHead, Revision, Revocation, Settled,
};
use crate::catalog::{CatalogError, columns};
use crate::place::{GitRef, Place, ProjectId};

#[async_trait]
impl Ledger for SqliteCatalog {
    async fn note(&self, entry: &NewAudit) -> Result<AuditId, CatalogError> {
        self.insert_audit(entry).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, CatalogError> {
        self.list_audit(filter).await
    }

    async fn trim_audit(&self, before: Timestamp) -> Result<u64, CatalogError> {
        self.delete_audit(before).await
    }

    async fn flush(&self, flush: &NewFlush) -> Result<u64, CatalogError> {
        self.flush_exports(flush).await
    }

    async fn flushes(&self, place: &Place) -> Result<Vec<FlushNote>, CatalogError> {
        self.list_flushes(place).await
    }

    async fn revoke(&self, revocation: &NewRevocation) -> Result<(), CatalogError> {
        self.insert_revocation(revocation).await
    }

    async fn revocations(&self, after: Revision) -> Result<Vec<Revocation>, CatalogError> {
        self.list_revocations(after).await
    }

    async fn settle(
        &self,
        project: &ProjectId,
        settings: &ProjectSettings,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        self.upsert_settings(project, settings, origin).await
    }

    async fn settings(&self, project: &ProjectId) -> Result<Option<Settled>, CatalogError> {
        let found = self.list_settings(Some(project), None, 1).await?;
        Ok(found.into_iter().next())
    }

    async fn all_settings(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Settled>, CatalogError> {
        self.list_settings(None, after, limit).await
    }

    async fn projects(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<ProjectHead>, CatalogError> {
        self.list_projects(after, limit).await
    }

    async fn refs(
        &self,
        project: &ProjectId,
        after: Option<&GitRef>,
        limit: u32,
    ) -> Result<Vec<RefHead>, CatalogError> {
        self.list_refs(project, after, limit).await
    }
}

impl SqliteCatalog {
    async fn keeps_ledger(&self) -> Result<bool, CatalogError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'audit')",
        )
        .fetch_one(self.readers())
        .await
        .map_err(|error| self.context.of(error))
    }

    fn time(&self, row: &SqliteRow, column: &str) -> Result<Timestamp, CatalogError> {
        columns::microsecond(&self.context, self.column(row, column)?)
    }

    fn column<'a, T>(&self, row: &'a SqliteRow, column: &str) -> Result<T, CatalogError>
    where
        T: sqlx::Decode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        sqlx::Row::try_get(row, column).map_err(|error| self.context.corrupt(error))
    }

    /// A name that need not be there.
    fn name<T>(&self, row: &SqliteRow, column: &str) -> Result<Option<T>, CatalogError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        match self.column::<Option<&str>>(row, column)? {
            None => Ok(None),
            Some(_) => rows::text(&self.context, row, column).map(Some),
        }
    }
}
