//! Leases, and the exports that are kept for them.
//!
//! A lease says nothing of what it is for. An export that leaves the log notes
//! the newest lease of that moment; it goes for good when neither that one nor
//! an older one is left. So a lease costs one small row however much is read
//! under it, and an export that nobody reads costs nothing. The row's number
//! gives that order; its holder knows it by a token that can't be guessed.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::SqliteCatalog;
use super::turn::Turn;
use crate::catalog::{CatalogError, ExportId, LeaseId};

/// How long a call may be about it that is made for purging.
const PURGING: Duration = Duration::from_secs(10);

/// Rows of each kind that go in one transaction.
const ROWS: i64 = 500;

/// Exports that nobody can read any more, with `?2` layers together or one of
/// them alone.
macro_rules! unread {
    () => {
        "SELECT id FROM (
             SELECT id, sum(layers) OVER (ORDER BY retired, id) - layers AS before FROM (
                 SELECT id, retired, layers FROM export
                 WHERE retired < (SELECT ifnull(min(id), 9223372036854775807) FROM lease)
                 ORDER BY retired, id LIMIT 64))
         WHERE before < ?2"
    };
}

/// What has ended at `?1`, `?2` rows of each kind, and what becomes a candidate
/// since that which named it goes: before it goes. A blob that an export names
/// is left to that.
const PURGE: [&str; 8] = [
    "DELETE FROM lease WHERE id IN (SELECT id FROM lease WHERE expires <= ?1 LIMIT ?2)",
    "INSERT INTO candidate (digest, due) SELECT DISTINCT digest, ?1 FROM (
         SELECT digest FROM possession WHERE expires <= ?1
         ORDER BY expires, project, digest, ref LIMIT ?2) AS gone
     WHERE NOT EXISTS (SELECT 1 FROM layer WHERE layer.digest = gone.digest)
     ON CONFLICT DO NOTHING",
    "DELETE FROM possession WHERE (project, digest, ref) IN (
         SELECT project, digest, ref FROM possession WHERE expires <= ?1
         ORDER BY expires, project, digest, ref LIMIT ?2)",
    "INSERT INTO candidate (digest, due) SELECT DISTINCT digest, ?1 FROM (
         SELECT digest FROM pin WHERE expires <= ?1
         ORDER BY expires, digest, holder LIMIT ?2) AS gone
     WHERE NOT EXISTS (SELECT 1 FROM layer WHERE layer.digest = gone.digest)
     ON CONFLICT DO NOTHING",
    "DELETE FROM pin WHERE (digest, holder) IN (
         SELECT digest, holder FROM pin WHERE expires <= ?1
         ORDER BY expires, digest, holder LIMIT ?2)",
    concat!(
        "INSERT INTO candidate (digest, due) SELECT DISTINCT digest, ?1 FROM layer WHERE export IN (",
        unread!(),
        ") ON CONFLICT DO NOTHING"
    ),
    concat!("DELETE FROM export WHERE id IN (", unread!(), ") AND ?1"),
    // Each may have fifty thousand blocks.
    "DELETE FROM upload WHERE id IN (SELECT id FROM upload WHERE expires <= ?1 LIMIT min(?2, 4))",
];

impl SqliteCatalog {
    pub(super) async fn insert_lease(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        sqlx::query("INSERT INTO lease (token, expires) VALUES (?1, ?2)")
            .bind(lease.0)
            .bind(end(ttl))
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    pub(super) async fn update_lease(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<bool, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let renewed =
            sqlx::query("UPDATE lease SET expires = ?2 WHERE token = ?1 AND expires > ?3")
                .bind(lease.0)
                .bind(end(ttl))
                .bind(Timestamp::now().as_microsecond())
                .execute(&mut *tx)
                .await
                .map_err(failed)?
                .rows_affected();
        self.purge_in(&mut tx).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(renewed > 0)
    }

    pub(super) async fn delete_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        sqlx::query("DELETE FROM lease WHERE token = ?1")
            .bind(lease.0)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        self.purge_in(&mut tx).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    pub(super) async fn retire_exports(
        &self,
        exports: &[ExportId],
        by: Option<ExportId>,
    ) -> Result<u64, CatalogError> {
        let failed = |error| self.context.of(error);
        let ids = numbers(exports);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let retired = sqlx::query(
            "UPDATE export SET retired = (SELECT ifnull(max(id), 0) FROM lease)
             WHERE retired IS NULL AND id IN (SELECT value FROM json_each(?1))",
        )
        .bind(&ids)
        .execute(&mut *tx)
        .await
        .map_err(failed)?
        .rows_affected();
        if let Some(by) = by {
            // What they had subsumed is subsumed by this one as well.
            for statement in [
                "UPDATE subsumed SET by = ?2 WHERE by IN (SELECT value FROM json_each(?1))",
                "INSERT OR REPLACE INTO subsumed (export, by) SELECT value, ?2 FROM json_each(?1)",
                "DELETE FROM subsumed WHERE export < ?2 - 100000",
            ] {
                sqlx::query(statement)
                    .bind(&ids)
                    .bind(by.0)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            }
        }
        self.purge_in(&mut tx).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(retired)
    }

    pub(super) async fn count_leased(&self) -> Result<u64, CatalogError> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM export WHERE retired IS NOT NULL")
                .fetch_one(self.readers())
                .await
                .map_err(|error| self.context.of(error))?;
        self.context.count(count)
    }

    pub(super) async fn subsumed_exports(
        &self,
        exports: &[ExportId],
    ) -> Result<Vec<ExportId>, CatalogError> {
        let found: Vec<i64> = sqlx::query_scalar(
            "SELECT subsumed.export FROM subsumed JOIN export ON export.id = subsumed.by
             WHERE export.retired IS NULL AND subsumed.export IN (SELECT value FROM json_each(?1))",
        )
        .bind(numbers(exports))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(found.into_iter().map(ExportId).collect())
    }

    /// Drops a little of what has expired, and of what nobody can read any more,
    /// since other writers wait meanwhile; gives whether there may be more.
    pub(super) async fn purge_in(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
    ) -> Result<bool, CatalogError> {
        let now = Timestamp::now().as_microsecond();
        let mut gone = 0;
        for statement in PURGE {
            gone += sqlx::query(statement)
                .bind(now)
                .bind(ROWS)
                .execute(&mut **tx)
                .await
                .map_err(|error| self.context.of(error))?
                .rows_affected();
        }
        Ok(gone > 0)
    }

    /// A little after the other, so that other writers get their turns.
    pub(super) async fn purge_all(&self) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let began = Instant::now();
        loop {
            let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
            let mut tx = turn.write().await.map_err(failed)?;
            let more = self.purge_in(&mut tx).await?;
            tx.commit().await.map_err(failed)?;
            turn.keep();
            if !more || began.elapsed() >= PURGING {
                return Ok(());
            }
        }
    }
}

/// As JSON.
fn numbers(exports: &[ExportId]) -> String {
    let numbers: Vec<i64> = exports.iter().map(|export| export.0).collect();
    serde_json::json!(numbers).to_string()
}

/// When that time from now is over, in microseconds since 1970.
pub(super) fn end(ttl: Duration) -> i64 {
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    Timestamp::now().as_microsecond().saturating_add(ttl)
}
