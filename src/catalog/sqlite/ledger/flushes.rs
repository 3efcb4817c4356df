//! Flushes, and that they were.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};

use crate::catalog::ledger::{FlushNote, KEPT, NOTED, NewFlush, flushed};
use crate::catalog::sqlite::turn::Turn;
use crate::catalog::sqlite::{SqliteCatalog, rows};
use crate::catalog::{CatalogError, columns};
use crate::moment::Moment;
use crate::place::{GitRef, Place, Scope};

impl SqliteCatalog {
    pub(super) async fn flush_exports(&self, flush: &NewFlush) -> Result<u64, CatalogError> {
        let failed = |error| self.context.of(error);
        let (git_ref, scope) = (flush.git_ref.as_ref(), flush.scope.as_ref());
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let project = self.project(&mut tx, &flush.project).await?;
        let exports = sqlx::query(
            "UPDATE export SET retired = (SELECT ifnull(max(id), 0) FROM lease)
             WHERE retired IS NULL AND project = ?1
               AND (?2 IS NULL OR ref = ?2) AND (?3 IS NULL OR scope = ?3)",
        )
        .bind(project)
        .bind(git_ref.map(GitRef::as_str))
        .bind(scope.map(Scope::as_str))
        .execute(&mut *tx)
        .await
        .map_err(failed)?
        .rows_affected();
        sqlx::query("DELETE FROM flush WHERE at < ?1")
            .bind((Timestamp::now() - KEPT).as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        self.audited(&mut tx, &flush.audit(exports)).await?;
        self.purge_in(&mut tx).await?;
        // At the end: what began before nobody could see it began before it.
        sqlx::query(
            "INSERT INTO flush (project, ref, scope, at, author, exports) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(project)
        .bind(git_ref.map(GitRef::as_str))
        .bind(scope.map(Scope::as_str))
        .bind(Timestamp::now().as_microsecond())
        .bind(columns::short(Some(flush.origin.actor.name())))
        .bind(self.context.integer(exports)?)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(exports)
    }

    /// Refuses an export to `place`, of the project with that number, whose
    /// build began before it was flushed.
    pub(in crate::catalog::sqlite) async fn not_flushed_since(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        project: i64,
        place: &Place,
        began: Moment,
    ) -> Result<(), CatalogError> {
        let now = Timestamp::now().as_microsecond();
        let ago = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let since: Option<SqliteRow> = sqlx::query(
            "SELECT ref, scope, author, ?5 - at AS ago FROM flush
             WHERE project = ?1 AND (ref IS NULL OR ref = ?2) AND (scope IS NULL OR scope = ?3)
               AND at >= ?4 ORDER BY id DESC LIMIT 1",
        )
        .bind(project)
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .bind(now.saturating_sub(ago))
        .bind(now)
        .fetch_optional(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))?;
        let Some(row) = since else { return Ok(()) };
        let what = (self.name(&row, "ref")?, self.name(&row, "scope")?);
        let ago: i64 = self.column(&row, "ago")?;
        let ago = Duration::from_micros(ago.try_into().unwrap_or(0));
        let by = self.column(&row, "author")?;
        Err(flushed(&place.project, what, by, ago))
    }

    /// Something was exported to `place`, of the project with that number:
    /// flushes of it have been told for long enough.
    pub(in crate::catalog::sqlite) async fn answer_flushes(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        project: i64,
        place: &Place,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT OR IGNORE INTO flush_answer (flush, ref, scope)
             SELECT id, ?2, ?3 FROM flush
             WHERE project = ?1 AND (ref IS NULL OR ref = ?2) AND (scope IS NULL OR scope = ?3)",
        )
        .bind(project)
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .execute(&mut **tx)
        .await
        .map(drop)
        .map_err(|error| self.context.of(error))
    }

    pub(super) async fn list_flushes(&self, place: &Place) -> Result<Vec<FlushNote>, CatalogError> {
        if !self.keeps_ledger().await? {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT ref, scope, at, author, exports FROM flush
             WHERE project = (SELECT id FROM project WHERE name = ?1) AND at >= ?4
               AND NOT EXISTS (SELECT 1 FROM flush_answer AS answer
                   WHERE answer.flush = flush.id AND (answer.ref = ?2 OR answer.ref = flush.ref)
                     AND (?3 = '*' OR answer.scope = ?3))
             ORDER BY id DESC LIMIT 100",
        )
        .bind(place.project.as_str())
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .bind((Timestamp::now() - NOTED).as_microsecond())
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let note = |row| {
            Ok(FlushNote {
                project: place.project.clone(),
                git_ref: self.name(row, "ref")?,
                scope: self.name(row, "scope")?,
                at: self.time(row, "at")?,
                by: self.column(row, "author")?,
                exports: rows::count(&self.context, row, "exports")?,
            })
        };
        rows.iter().map(note).collect()
    }
}
