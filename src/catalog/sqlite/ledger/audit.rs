//! The audit log.

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};

use crate::catalog::ledger::{
    Actor, AuditEntry, AuditFilter, AuditId, Details, MAX_PAGE, NewAudit, Origin,
};
use crate::catalog::sqlite::turn::Turn;
use crate::catalog::sqlite::{SqliteCatalog, rows};
use crate::catalog::{CatalogError, columns};
use crate::place::{GitRef, ProjectId, Scope};

impl SqliteCatalog {
    pub(super) async fn insert_audit(&self, entry: &NewAudit) -> Result<AuditId, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let id = self.audited(&mut tx, entry).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(id)
    }

    /// The same, beside what is done.
    pub(super) async fn audited(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        entry: &NewAudit,
    ) -> Result<AuditId, CatalogError> {
        let (actor, subject, token) = entry.origin.actor.columns();
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO audit (at, actor, subject, token, peer, request, action, project, ref, scope, details)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) RETURNING id",
        )
        .bind(Timestamp::now().as_microsecond())
        .bind(actor)
        .bind(columns::short(subject))
        .bind(columns::short(token))
        .bind(entry.origin.peer.map(|peer| peer.to_string()))
        .bind(columns::short(entry.origin.request.as_deref()))
        .bind(entry.action.as_str())
        .bind(entry.project.as_ref().map(ProjectId::as_str))
        .bind(entry.git_ref.as_ref().map(GitRef::as_str))
        .bind(entry.scope.as_ref().map(Scope::as_str))
        .bind(entry.details.column())
        .fetch_one(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(AuditId(id))
    }

    pub(super) async fn list_audit(
        &self,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditEntry>, CatalogError> {
        if !self.keeps_ledger().await? {
            return Ok(Vec::new());
        }
        let micros = |time: Timestamp| time.as_microsecond();
        let rows = sqlx::query(
            "SELECT id, at, actor, subject, token, peer, request, action, project, ref, scope, details
             FROM audit
             WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR action = ?2)
               AND at >= ?3 AND at < ?4 AND id < ?5
             ORDER BY id DESC LIMIT ?6",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.action.map(|action| action.as_str()))
        .bind(filter.since.map_or(i64::MIN, micros))
        .bind(filter.until.map_or(i64::MAX, micros))
        .bind(filter.before.map_or(i64::MAX, |id| id.0))
        .bind(filter.limit.map_or(MAX_PAGE, |limit| limit.min(MAX_PAGE)))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter().map(|row| self.audit_entry(row)).collect()
    }

    pub(super) async fn delete_audit(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let gone = sqlx::query(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT 10000)",
        )
        .bind(before.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(failed)?
        .rows_affected();
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(gone)
    }

    fn audit_entry(&self, row: &SqliteRow) -> Result<AuditEntry, CatalogError> {
        let context = &self.context;
        let actor = Actor::of_columns(
            self.column(row, "actor")?,
            self.column(row, "subject")?,
            self.column(row, "token")?,
        );
        let details: Option<&str> = self.column(row, "details")?;
        Ok(AuditEntry {
            id: AuditId(self.column(row, "id")?),
            at: self.time(row, "at")?,
            origin: Origin {
                actor,
                peer: self.name(row, "peer")?,
                request: self.column(row, "request")?,
            },
            action: rows::text(context, row, "action")?,
            project: self.name(row, "project")?,
            git_ref: self.name(row, "ref")?,
            scope: self.name(row, "scope")?,
            details: Details::of_column(details).map_err(|error| context.corrupt(error))?,
        })
    }
}
