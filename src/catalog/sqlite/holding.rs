//! Which blobs a project holds, by its exports or by having uploaded them: a row
//! for a project and a blob, until it expires.
//!
//! An append takes away what was uploaded for it as it names it. So whoever asks
//! for both asks first for what was uploaded: what is not there any more is
//! named by then.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;

use super::leases::end;
use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::catalog::pages::{self, PAGE, Page};
use crate::catalog::{CatalogError, ExportId};
use crate::digest::Digest;
use crate::place::{GitRef, ProjectId};

pub(super) const HOLDS: &str = "SELECT size FROM layer JOIN export ON export.id = layer.export
    WHERE digest = ?1 AND layer.project = (SELECT id FROM project WHERE name = ?2)
      AND retired IS NULL LIMIT 1";

const HELD: &str = "SELECT unhex(value) AS digest FROM json_each(?1) WHERE EXISTS (
        SELECT 1 FROM layer
        WHERE digest = unhex(value) AND project = (SELECT id FROM project WHERE name = ?2))";

/// The same, of some refs.
pub(super) const VISIBLE: &str = "SELECT unhex(result.value) AS digest
    FROM json_each(?1) AS result WHERE EXISTS (
        SELECT 1 FROM layer CROSS JOIN export ON export.id = layer.export
        WHERE digest = unhex(result.value)
          AND layer.project = (SELECT id FROM project WHERE name = ?2)
          AND +ref IN (SELECT value FROM json_each(?3) AS readable))";

/// From one ref to the next: what has the same is passed over.
pub(super) const REFS: &str = "WITH RECURSIVE known (ref) AS (
        SELECT min(ref) FROM export WHERE project = (SELECT id FROM project WHERE name = ?1)
        UNION ALL
        SELECT (SELECT min(ref) FROM export
                WHERE project = (SELECT id FROM project WHERE name = ?1) AND ref > known.ref)
        FROM known WHERE known.ref IS NOT NULL)
    SELECT ref FROM known WHERE ref IS NOT NULL";

const POSSESSORS: &str = "SELECT DISTINCT ref FROM possession
    WHERE project = (SELECT id FROM project WHERE name = ?1) AND expires > ?2";

/// Whoever has it.
pub(super) const NAMED_IN_LOG: &str = "SELECT unhex(result.value) AS digest
    FROM json_each(?1) AS result WHERE EXISTS (
        SELECT 1 FROM layer CROSS JOIN export ON export.id = layer.export
        WHERE digest = unhex(result.value) AND retired IS NULL)";

const POSSESSED_BY_ANY: &str = "SELECT unhex(value) AS digest FROM json_each(?1) WHERE EXISTS (
        SELECT 1 FROM possession WHERE digest = unhex(value) AND expires > ?2)";

pub(super) const PAGE_AFTER: &str = "SELECT digest, max(size) AS size FROM layer
    WHERE digest > ?1 GROUP BY digest ORDER BY digest LIMIT ?2";

pub(super) const POSSESSED_AFTER: &str = "SELECT digest, max(size) AS size FROM possession
    WHERE digest > ?1 AND expires > ?3 GROUP BY digest ORDER BY digest LIMIT ?2";

