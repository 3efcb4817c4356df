//! Leases, and the exports that are kept for them, by the same rule as in
//! SQLite: an export that leaves the log notes the newest lease of that moment,
//! and goes for good when neither that one nor an older one is left.
//!
//! There, one writes at a time. Here a lock stands for that: whoever takes a
//! lease shares it, whoever takes exports out of the log has it alone, so that
//! the newest lease is known and every later one finds them gone.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use super::{PostgresCatalog, lock, microseconds, numbers};
use crate::catalog::{CatalogError, ExportId, LeaseId};

/// The name of the lock.
pub(super) const LEASES: &str = "leases";

/// What nobody can read any more, a few at a time: each may have ten thousand
/// layers. Others may be at it, too.
const PURGE: &str = "WITH gone AS (
        DELETE FROM export WHERE key IN (
            SELECT key FROM export
            WHERE retired < (SELECT coalesce(min(number), 9223372036854775807) FROM lease)
            LIMIT $1 FOR UPDATE SKIP LOCKED)
        RETURNING key),
    layers AS (DELETE FROM layer WHERE export IN (SELECT key FROM gone) RETURNING digest),
    steps AS (DELETE FROM step WHERE export IN (SELECT key FROM gone)),
    orphaned AS (INSERT INTO candidate (digest, due)
        SELECT DISTINCT digest, statement_timestamp() FROM layers ORDER BY digest
        ON CONFLICT DO NOTHING)
    SELECT count(*) FROM gone";

/// What has expired; other writers may be at it, too.
const EXPIRED: [&str; 4] = [
    "WITH gone AS (DELETE FROM lease WHERE number IN (
             SELECT number FROM lease WHERE expires <= statement_timestamp()
             LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING 1)
     SELECT count(*) FROM gone",
    "WITH gone AS (DELETE FROM possession WHERE (project, digest, ref) IN (
             SELECT project, digest, ref FROM possession WHERE expires <= statement_timestamp()
             LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING digest),
     orphaned AS (INSERT INTO candidate (digest, due)
         SELECT DISTINCT digest, statement_timestamp() FROM gone
         WHERE NOT EXISTS (SELECT 1 FROM layer WHERE layer.digest = gone.digest)
         ORDER BY digest ON CONFLICT DO NOTHING)
     SELECT count(*) FROM gone",
    "WITH gone AS (DELETE FROM pin WHERE (digest, holder) IN (
             SELECT digest, holder FROM pin WHERE expires <= statement_timestamp()
             LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING digest),
     orphaned AS (INSERT INTO candidate (digest, due)
         SELECT DISTINCT digest, statement_timestamp() FROM gone
         WHERE NOT EXISTS (SELECT 1 FROM layer WHERE layer.digest = gone.digest)
         ORDER BY digest ON CONFLICT DO NOTHING)
     SELECT count(*) FROM gone",
    // Each may have fifty thousand blocks.
    "WITH gone AS (DELETE FROM upload WHERE id IN (
             SELECT id FROM upload WHERE expires <= statement_timestamp()
             LIMIT least($1, 16) FOR UPDATE SKIP LOCKED)
         RETURNING 1)
     SELECT CASE WHEN count(*) < 16 THEN 0 ELSE $1 END FROM gone",
];

/// How long one call may be about it that is made for it.
const PURGING: Duration = Duration::from_secs(10);
/// Rows that have expired, of each kind, and exports that one statement drops:
/// beside another write,
const LITTLE: (i64, i64) = (500, 4);
/// and in a call that is made for it.
const MUCH: (i64, i64) = (10_000, 16);

impl PostgresCatalog {
    pub(super) async fn insert_lease(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.lock(&mut tx, lock!("pg_advisory_xact_lock_shared"), LEASES)
            .await?;
        sqlx::query(
            "INSERT INTO lease (token, expires)
             VALUES ($1, statement_timestamp() + $2 * interval '1 microsecond')",
        )
        .bind(lease.0)
        .bind(microseconds(ttl))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(())
    }

