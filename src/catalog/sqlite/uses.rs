//! What was of use, noted of the exports that it is part of.
//!
//! Exports are looked for without the write lock, an index look-up for each
//! blob, and no statement goes through more of them than so many.

use jiff::Timestamp;

use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::catalog::collecting::{AT_ONCE, HOUR, MOST};
use crate::catalog::{CatalogError, Uses};
use crate::digest::Digest;

/// Those of `?1` that more than `?3` layers of the project's exports are.
const COMMON: &str = "SELECT unhex(asked.value) AS digest FROM json_each(?1) AS asked
    WHERE (SELECT count(*) FROM (
               SELECT 1 FROM layer WHERE layer.digest = unhex(asked.value) AND layer.project = ?2
               LIMIT ?3 + 1)) > ?3";

/// The newest that names each, by place.
const RARE: &str = "SELECT max(export.id) FROM json_each(?1) AS asked
    CROSS JOIN layer ON layer.digest = unhex(asked.value) AND layer.project = ?2
    CROSS JOIN export ON export.id = layer.export
    WHERE retired IS NULL AND ?3 GROUP BY layer.digest, ref, scope";

/// The same, of the newest exports of the project.
const RECENT: &str = "SELECT max(recent.id) FROM (
        SELECT id, ref, scope FROM export WHERE project = ?2 AND retired IS NULL
        ORDER BY id DESC LIMIT ?3) AS recent
    CROSS JOIN layer ON layer.export = recent.id
    WHERE layer.digest IN (SELECT unhex(value) FROM json_each(?1))
    GROUP BY layer.digest, ref, scope";

/// The newest of each scope, of the newest exports of a ref.
const OF_REF: &str = "SELECT max(id) FROM (
        SELECT id, scope FROM export
        WHERE project = (SELECT id FROM project WHERE name = ?1) AND ref = ?2 AND retired IS NULL
            AND kind = 0
        ORDER BY id DESC LIMIT ?3)
    GROUP BY scope";

const NOTE: &str = "UPDATE export SET used = ?2
    WHERE id IN (SELECT value FROM json_each(?1)) AND retired IS NULL
        AND max(ifnull(used, time), time) <= ?2 - ?3";

impl SqliteCatalog {
    pub(super) async fn write_uses(&self, uses: &Uses, at: Timestamp) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let at = at.min(Timestamp::now());
        for (project, blobs) in &uses.blobs {
            let projects: Vec<i64> =
                sqlx::query_scalar("SELECT id FROM project WHERE ?1 IS NULL OR name = ?1")
                    .bind(project.as_ref().map(|project| project.as_str()))
                    .fetch_all(self.readers())
                    .await
                    .map_err(failed)?;
            let blobs: Vec<Digest> = blobs.iter().copied().collect();
            for project in projects {
                for page in blobs.chunks(AT_ONCE) {
                    let found = self.naming_newest(project, page).await?;
                    self.note(&found, at).await?;
                }
            }
        }
        for (project, git_ref) in &uses.refs {
            let found: Vec<i64> = sqlx::query_scalar(OF_REF)
                .bind(project.as_str())
                .bind(git_ref.as_str())
                .bind(MOST)
                .fetch_all(self.readers())
                .await
                .map_err(failed)?;
            self.note(&found, at).await?;
        }
        Ok(())
    }

    /// Of every place of the project the newest export that names one of them.
    async fn naming_newest(
        &self,
        project: i64,
        blobs: &[Digest],
    ) -> Result<Vec<i64>, CatalogError> {
        let failed = |error| self.context.of(error);
        let common = sqlx::query(COMMON)
            .bind(rows::hexes(blobs))
            .bind(project)
            .bind(MOST)
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        let common = self.digests(&common)?;
        let (common, rare): (Vec<Digest>, Vec<Digest>) =
            blobs.iter().partition(|digest| common.contains(digest));
        let mut found: Vec<i64> = Vec::new();
        for (statement, blobs) in [(RARE, rare), (RECENT, common)] {
            if blobs.is_empty() {
                continue;
            }
            let newest = sqlx::query_scalar(statement)
                .bind(rows::hexes(&blobs))
                .bind(project)
                .bind(MOST)
                .fetch_all(self.readers());
            found.extend::<Vec<i64>>(newest.await.map_err(failed)?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn note(&self, exports: &[i64], at: Timestamp) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        for some in exports.chunks(1000) {
            let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
            let mut tx = turn.write().await.map_err(failed)?;
            sqlx::query(NOTE)
                .bind(serde_json::json!(some).to_string())
                .bind(at.as_microsecond())
                .bind(HOUR)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            tx.commit().await.map_err(failed)?;
            turn.keep();
        }
        Ok(())
    }
}