impl SqliteCatalog {
    pub(super) async fn size_of_held(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError> {
        let possessed = self.possessed((project, None), &[*digest]).await?;
        if let Some((_, size)) = possessed.first() {
            return Ok(Some(*size));
        }
        let row: Option<SqliteRow> = sqlx::query(HOLDS)
            .bind(&digest.as_bytes()[..])
            .bind(project.as_str())
            .fetch_optional(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        let size = row.map(|row| rows::count(&self.context, &row, "size"));
        size.transpose()
    }

    pub(super) async fn held_of(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let possessed = self.possessed((project, None), digests).await?;
        let rows = sqlx::query(HELD)
            .bind(rows::hexes(digests))
            .bind(project.as_str())
            .fetch_all(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        self.together(possessed, &rows)
    }

    pub(super) async fn held_by(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let possessed = self.possessed((project, Some(refs)), digests).await?;
        let rows = sqlx::query(VISIBLE)
            .bind(rows::hexes(digests))
            .bind(project.as_str())
            .bind(rows::texts(refs))
            .fetch_all(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        self.together(possessed, &rows)
    }

    /// The digests that were uploaded, and those of rows, each once.
    fn together(&self, possessed: Page, rows: &[SqliteRow]) -> Result<Vec<Digest>, CatalogError> {
        let mut held: BTreeSet<Digest> = rows
            .iter()
            .map(|row| rows::digest(&self.context, row, "digest"))
            .collect::<Result<_, _>>()?;
        held.extend(possessed.into_iter().map(|(digest, _)| digest));
        Ok(held.into_iter().collect())
    }

    pub(super) async fn refs_of(&self, project: &ProjectId) -> Result<Vec<GitRef>, CatalogError> {
        let failed = |error| self.context.of(error);
        let git_ref = |row: &SqliteRow| rows::text(&self.context, row, "ref");
        let mut refs: BTreeSet<GitRef> = BTreeSet::new();
        if self.keeps_possession().await? {
            let rows = sqlx::query(POSSESSORS)
                .bind(project.as_str())
                .bind(Timestamp::now().as_microsecond())
                .fetch_all(self.readers())
                .await
                .map_err(failed)?;
            for row in &rows {
                refs.insert(git_ref(row)?);
            }
        }
        let rows = sqlx::query(REFS)
            .bind(project.as_str())
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        for row in &rows {
            refs.insert(git_ref(row)?);
        }
        Ok(refs.into_iter().collect())
    }

    pub(super) async fn exports_naming(
        &self,
        digest: &Digest,
    ) -> Result<Vec<ExportId>, CatalogError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT export FROM layer JOIN export ON export.id = layer.export
             WHERE digest = ?1 AND retired IS NULL ORDER BY export",
        )
        .bind(&digest.as_bytes()[..])
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(ids.into_iter().map(ExportId).collect())
    }

    pub(super) async fn not_only_leased(
        &self,
        blobs: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut lasting = BTreeSet::new();
        for some in blobs.chunks(PAGE as usize) {
            let mut rows = Vec::new();
            if self.keeps_possession().await? {
                let possessed = sqlx::query(POSSESSED_BY_ANY)
                    .bind(rows::hexes(some))
                    .bind(Timestamp::now().as_microsecond())
                    .fetch_all(self.readers());
                rows.extend(possessed.await.map_err(failed)?);
            }
            let named = sqlx::query(NAMED_IN_LOG)
                .bind(rows::hexes(some))
                .fetch_all(self.readers());
            rows.extend(named.await.map_err(failed)?);
            for row in &rows {
                lasting.insert(rows::digest(&self.context, row, "digest")?);
            }
        }
        Ok(lasting.into_iter().collect())
    }

    pub(super) async fn page_after(&self, last: Option<Digest>) -> Result<Page, CatalogError> {
        let mut pages = self.possessed_after(last).await?;
        let named = sqlx::query(PAGE_AFTER)
            .bind(last.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec()))
            .bind(PAGE)
            .fetch_all(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        for row in &named {
            pages.push(rows::blob(&self.context, row)?);
        }
        Ok(pages::merged(pages))
    }

    pub(super) async fn insert_possessions(
        &self,
        (project, git_ref): (&ProjectId, &GitRef),
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
            "INSERT INTO possession (project, digest, ref, size, expires)
             SELECT ?1, unhex(value ->> 0), ?4, value ->> 1, ?3 FROM json_each(?2) WHERE true
             ON CONFLICT (project, digest, ref) DO UPDATE SET
                 size = excluded.size, expires = max(expires, excluded.expires)",
        )
        .bind(project)
        .bind(serde_json::json!(asked).to_string())
        .bind(end(ttl))
        .bind(git_ref.as_str())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.purge_in(&mut tx).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    /// Those of the digests that the project has uploaded, for any ref or for
    /// some, with their sizes.
    async fn possessed(
        &self,
        (project, refs): (&ProjectId, Option<&[GitRef]>),
        digests: &[Digest],
    ) -> Result<Page, CatalogError> {
        if digests.is_empty() || !self.keeps_possession().await? {
            return Ok(Page::new());
        }
        let rows = sqlx::query(
            "SELECT digest, max(size) AS size FROM possession
             WHERE project = (SELECT id FROM project WHERE name = ?2) AND expires > ?3
               AND digest IN (SELECT unhex(value) FROM json_each(?1))
               AND (?4 IS NULL OR +ref IN (SELECT value FROM json_each(?4))) GROUP BY digest",
        )
        .bind(rows::hexes(digests))
        .bind(project.as_str())
        .bind(Timestamp::now().as_microsecond())
        .bind(refs.map(rows::texts))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|row| rows::blob(&self.context, row))
            .collect()
    }

    /// The next page of what anybody has uploaded.
    async fn possessed_after(&self, last: Option<Digest>) -> Result<Page, CatalogError> {
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
