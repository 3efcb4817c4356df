//! The catalog in SQLite: one file, shared by the processes of one host.
//!
//! Write-ahead logging and connections of their own, so that readers never
//! wait for a writer; `synchronous=FULL`, so that an append that returned
//! survives a power cut; a busy timeout, so that writers take turns. A
//! directory that takes no writes opens for reading.

mod collecting;
mod entries;
mod errors;
mod holding;
mod kept;
mod leases;
mod ledger;
mod open;
mod rows;
mod savings;
mod steps;
mod store;
mod tasks;
mod turn;
mod usage;
mod uses;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Sqlite, Transaction};

use self::open::Pools;
use self::turn::Turn;
use super::context::Context;
use super::pages;
use super::{
    Catalog, CatalogError, Export, ExportHead, ExportId, Filter, Kind, LeaseId, NewExport,
    Ownership, Saving, SavingFilter, packed,
};
use crate::digest::{Digest, RecordDigest};
use crate::place::{GitRef, ProjectId};
use crate::step::Step;

/// What a list says of an export, and where it is read.
macro_rules! head {
    () => {
        "export.id, project.name AS project, export.ref, scope, time, builder, records, layers,
             bytes, kind, entry.key, entry.version
         FROM export JOIN project ON project.id = export.project
         LEFT JOIN entry ON entry.export = export.id"
    };
}

