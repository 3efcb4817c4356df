//! The audit log.

use jiff::Timestamp;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::now;
use crate::catalog::ledger::{
    Actor, AuditEntry, AuditFilter, AuditId, Details, MAX_PAGE, NewAudit, Origin,
};
use crate::catalog::postgres::PostgresCatalog;
use crate::catalog::{CatalogError, columns};
use crate::place::{GitRef, ProjectId, Scope};

/// As in the table.
type Row = (
    i64,
    i64,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

impl PostgresCatalog {
    pub(super) async fn insert_audit(&self, entry: &NewAudit) -> Result<AuditId, CatalogError> {
        let mut connection = self.connections.one().await?;
        self.audited(&mut connection, entry).await
    }

    /// The same, beside what is done.
    pub(super) async fn audited(
        &self,
        connection: &mut PgConnection,
        entry: &NewAudit,
    ) -> Result<AuditId, CatalogError> {
        let (actor, subject, token) = entry.origin.actor.columns();
        let id: i64 = sqlx::query_scalar(concat!(
            "INSERT INTO audit (at, actor, subject, token, peer, request, action, project, ref, scope, details)
             VALUES (", now!(), ", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
        ))
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
        .fetch_one(connection)
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(AuditId(id))
    }

    pub(super) async fn list_audit(
        &self,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditEntry>, CatalogError> {
        let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
            "SELECT id, at, actor, subject, token, peer, request, action, project, ref, scope, details
             FROM audit WHERE true",
        );
        if let Some(project) = &filter.project {
            query
                .push(" AND project = ")
                .push_bind(project.as_str().to_owned());
        }
        if let Some(action) = filter.action {
            query.push(" AND action = ").push_bind(action.as_str());
        }
        if let Some(since) = filter.since {
            query.push(" AND at >= ").push_bind(since.as_microsecond());
        }
        if let Some(until) = filter.until {
            query.push(" AND at < ").push_bind(until.as_microsecond());
        }
        if let Some(before) = filter.before {
            query.push(" AND id < ").push_bind(before.0);
        }
        let limit = filter.limit.map_or(MAX_PAGE, |limit| limit.min(MAX_PAGE));
        query
            .push(" ORDER BY id DESC LIMIT ")
            .push_bind(i64::from(limit));
        let mut connection = self.connections.one().await?;
        let rows: Vec<Row> = query
            .build_query_as()
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        rows.into_iter().map(|row| self.audit_entry(row)).collect()
    }

    pub(super) async fn delete_audit(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let mut connection = self.connections.one().await?;
        sqlx::query(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT 10000)",
        )
        .bind(before.as_microsecond())
        .execute(&mut *connection)
        .await
        .map(|done| done.rows_affected())
        .map_err(|error| self.context.of(error))
    }

    fn audit_entry(&self, row: Row) -> Result<AuditEntry, CatalogError> {
        let context = &self.context;
        let (id, at, kind, subject, token, peer, request, action, project, git_ref, scope, details) =
            row;
        Ok(AuditEntry {
            id: AuditId(id),
            at: self.time(at)?,
            origin: Origin {
                actor: Actor::of_columns(&kind, subject, token),
                peer: self.name_of(peer)?,
                request,
            },
            action: columns::parsed(context, &action)?,
            project: self.name_of(project)?,
            git_ref: self.name_of(git_ref)?,
            scope: self.name_of(scope)?,
            details: Details::of_column(details.as_deref())
                .map_err(|error| context.corrupt(error))?,
        })
    }
}
