//! The catalog in SQLite: one file, shared by the processes of one host.
//!
//! Write-ahead logging and connections of their own, so that readers never
//! wait for a writer; `synchronous=FULL`, so that an append that returned
//! survives a power cut; a busy timeout, so that writers take turns. A
//! directory that takes no writes opens for reading.

mod errors;
mod leases;
mod open;
mod rows;
mod savings;
mod steps;
mod turn;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Sqlite, Transaction};

use self::errors::{Context, blocking};
use self::open::Pools;
use self::turn::Turn;
use super::{
    Catalog, CatalogError, Export, ExportHead, ExportId, Filter, LeaseId, NewExport, Saving,
    SavingFilter,
};
use crate::digest::{Digest, RecordDigest};
use crate::place::{Place, ProjectId};
use crate::step::Step;

/// Digests in a page of [`Catalog::referenced`].
const PAGE: i64 = 4096;

/// Compression of configs: JSON of hex digests halves at any level.
const ZSTD_LEVEL: i32 = 3;

const NEWEST_OF_PLACE: &str = "SELECT id FROM export
    WHERE project = (SELECT id FROM project WHERE name = ?1) AND ref = ?2 AND scope = ?3 AND id < ?4
      AND retired IS NULL
    ORDER BY id DESC LIMIT 1";

const NEWEST_OF_REF: &str = "SELECT id FROM export
    WHERE project = (SELECT id FROM project WHERE name = ?1) AND ref = ?2 AND id < ?4
      AND retired IS NULL
    ORDER BY id DESC LIMIT 1";

const HOLDS: &str = "SELECT size FROM layer JOIN export ON export.id = layer.export
    WHERE digest = ?1 AND layer.project = (SELECT id FROM project WHERE name = ?2)
      AND retired IS NULL LIMIT 1";

const PAGE_AFTER: &str = "SELECT digest, max(size) AS size FROM layer
    WHERE digest > ?1 GROUP BY digest ORDER BY digest LIMIT ?2";

/// The catalog of one data directory.
#[derive(Clone, Debug)]
pub struct SqliteCatalog {
    pools: Pools,
    context: Context,
}