/// The catalog of one data directory.
#[derive(Clone, Debug)]
pub struct SqliteCatalog {
    file: PathBuf,
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
        let file = Self::path(dir);
        let context = errors::context(&file);
        let pools = open::open(&file, &context).await?;
        Ok(Self {
            file,
            pools,
            context,
        })
    }

    /// Opens the catalog of a data directory to read what is there now, and
    /// changes nothing there; none where there is no catalog.
    pub async fn peek(dir: &Path) -> Result<Option<Self>, CatalogError> {
        let file = Self::path(dir);
        if !file.exists() {
            return Ok(None);
        }
        let context = errors::context(&file);
        let pools = open::peek(&file, &context).await?;
        Ok(Some(Self {
            file,
            pools,
            context,
        }))
    }

    /// An empty one that is nowhere, and gone with this: what a catalog is like
    /// that is still to be made.
    pub async fn nowhere() -> Result<Self, CatalogError> {
        let file = PathBuf::from("nowhere");
        let context = errors::context(&file);
        let pools = open::nowhere(&context).await?;
        Ok(Self {
            file,
            pools,
            context,
        })
    }

    fn readers(&self) -> &SqlitePool {
        &self.pools.readers
    }

    fn writers(&self) -> Result<&SqlitePool, CatalogError> {
        match &self.pools.writers {
            Ok(writers) => Ok(writers),
            Err(refusal) => Err(errors::refused(&self.context, *refusal)),
        }
    }

    async fn insert(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        (export, kind): (&NewExport, Kind),
        config: &[u8],
    ) -> Result<ExportId, CatalogError> {
        let failed = |error| self.context.of(error);
        let place = &export.place;
        let project = self.project(tx, &place.project).await?;
        if let Some(began) = export.began {
            self.not_flushed_since(tx, project, place, began).await?;
        }

        let distinct: BTreeMap<Digest, u64> = export
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect();
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO export (project, ref, scope, time, builder, records, layers, bytes, config_digest, config_size, config, kind)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) RETURNING id",
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
        .bind(kind.as_column())
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
        // What was uploaded for this is named by it from now on.
        sqlx::query(
            "DELETE FROM possession WHERE project = ?1 AND ref = ?2
                 AND digest IN (SELECT digest FROM layer WHERE export = ?3)",
        )
        .bind(project)
        .bind(place.git_ref.as_str())
        .bind(id)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        steps::insert(&self.context, tx, (id, project), &export.steps).await?;
        self.answer_flushes(tx, project, place).await?;
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
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn append(&self, export: NewExport) -> Result<ExportId, CatalogError> {
        let plain = export.config.clone();
        let config = self.context.blocking(move || packed::pack(&plain)).await?;
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let id = self
            .insert(&mut tx, (&export, Kind::Cache), &config)
            .await?;
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

    async fn ready(&self) -> Result<(), CatalogError> {
        sqlx::query("SELECT count(*) FROM sqlite_schema")
            .execute(self.readers())
            .await
            .map(drop)
            .map_err(|error| self.context.of(error))
    }

    fn refusal(&self) -> Option<CatalogError> {
        self.writers().err()
    }

    /// The last one to close leaves one file behind.
    async fn close(&self) {
        if let Ok(writers) = &self.pools.writers {
            writers.close().await;
        }
        self.pools.readers.close().await;
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<ExportHead>, CatalogError> {
        let rows = sqlx::query(
            concat!(
            "SELECT ",
            head!(),
            " WHERE (?1 IS NULL OR project.name = ?1) AND (?2 IS NULL OR export.ref = ?2) AND (?3 IS NULL OR scope = ?3)
               AND export.id < ?4 AND export.id > ?6 AND retired IS NULL AND (?7 IS NULL OR kind = ?7)
             ORDER BY export.id DESC LIMIT ?5"
        ),
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.git_ref.as_ref().map(|git_ref| git_ref.as_str()))
        .bind(filter.scope.as_ref().map(|scope| scope.as_str()))
        .bind(filter.before.map_or(i64::MAX, |id| id.0))
        .bind(filter.limit.map_or(-1, i64::from))
        .bind(filter.after.map_or(i64::MIN, |id| id.0))
        .bind(filter.kind.map(Kind::as_column))
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
               AND export.id < ?4 AND export.id > ?5 AND retired IS NULL AND (?6 IS NULL OR kind = ?6)",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.git_ref.as_ref().map(|git_ref| git_ref.as_str()))
        .bind(filter.scope.as_ref().map(|scope| scope.as_str()))
        .bind(filter.before.map_or(i64::MAX, |id| id.0))
        .bind(filter.after.map_or(i64::MIN, |id| id.0))
        .bind(filter.kind.map(Kind::as_column))
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
        let found: Option<SqliteRow> = sqlx::query(concat!(
            "SELECT config_digest, config_size, config, ",
            head!(),
            " WHERE export.id = ?1 AND retired IS NULL"
        ))
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
        let export = self
            .context
            .blocking(move || Ok(rows::export(&context, &row, &layers, steps)))
            .await??;
        Ok(Some(export))
    }

    async fn holds(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError> {
        self.size_of_held(project, digest).await
    }

    async fn held(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        self.held_of(project, digests).await
    }

    async fn possess(
        &self,
        project: &ProjectId,
        git_ref: &GitRef,
        blobs: &[(Digest, u64)],
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        self.insert_possessions((project, git_ref), blobs, ttl)
            .await
    }

    async fn holding_refs(&self, project: &ProjectId) -> Result<Vec<GitRef>, CatalogError> {
        self.refs_of(project).await
    }

    async fn visible(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        self.held_by(project, refs, digests).await
    }

    fn referenced(&self) -> BoxStream<'_, Result<(Digest, u64), CatalogError>> {
        pages::stream(|after| self.page_after(after))
    }

    async fn lasting(&self, blobs: &[Digest]) -> Result<Vec<Digest>, CatalogError> {
        self.not_only_leased(blobs).await
    }

    async fn leased(&self) -> Result<u64, CatalogError> {
        self.count_leased().await
    }

    async fn take_lease_as(&self, lease: LeaseId, ttl: Duration) -> Result<(), CatalogError> {
        self.insert_lease(lease, ttl).await
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
        refs: Option<&[GitRef]>,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CatalogError> {
        steps::of_results(&self.context, self.readers(), (project, refs), results).await
    }

    async fn add_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        self.upsert_saving(saving).await
    }

    async fn savings(&self, filter: &SavingFilter) -> Result<Vec<Saving>, CatalogError> {
        self.list_savings(filter).await
    }

    async fn naming(&self, digest: &Digest) -> Result<Vec<ExportId>, CatalogError> {
        self.exports_naming(digest).await
    }

    async fn try_own(&self, task: &str) -> Result<Option<Ownership>, CatalogError> {
        self.own(task).await
    }
}

#[cfg(test)]
mod tests;
