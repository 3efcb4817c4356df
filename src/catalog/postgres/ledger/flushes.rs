//! Flushes, and that they were.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::now;
use crate::catalog::ledger::{FlushNote, KEPT, NOTED, NewFlush, flushed};
use crate::catalog::postgres::append::APPEND;
use crate::catalog::postgres::{PostgresCatalog, leases, lock, microseconds};
use crate::catalog::{CatalogError, columns};
use crate::moment::Moment;
use crate::place::{GitRef, Place, Scope};

/// Ref, scope, time, author, exports.
type Row = (Option<String>, Option<String>, i64, String, i64);

impl PostgresCatalog {
    pub(super) async fn flush_exports(&self, flush: &NewFlush) -> Result<u64, CatalogError> {
        let failed = |error| self.context.of(error);
        let (git_ref, scope) = (flush.git_ref.as_ref(), flush.scope.as_ref());
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, &flush.project).await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.lock(&mut tx, lock!("pg_advisory_xact_lock"), leases::LEASES)
            .await?;
        // What is being appended is in the log by now, or will find the note.
        self.lock(&mut tx, lock!("pg_advisory_xact_lock"), APPEND)
            .await?;
        let exports = sqlx::query(
            "UPDATE export SET retired = (SELECT coalesce(max(number), 0) FROM lease)
             WHERE retired IS NULL AND project = $1
               AND ($2::text IS NULL OR ref = $2) AND ($3::text IS NULL OR scope = $3)",
        )
        .bind(project)
        .bind(git_ref.map(GitRef::as_str))
        .bind(scope.map(Scope::as_str))
        .execute(&mut *tx)
        .await
        .map_err(failed)?
        .rows_affected();
        sqlx::query(concat!(
            "DELETE FROM flush WHERE id IN (
                 SELECT id FROM flush WHERE at < ",
            now!(),
            " - $1 FOR UPDATE SKIP LOCKED)"
        ))
        .bind(microseconds(KEPT))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.audited(&mut tx, &flush.audit(exports)).await?;
        // At the end: what began before nobody could see it began before it.
        sqlx::query(concat!(
            "INSERT INTO flush (project, ref, scope, at, author, exports)
             VALUES ($1, $2, $3, ",
            now!(),
            ", $4, $5)"
        ))
        .bind(project)
        .bind(git_ref.map(GitRef::as_str))
        .bind(scope.map(Scope::as_str))
        .bind(columns::short(Some(flush.origin.actor.name())))
        .bind(self.context.integer(exports)?)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        self.purge_after(&mut connection).await;
        Ok(exports)
    }

    /// Refuses an export to `place`, of the project with that number, whose
    /// build began before it was flushed. The lock for appending is held.
    pub(in crate::catalog::postgres) async fn not_flushed_since(
        &self,
        connection: &mut PgConnection,
        project: i32,
        place: &Place,
        began: Moment,
    ) -> Result<(), CatalogError> {
        let since: Option<(Option<String>, Option<String>, String, i64)> = sqlx::query_as(concat!(
            "SELECT ref, scope, author, ",
            now!(),
            " - at FROM flush
             WHERE project = $1 AND (ref IS NULL OR ref = $2) AND (scope IS NULL OR scope = $3)
               AND at >= ",
            now!(),
            " - $4 ORDER BY id DESC LIMIT 1"
        ))
        .bind(project)
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .bind(microseconds(began.elapsed()))
        .fetch_optional(connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let Some((git_ref, scope, by, ago)) = since else {
            return Ok(());
        };
        let what = (self.name_of(git_ref)?, self.name_of(scope)?);
        let ago = Duration::from_micros(ago.try_into().unwrap_or(0));
        Err(flushed(&place.project, what, by, ago))
    }

    /// Something was exported to `place`, of the project with that number:
    /// flushes of it have been told for long enough.
    pub(in crate::catalog::postgres) async fn answer_flushes(
        &self,
        connection: &mut PgConnection,
        project: i32,
        place: &Place,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO flush_answer (flush, ref, scope)
             SELECT id, $2, $3 FROM flush
             WHERE project = $1 AND (ref IS NULL OR ref = $2) AND (scope IS NULL OR scope = $3)
             ON CONFLICT DO NOTHING",
        )
        .bind(project)
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| self.context.of(error))
    }

    pub(super) async fn list_flushes(&self, place: &Place) -> Result<Vec<FlushNote>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT ref, scope, at, author, exports FROM flush
             WHERE project = (SELECT id FROM project WHERE name = $1) AND at >= ",
            now!(),
            " - $4 AND NOT EXISTS (SELECT 1 FROM flush_answer AS answer
                   WHERE answer.flush = flush.id AND (answer.ref = $2 OR answer.ref = flush.ref)
                     AND ($3 = '*' OR answer.scope = $3))
             ORDER BY id DESC LIMIT 100"
        ))
        .bind(place.project.as_str())
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .bind(microseconds(NOTED))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let note = |(git_ref, scope, at, by, exports): Row| {
            Ok(FlushNote {
                project: place.project.clone(),
                git_ref: self.name_of(git_ref)?,
                scope: self.name_of(scope)?,
                at: self.time(at)?,
                by,
                exports: self.context.count(exports)?,
            })
        };
        rows.into_iter().map(note).collect()
    }
}
