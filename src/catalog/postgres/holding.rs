//! Which blobs a project holds, by its exports or by having uploaded them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{PostgresCatalog, arrays, microseconds, texts};
use crate::catalog::pages::{PAGE, Page, merged};
use crate::catalog::{CatalogError, ExportId, columns};
use crate::digest::Digest;
use crate::place::{GitRef, ProjectId};

/// One look-up for each digest: a join would gather every export that names it.
pub(super) const HELD: &str =
    "SELECT DISTINCT asked.digest FROM unnest($2::bytea[]) AS asked (digest)
    CROSS JOIN LATERAL (
        (SELECT 1 FROM layer WHERE layer.digest = asked.digest AND layer.project = $1 LIMIT 1)
        UNION ALL
        (SELECT 1 FROM possession WHERE possession.digest = asked.digest
            AND possession.project = $1 AND expires > statement_timestamp())
        LIMIT 1) AS found";

/// The same, of some refs.
pub(super) const VISIBLE: &str =
    "SELECT DISTINCT asked.digest FROM unnest($2::bytea[]) AS asked (digest)
    CROSS JOIN LATERAL (
        (SELECT 1 FROM layer JOIN export ON export.key = layer.export
            WHERE layer.digest = asked.digest AND layer.project = $1
            AND export.ref = ANY($3::text[]) LIMIT 1)
        UNION ALL
        (SELECT 1 FROM possession WHERE possession.digest = asked.digest
            AND possession.project = $1 AND expires > statement_timestamp()
            AND possession.ref = ANY($3::text[]))
        LIMIT 1) AS found";

/// From one ref to the next: what has the same is passed over.
pub(super) const REFS: &str = "WITH RECURSIVE known (ref) AS (
        (SELECT ref FROM export WHERE project = $1 AND retired IS NULL ORDER BY ref LIMIT 1)
        UNION ALL
        SELECT (SELECT ref FROM export WHERE project = $1 AND retired IS NULL
                AND ref > known.ref ORDER BY ref LIMIT 1)
        FROM known WHERE known.ref IS NOT NULL)
    SELECT ref FROM known WHERE ref IS NOT NULL
    UNION SELECT ref FROM export WHERE project = $1 AND retired IS NOT NULL
    UNION SELECT ref FROM possession WHERE project = $1 AND expires > statement_timestamp()";

pub(super) const HOLDS: &str =
    "(SELECT layer.size FROM layer JOIN export ON export.key = layer.export
        WHERE digest = $2 AND layer.project = (SELECT id FROM project WHERE name = $1)
            AND retired IS NULL LIMIT 1)
    UNION ALL
    (SELECT size FROM possession
        WHERE digest = $2 AND project = (SELECT id FROM project WHERE name = $1)
            AND expires > statement_timestamp())
    LIMIT 1";

/// Whoever has it: what was uploaded, or an export in the log names.
const LASTING: &str = "SELECT DISTINCT asked.digest FROM unnest($1::bytea[]) AS asked (digest)
    CROSS JOIN LATERAL (
        (SELECT 1 FROM layer JOIN export ON export.key = layer.export
            WHERE layer.digest = asked.digest AND export.retired IS NULL LIMIT 1)
        UNION ALL
        (SELECT 1 FROM possession WHERE possession.digest = asked.digest
            AND possession.expires > statement_timestamp())
        LIMIT 1) AS found";

/// The next page of what was uploaded, and then of what exports name: an append
/// takes away what was uploaded for it as it names it.
pub(super) const PAGES: [&str; 2] = [
    "SELECT digest, max(size) FROM possession
     WHERE digest > $1 AND expires > statement_timestamp()
     GROUP BY digest ORDER BY digest LIMIT $2",
    "SELECT digest, max(size) FROM layer WHERE digest > $1
     GROUP BY digest ORDER BY digest LIMIT $2",
];

impl PostgresCatalog {
    pub(super) async fn size_of_held(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let size: Option<i64> = sqlx::query_scalar(HOLDS)
            .bind(project.as_str())
            .bind(&digest.as_bytes()[..])
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        size.map(|size| self.context.count(size)).transpose()
    }

