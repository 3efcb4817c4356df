//! Leases, and the exports that are kept for them.
//!
//! A lease says nothing of what it is for. An export that leaves the log notes
//! the newest lease of that moment; it goes for good when neither that one nor
//! an older one is left. So a lease costs one small row however much is read
//! under it, and an export that nobody reads costs nothing. The row's number
//! gives that order; its holder knows it by a token that can't be guessed.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::SqliteCatalog;
use super::collecting::ORPHANED;
use super::turn::Turn;
use crate::catalog::{CatalogError, ExportId, LeaseId};

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

    /// Drops what has expired, and what nobody can read any more.
    pub(super) async fn purge_in(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let now = Timestamp::now().as_microsecond();
        let ended = ["DELETE FROM lease WHERE expires <= ?1"];
        let expired = [
            "DELETE FROM possession WHERE expires <= ?1",
            "DELETE FROM pin WHERE expires <= ?1",
        ];
        for statement in ended.into_iter().chain(ORPHANED).chain(expired) {
            sqlx::query(statement)
                .bind(now)
                .execute(&mut **tx)
                .await
                .map_err(failed)?;
        }
        sqlx::query(
            "DELETE FROM export WHERE retired < (SELECT ifnull(min(id), 9223372036854775807) FROM lease)",
        )
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        Ok(())
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
