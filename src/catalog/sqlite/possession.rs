//! Who has uploaded what: a row for a project and a blob, until it expires.

use std::time::Duration;

use jiff::Timestamp;

use super::leases::end;
use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::catalog::CatalogError;
use crate::catalog::pages::{PAGE, Page};
use crate::digest::Digest;
use crate::place::ProjectId;

pub(super) const POSSESSED_AFTER: &str = "SELECT digest, max(size) AS size FROM possession
    WHERE digest > ?1 AND expires > ?3 GROUP BY digest ORDER BY digest LIMIT ?2";

impl SqliteCatalog {
    pub(super) async fn insert_possessions(
        &self,
        project: &ProjectId,
        blobs: &[(Digest, u64)],
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut asked = Vec::with_capacity(blobs.len());
        for (digest, size) in blobs {
            asked.push((digest.hex(), self.context.integer(*size)?));
        }
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let project = self.project(&mut tx, project).await?;
        // Without WHERE, ON CONFLICT would be read as the condition of a join.
        sqlx::query(
            "INSERT INTO possession (project, digest, size, expires)
             SELECT ?1, unhex(value ->> 0), value ->> 1, ?3 FROM json_each(?2) WHERE true
             ON CONFLICT (project, digest) DO UPDATE SET
                 size = excluded.size, expires = max(expires, excluded.expires)",
        )
        .bind(project)
        .bind(serde_json::json!(asked).to_string())
        .bind(end(ttl))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.purge(&mut tx).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    /// Those of the digests that the project has uploaded, with their sizes.
    pub(super) async fn possessed(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Page, CatalogError> {
        if digests.is_empty() || !self.keeps_possession().await? {
            return Ok(Page::new());
        }
        let rows = sqlx::query(
            "SELECT digest, size FROM possession
             WHERE project = (SELECT id FROM project WHERE name = ?2) AND expires > ?3
               AND digest IN (SELECT unhex(value) FROM json_each(?1))",
        )
        .bind(rows::hexes(digests))
        .bind(project.as_str())
        .bind(Timestamp::now().as_microsecond())
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|row| rows::blob(&self.context, row))
            .collect()
    }

    /// The next page of what anybody has uploaded.
    pub(super) async fn possessed_after(&self, last: Option<Digest>) -> Result<Page, CatalogError> {
        if !self.keeps_possession().await? {
            return Ok(Page::new());
        }
        let rows = sqlx::query(POSSESSED_AFTER)
            .bind(last.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec()))
            .bind(PAGE)
            .bind(Timestamp::now().as_microsecond())
            .fetch_all(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|row| rows::blob(&self.context, row))
            .collect()
    }

    /// A catalog that takes no writes may be as an older layerd left it.
    async fn keeps_possession(&self) -> Result<bool, CatalogError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'possession')",
        )
        .fetch_one(self.readers())
        .await
        .map_err(|error| self.context.of(error))
    }
}