    pub(super) async fn update_lease(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<bool, CatalogError> {
        let mut connection = self.connections.one().await?;
        let renewed = sqlx::query(
            "UPDATE lease SET expires = statement_timestamp() + $2 * interval '1 microsecond'
             WHERE token = $1 AND expires > statement_timestamp()",
        )
        .bind(lease.0)
        .bind(microseconds(ttl))
        .execute(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?
        .rows_affected();
        self.purge_after(&mut connection).await;
        Ok(renewed > 0)
    }

    pub(super) async fn delete_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        sqlx::query("DELETE FROM lease WHERE token = $1")
            .bind(lease.0)
            .execute(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        self.purge_after(&mut connection).await;
        Ok(())
    }

    pub(super) async fn retire_exports(
        &self,
        exports: &[ExportId],
        by: Option<ExportId>,
    ) -> Result<u64, CatalogError> {
        let failed = |error| self.context.of(error);
        let ids = numbers(exports);
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.lock(&mut tx, lock!("pg_advisory_xact_lock"), LEASES)
            .await?;
        let retired = sqlx::query(
            "UPDATE export SET retired = (SELECT coalesce(max(number), 0) FROM lease)
             WHERE retired IS NULL AND id = ANY($1)",
        )
        .bind(&ids)
        .execute(&mut *tx)
        .await
        .map_err(failed)?
        .rows_affected();
        if let Some(by) = by {
            // What they had subsumed is subsumed by this one as well.
            for statement in [
                "UPDATE subsumed SET heir = $2 WHERE heir = ANY($1)",
                "INSERT INTO subsumed (export, heir) SELECT DISTINCT given, $2 FROM unnest($1) AS given
                 ON CONFLICT (export) DO UPDATE SET heir = excluded.heir",
            ] {
                sqlx::query(statement)
                    .bind(&ids)
                    .bind(by.0)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            }
            sqlx::query("DELETE FROM subsumed WHERE export < $1 - 100000")
                .bind(by.0)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        self.purge_after(&mut connection).await;
        Ok(retired)
    }

    pub(super) async fn count_leased(&self) -> Result<u64, CatalogError> {
        let mut connection = self.connections.one().await?;
        let count = sqlx::query_scalar("SELECT count(*) FROM export WHERE retired IS NOT NULL")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        self.context.count(count)
    }

    pub(super) async fn subsumed_exports(
        &self,
        exports: &[ExportId],
    ) -> Result<Vec<ExportId>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Vec<i64> = sqlx::query_scalar(
            "SELECT subsumed.export FROM subsumed JOIN export ON export.id = subsumed.heir
             WHERE retired IS NULL AND subsumed.export = ANY($1) ORDER BY subsumed.export",
        )
        .bind(numbers(exports))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(found.into_iter().map(ExportId).collect())
    }

    /// Drops a little of what has expired, and of what nobody can read any more:
    /// who renews a lease waits for it. What is left is dropped by
    /// housekeeping and by later writes, also where this one fails: what it was
    /// called for is done.
    pub(super) async fn purge_after(&self, connection: &mut PgConnection) {
        if let Err(error) = purge(connection, LITTLE).await {
            tracing::warn!(%error, "what nobody reads any more is left in the catalog for now");
        }
    }

    pub(super) async fn purge_now(&self) -> Result<(), CatalogError> {
        let began = Instant::now();
        let mut connection = self.connections.one().await?;
        while began.elapsed() < PURGING {
            let purged = purge(&mut connection, MUCH).await;
            if !purged.map_err(|error| self.context.of(error))? {
                break;
            }
        }
        Ok(())
    }
}

/// Whether there may be more.
async fn purge(
    connection: &mut PgConnection,
    (rows, exports): (i64, i64),
) -> Result<bool, sqlx::Error> {
    let mut more = false;
    for statement in EXPIRED {
        let gone: i64 = sqlx::query_scalar(statement)
            .bind(rows)
            .fetch_one(&mut *connection)
            .await?;
        more |= gone >= rows;
    }
    let gone: i64 = sqlx::query_scalar(PURGE)
        .bind(exports)
        .fetch_one(&mut *connection)
        .await?;
    Ok(more || gone > 0)
}