impl SqliteCatalog {
    /// The catalog's file in a data directory.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("catalog.db")
    }

    /// Opens the catalog of a data directory that exists; creates or migrates
    /// it where it has to. Any number of processes may do so at once.
    pub async fn open(dir: &Path) -> Result<Self, CatalogError> {
        let path = Self::path(dir);
        let context = Context::new(&path);
        let pools = open::open(&path, &context).await?;
        Ok(Self { pools, context })
    }

    /// Why it could be opened for reading only, if so: read-only, or no space
    /// left.
    pub fn refusal(&self) -> Option<CatalogError> {
        self.writers().err()
    }

    /// Closes it in good order: the last one to close leaves one file behind.
    pub async fn close(&self) {
        if let Ok(writers) = &self.pools.writers {
            writers.close().await;
        }
        self.pools.readers.close().await;
    }

    fn readers(&self) -> &SqlitePool {
        &self.pools.readers
    }

    fn writers(&self) -> Result<&SqlitePool, CatalogError> {
        match &self.pools.writers {
            Ok(writers) => Ok(writers),
            Err(refusal) => Err(self.context.refused(*refusal)),
        }
    }

    async fn insert(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        export: &NewExport,
        config: &[u8],
    ) -> Result<ExportId, CatalogError> {
        let failed = |error| self.context.of(error);
        let place = &export.place;
        let project = self.project(tx, &place.project).await?;

        let distinct: BTreeMap<Digest, u64> = export
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect();
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO export (project, ref, scope, time, builder, records, layers, bytes, config_digest, config_size, config)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) RETURNING id",
        )
        .bind(project)
        .bind(place.git_ref.as_str())
        .bind(place.scope.as_str())
        .bind(export.time.as_microsecond())
        .bind(&export.builder)
        .bind(self.context.integer(export.records)?)
        .bind(self.context.integer(distinct.len() as u64)?)
        .bind(self.context.integer(distinct.values().fold(0, |sum: u64, size| sum.saturating_add(*size)))?)
        .bind(&Digest::of(&export.config).as_bytes()[..])
        .bind(self.context.integer(export.config.len() as u64)?)
        .bind(config)
        .fetch_one(&mut **tx)
        .await
        .map_err(failed)?;

        for (position, layer) in export.layers.iter().enumerate() {
            sqlx::query(
                "INSERT INTO layer (export, position, project, digest, size, media_type, diff_id, created_at, annotations)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )
            .bind(id)
            .bind(self.context.integer(position as u64)?)
            .bind(project)
            .bind(&layer.digest.as_bytes()[..])
            .bind(self.context.integer(layer.size)?)
            .bind(&layer.media_type)
            .bind(layer.diff_id.as_ref().map(|diff_id| &diff_id.as_bytes()[..]))
            .bind(layer.created_at.map(|time| time.to_string()))
            .bind(rows::annotations_column(layer))
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        }
        steps::insert(&self.context, tx, (id, project), &export.steps).await?;
        Ok(ExportId(id))
    }

    /// The number of a project, which it gets where it has none.
    async fn project(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        project: &ProjectId,
    ) -> Result<i64, CatalogError> {
        sqlx::query_scalar(
            "INSERT INTO project (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name RETURNING id",
        )
        .bind(project.as_str())
        .fetch_one(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))
    }

    async fn page_after(&self, last: Option<Digest>) -> Result<Vec<(Digest, u64)>, CatalogError> {
        let rows = sqlx::query(PAGE_AFTER)
            .bind(last.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec()))
            .bind(PAGE)
            .fetch_all(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|row| {
                Ok((
                    rows::digest(&self.context, row, "digest")?,
                    rows::count(&self.context, row, "size")?,
                ))
            })
            .collect()
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn append(&self, export: NewExport) -> Result<ExportId, CatalogError> {
        let plain = export.config.clone();
        let config = blocking(&self.context, move || {
            zstd::bulk::compress(&plain, ZSTD_LEVEL)
        })
        .await?;
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let id = self.insert(&mut tx, &export, &config).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(id)
    }

    async fn writable(&self) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let tx = turn.write().await.map_err(failed)?;
        tx.rollback().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    async fn newest(
        &self,
        place: &Place,
        before: Option<ExportId>,
    ) -> Result<Option<ExportId>, CatalogError> {
        let query = if place.scope.is_any() {
            NEWEST_OF_REF
        } else {
            NEWEST_OF_PLACE
        };
        sqlx::query_scalar(query)
            .bind(place.project.as_str())
            .bind(place.git_ref.as_str())
            .bind(place.scope.as_str())
            .bind(before.map_or(i64::MAX, |id| id.0))
            .fetch_optional(self.readers())
            .await
            .map(|id| id.map(ExportId))
            .map_err(|error| self.context.of(error))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<ExportHead>, CatalogError> {
        let rows = sqlx::query(
            "SELECT export.id, project.name AS project, ref, scope, time, builder, records, layers, bytes
             FROM export JOIN project ON project.id = export.project
             WHERE (?1 IS NULL OR project.name = ?1) AND (?2 IS NULL OR ref = ?2) AND (?3 IS NULL OR scope = ?3)
               AND export.id < ?4 AND export.id > ?6 AND retired IS NULL
             ORDER BY export.id DESC LIMIT ?5",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.git_ref.as_ref().map(|git_ref| git_ref.as_str()))
        .bind(filter.scope.as_ref().map(|scope| scope.as_str()))
        .bind(filter.before.map_or(i64::MAX, |id| id.0))
        .bind(filter.limit.map_or(-1, i64::from))
        .bind(filter.after.map_or(i64::MIN, |id| id.0))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|row| rows::head(&self.context, row))
            .collect()
    }

    async fn count(&self, filter: &Filter) -> Result<u64, CatalogError> {
        let row = sqlx::query(
            "SELECT count(*) AS exports FROM export JOIN project ON project.id = export.project
             WHERE (?1 IS NULL OR project.name = ?1) AND (?2 IS NULL OR ref = ?2) AND (?3 IS NULL OR scope = ?3)
               AND export.id < ?4 AND export.id > ?5 AND retired IS NULL",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.git_ref.as_ref().map(|git_ref| git_ref.as_str()))
        .bind(filter.scope.as_ref().map(|scope| scope.as_str()))
        .bind(filter.before.map_or(i64::MAX, |id| id.0))
        .bind(filter.after.map_or(i64::MIN, |id| id.0))
        .fetch_one(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows::count(&self.context, &row, "exports")
    }

    async fn get(&self, id: ExportId) -> Result<Option<Export>, CatalogError> {
        let failed = |error| self.context.of(error);
        // One transaction, so that both halves are of the same moment.
        let mut turn = Turn::of(self.readers()).await.map_err(failed)?;
        let mut tx = turn.read().await.map_err(failed)?;
        let found: Option<SqliteRow> = sqlx::query(
            "SELECT export.id, project.name AS project, ref, scope, time, builder, records, layers, bytes,
                    config_digest, config_size, config
             FROM export JOIN project ON project.id = export.project WHERE export.id = ?1 AND retired IS NULL",
        )
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
        let layers = sqlx::query(
            "SELECT digest, size, media_type, diff_id, created_at, annotations FROM layer WHERE export = ?1 ORDER BY position",
        )
        .bind(id.0)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        let steps = steps::of_export(&self.context, &mut tx, id).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();

        let Some(row) = found else { return Ok(None) };
        let context = self.context.clone();
        let export = blocking(&self.context, move || {
            Ok(rows::export(&context, &row, &layers, steps))
        })
        .await??;
        Ok(Some(export))
    }

    async fn holds(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError> {
        let row: Option<SqliteRow> = sqlx::query(HOLDS)
            .bind(&digest.as_bytes()[..])
            .bind(project.as_str())
            .fetch_optional(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        row.map(|row| rows::count(&self.context, &row, "size"))
            .transpose()
    }

    async fn held(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let asked: Vec<String> = digests.iter().map(Digest::hex).collect();
        let rows = sqlx::query(
            "SELECT DISTINCT unhex(value) AS digest FROM json_each(?1) WHERE EXISTS (
                 SELECT 1 FROM layer
                 WHERE digest = unhex(value) AND project = (SELECT id FROM project WHERE name = ?2))",
        )
        .bind(serde_json::json!(asked).to_string())
        .bind(project.as_str())
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|row| rows::digest(&self.context, row, "digest"))
            .collect()
    }

    fn referenced(&self) -> BoxStream<'_, Result<(Digest, u64), CatalogError>> {
        stream::unfold(Some(None), async |after: Option<Option<Digest>>| {
            let page = self.page_after(after?).await;
            // An error, or an empty page, is the last.
            let next = page
                .as_ref()
                .ok()
                .and_then(|page| page.last())
                .map(|(digest, _)| Some(*digest));
            let entries = page.map_or_else(
                |error| vec![Err(error)],
                |page| page.into_iter().map(Ok).collect(),
            );
            Some((stream::iter(entries), next))
        })
        .flatten()
        .boxed()
    }

    async fn take_lease(&self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        self.insert_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId, ttl: Duration) -> Result<bool, CatalogError> {
        self.update_lease(lease, ttl).await
    }

    async fn end_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        self.delete_lease(lease).await
    }

    async fn retire(&self, exports: &[ExportId]) -> Result<u64, CatalogError> {
        self.retire_exports(exports, None).await
    }

    async fn subsume(&self, exports: &[ExportId], by: ExportId) -> Result<u64, CatalogError> {
        self.retire_exports(exports, Some(by)).await
    }

    async fn subsumed(&self, exports: &[ExportId]) -> Result<Vec<ExportId>, CatalogError> {
        self.subsumed_exports(exports).await
    }

    async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CatalogError> {
        steps::of_results(&self.context, self.readers(), project, results).await
    }

    async fn add_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        self.upsert_saving(saving).await
    }

    async fn savings(&self, filter: &SavingFilter) -> Result<Vec<Saving>, CatalogError> {
        self.list_savings(filter).await
    }

    async fn naming(&self, digest: &Digest) -> Result<Vec<ExportId>, CatalogError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT export FROM layer WHERE digest = ?1 ORDER BY export",
        )
        .bind(&digest.as_bytes()[..])
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        Ok(ids.into_iter().map(ExportId).collect())
    }
}

#[cfg(test)]
mod tests;