    /// Of any ref, or of some.
    pub(super) async fn held_by(
        &self,
        project: &ProjectId,
        refs: Option<&[GitRef]>,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let failed = |error| self.context.of(error);
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connections.one().await?;
        let project: Option<i32> = sqlx::query_scalar("SELECT id FROM project WHERE name = $1")
            .bind(project.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        let asked = match refs {
            None => sqlx::query_scalar(HELD).bind(project).bind(arrays(digests)),
            Some(refs) => sqlx::query_scalar(VISIBLE)
                .bind(project)
                .bind(arrays(digests))
                .bind(texts(refs)),
        };
        let held: Vec<Vec<u8>> = asked.fetch_all(&mut *connection).await.map_err(failed)?;
        held.iter().map(|digest| self.digest(digest)).collect()
    }

    pub(super) async fn insert_possessions(
        &self,
        (project, git_ref): (&ProjectId, &GitRef),
        blobs: &[(Digest, u64)],
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        // Each once, and everywhere in the same order, so that two writers
        // never wait for each other.
        let blobs: BTreeMap<Digest, u64> = blobs.iter().copied().collect();
        if blobs.is_empty() {
            return Ok(());
        }
        let digests: Vec<Digest> = blobs.keys().copied().collect();
        let sizes = blobs
            .values()
            .map(|size| self.context.integer(*size))
            .collect::<Result<Vec<i64>, _>>()?;
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, project).await?;
        sqlx::query(
            "INSERT INTO possession (project, digest, ref, size, expires)
             SELECT $1, digest, $5, size, statement_timestamp() + $4 * interval '1 microsecond'
             FROM unnest($2::bytea[], $3::bigint[]) AS given (digest, size)
             ON CONFLICT (project, digest, ref) DO UPDATE SET
                 size = excluded.size, expires = greatest(possession.expires, excluded.expires)",
        )
        .bind(project)
        .bind(arrays(&digests))
        .bind(sizes)
        .bind(microseconds(ttl))
        .bind(git_ref.as_str())
        .execute(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        self.purge_after(&mut connection).await;
        Ok(())
    }

    pub(super) async fn refs_of(&self, project: &ProjectId) -> Result<Vec<GitRef>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let project: Option<i32> = sqlx::query_scalar("SELECT id FROM project WHERE name = $1")
            .bind(project.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        let refs: Vec<String> = sqlx::query_scalar(REFS)
            .bind(project)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
        refs.iter()
            .map(|git_ref| columns::parsed(&self.context, git_ref))
            .collect()
    }

    pub(super) async fn page_after(&self, last: Option<Digest>) -> Result<Page, CatalogError> {
        let after = last.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec());
        let mut connection = self.connections.one().await?;
        let mut pages = Vec::new();
        for statement in PAGES {
            let rows: Vec<(Vec<u8>, i64)> = sqlx::query_as(statement)
                .bind(&after)
                .bind(i64::from(PAGE))
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| self.context.of(error))?;
            for (digest, size) in rows {
                pages.push((self.digest(&digest)?, self.context.count(size)?));
            }
        }
        Ok(merged(pages))
    }

    pub(super) async fn not_only_leased(
        &self,
        blobs: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let mut lasting = BTreeSet::new();
        for some in blobs.chunks(PAGE as usize) {
            let found: Vec<Vec<u8>> = sqlx::query_scalar(LASTING)
                .bind(arrays(some))
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| self.context.of(error))?;
            for digest in found {
                lasting.insert(self.digest(&digest)?);
            }
        }
        Ok(lasting.into_iter().collect())
    }

    pub(super) async fn exports_naming(
        &self,
        digest: &Digest,
    ) -> Result<Vec<ExportId>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM layer JOIN export ON export.key = layer.export
             WHERE digest = $1 AND retired IS NULL AND id IS NOT NULL ORDER BY id",
        )
        .bind(&digest.as_bytes()[..])
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(ids.into_iter().map(ExportId).collect())
    }

    pub(super) fn digest(&self, bytes: &[u8]) -> Result<Digest, CatalogError> {
        Digest::try_from(bytes).map_err(|error| self.context.corrupt(error))
    }
}
