//! What was of use, noted of the exports that it is part of.
//!
//! Exports are looked for without a lock, an index look-up for each blob, and
//! no statement goes through more rows than so many. Of what was found a
//! statement of its own notes it, which waits for no other writer: an export
//! that another one writes to is noted by that one, or leaves the log.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{PostgresCatalog, arrays};
use crate::catalog::collecting::{AT_ONCE, HOUR, MOST};
use crate::catalog::{CatalogError, Uses};
use crate::digest::Digest;

/// Those of `$1` that more than `$3` exports of the project name.
const COMMON: &str = "SELECT DISTINCT asked.digest FROM unnest($1::bytea[]) AS asked (digest)
    WHERE (SELECT count(*) FROM (
               SELECT 1 FROM layer WHERE layer.digest = asked.digest AND layer.project = $2
               LIMIT $3::bigint + 1) AS naming) > $3::bigint";

/// The newest that names each, by place.
const RARE: &str = "SELECT max(export.id) FROM layer JOIN export ON export.key = layer.export
    WHERE layer.digest = ANY($1) AND layer.project = $2 AND retired IS NULL AND export.id IS NOT NULL
    GROUP BY layer.digest, ref, scope";

/// The same, of the newest exports of the project.
const RECENT: &str = "SELECT max(recent.id) FROM (
        SELECT key, id, ref, scope FROM export
        WHERE project = $2 AND retired IS NULL AND id IS NOT NULL
        ORDER BY id DESC LIMIT $3::bigint) AS recent
    JOIN layer ON layer.export = recent.key AND layer.digest = ANY($1)
    GROUP BY layer.digest, ref, scope";

/// The newest of each scope, of the newest exports of a ref.
const OF_REF: &str = "SELECT max(id) FROM (
        SELECT id, scope FROM export
        WHERE project = (SELECT id FROM project WHERE name = $1) AND ref = $2
            AND retired IS NULL AND id IS NOT NULL AND kind = 0
        ORDER BY id DESC LIMIT $3::bigint) AS recent
    GROUP BY scope";

const NOTE: &str = "UPDATE export SET used = $2 WHERE key IN (
        SELECT key FROM export
        WHERE id = ANY($1) AND retired IS NULL AND greatest(used, written) <= $2 - $3
        ORDER BY key FOR NO KEY UPDATE SKIP LOCKED)";

impl PostgresCatalog {
    pub(super) async fn clock(&self) -> Result<Timestamp, CatalogError> {
        let mut connection = self.connections.one().await?;
        let now: i64 = sqlx::query_scalar(
            "SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        Timestamp::from_microsecond(now).map_err(|error| self.context.other(error))
    }

    pub(super) async fn write_uses(&self, uses: &Uses, at: Timestamp) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let at = at.min(self.clock().await?);
        let mut connection = self.connections.one().await?;
        for (project, blobs) in &uses.blobs {
            let projects: Vec<i32> =
                sqlx::query_scalar("SELECT id FROM project WHERE $1::text IS NULL OR name = $1")
                    .bind(project.as_ref().map(|project| project.as_str()))
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(failed)?;
            let blobs: Vec<Digest> = blobs.iter().copied().collect();
            for project in projects {
                for page in blobs.chunks(AT_ONCE) {
                    let found = self.naming_newest(&mut connection, project, page).await?;
                    self.note(&mut connection, &found, at).await?;
                }
            }
        }
        for (project, git_ref) in &uses.refs {
            let found: Vec<i64> = sqlx::query_scalar(OF_REF)
                .bind(project.as_str())
                .bind(git_ref.as_str())
                .bind(MOST)
                .fetch_all(&mut *connection)
                .await
                .map_err(failed)?;
            self.note(&mut connection, &found, at).await?;
        }
        Ok(())
    }

    /// Of every place of the project the newest export that names one of them.
    async fn naming_newest(
        &self,
        connection: &mut PgConnection,
        project: i32,
        blobs: &[Digest],
    ) -> Result<Vec<i64>, CatalogError> {
        let failed = |error| self.context.of(error);
        let common: Vec<Vec<u8>> = sqlx::query_scalar(COMMON)
            .bind(arrays(blobs))
            .bind(project)
            .bind(MOST)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        let is_common = |digest: &&[u8]| common.iter().any(|common| common == digest);
        let (common, rare): (Vec<&[u8]>, Vec<&[u8]>) =
            arrays(blobs).into_iter().partition(is_common);
        let mut found: Vec<i64> = Vec::new();
        for (statement, blobs) in [(RARE, rare), (RECENT, common)] {
            if blobs.is_empty() {
                continue;
            }
            let newest = sqlx::query_scalar(statement)
                .bind(blobs)
                .bind(project)
                .bind(MOST)
                .fetch_all(&mut *connection);
            found.extend::<Vec<i64>>(newest.await.map_err(failed)?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn note(
        &self,
        connection: &mut PgConnection,
        exports: &[i64],
        at: Timestamp,
    ) -> Result<(), CatalogError> {
        for some in exports.chunks(1000) {
            sqlx::query(NOTE)
                .bind(some)
                .bind(at.as_microsecond())
                .bind(HOUR)
                .execute(&mut *connection)
                .await
                .map_err(|error| self.context.of(error))?;
        }
        Ok(())
    }
}
