//! Appending: everything is in place before the export gets its number.

use std::collections::BTreeMap;

use sqlx::{Connection as _, Postgres, Transaction};

use super::{PostgresCatalog, arrays, lock, text};
use crate::catalog::columns::{milliseconds, nanoseconds};
use crate::catalog::{CatalogError, ExportId, Kind, NewExport, packed};
use crate::digest::Digest;
use crate::step::Step;

/// The name of the lock of whoever gives an export its number.
pub(super) const APPEND: &str = "append";

/// Documents of an export, as they are kept.
pub(super) struct Documents {
    config: Vec<u8>,
    config_digest: Digest,
    manifest: Vec<u8>,
    manifest_size: usize,
}

impl PostgresCatalog {
    pub(super) async fn append_export(&self, export: NewExport) -> Result<ExportId, CatalogError> {
        let failed = |error| self.context.of(error);
        let documents = self.documents(&export).await?;
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, &export.place.project).await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        let of = (project, Kind::Cache);
        let (_, id) = self.append_in(&mut tx, of, &export, &documents).await?;
        tx.commit().await.map_err(failed)?;
        Ok(id)
    }

    pub(super) async fn documents(&self, export: &NewExport) -> Result<Documents, CatalogError> {
        let (config, layers) = (export.config.clone(), export.layers.clone());
        self.context
            .blocking(move || {
                let manifest = serde_json::to_vec(&layers)?;
                Ok(Documents {
                    config: packed::pack(&config)?,
                    config_digest: Digest::of(&config),
                    manifest: packed::pack(&manifest)?,
                    manifest_size: manifest.len(),
                })
            })
            .await
    }

    /// The key and the number of the export, which is visible when the
    /// transaction is committed, and that has to be at once.
    pub(super) async fn append_in(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        (project, kind): (i32, Kind),
        export: &NewExport,
        documents: &Documents,
    ) -> Result<(i64, ExportId), CatalogError> {
        let failed = |error| self.context.of(error);
        let key = self.insert(tx, (project, kind), export, documents).await?;
        self.insert_steps(tx, (key, project), &export.steps).await?;
        self.answer_flushes(tx, project, &export.place).await?;
        // What was uploaded for this is named by it from now on.
        sqlx::query(
            "DELETE FROM possession WHERE (project, digest, ref) IN (
                 SELECT possession.project, possession.digest, ref FROM possession
                 JOIN layer ON layer.export = $1 AND layer.digest = possession.digest
                 WHERE possession.project = $2 AND ref = $3 FOR UPDATE OF possession SKIP LOCKED)",
        )
        .bind(key)
        .bind(project)
        .bind(export.place.git_ref.as_str())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        // Held until this transaction is visible: the next number is given after.
        self.lock(tx, lock!("pg_advisory_xact_lock"), APPEND)
            .await?;
        if let Some(began) = export.began {
            self.not_flushed_since(tx, project, &export.place, began)
                .await?;
        }
        let id = sqlx::query_scalar(
            "UPDATE export SET id = nextval('export_id') WHERE key = $1 RETURNING id",
        )
        .bind(key)
        .fetch_one(&mut **tx)
        .await
        .map_err(failed)?;
        Ok((key, ExportId(id)))
    }

    async fn insert(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        (project, kind): (i32, Kind),
        export: &NewExport,
        documents: &Documents,
    ) -> Result<i64, CatalogError> {
        let failed = |error| self.context.of(error);
        let distinct: BTreeMap<Digest, u64> = export
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect();
        let bytes = distinct
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        let key: i64 = sqlx::query_scalar(
            "INSERT INTO export (project, ref, scope, written, builder, records, layers, bytes,
                 config_digest, config_size, manifest_size, config, manifest, kind)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING key",
        )
        .bind(project)
        .bind(export.place.git_ref.as_str())
        .bind(export.place.scope.as_str())
        .bind(export.time.as_microsecond())
        .bind(text(&export.builder))
        .bind(self.context.integer(export.records)?)
        .bind(self.context.integer(distinct.len() as u64)?)
        .bind(self.context.integer(bytes)?)
        .bind(&documents.config_digest.as_bytes()[..])
        .bind(self.context.integer(export.config.len() as u64)?)
        .bind(self.context.integer(documents.manifest_size as u64)?)
        .bind(&documents.config)
        .bind(&documents.manifest)
        .bind(kind.as_column())
        .fetch_one(&mut **tx)
        .await
        .map_err(failed)?;

        let digests: Vec<Digest> = distinct.keys().copied().collect();
        let sizes = distinct
            .values()
            .map(|size| self.context.integer(*size))
            .collect::<Result<Vec<i64>, _>>()?;
        sqlx::query(
            "INSERT INTO layer (export, project, digest, size)
             SELECT $1, $2, digest, size FROM unnest($3::bytea[], $4::bigint[]) AS given (digest, size)",
        )
        .bind(key)
        .bind(project)
        .bind(arrays(&digests))
        .bind(sizes)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        Ok(key)
    }

    /// The steps of an export: its key, and the number of its project.
    async fn insert_steps(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        (key, project): (i64, i32),
        steps: &[Step],
    ) -> Result<(), CatalogError> {
        if steps.is_empty() {
            return Ok(());
        }
        let origins = || steps.iter().map(|step| step.origin.as_ref());
        let column = |value: fn(&Step) -> i64| steps.iter().map(value).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO step (export, project, nth, record, created_at, name, duration, builder, daemon)
             SELECT $1, $2, nth, record, created_at, name, duration, builder, daemon
             FROM unnest($3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::text[])
                 WITH ORDINALITY AS given (record, created_at, name, duration, builder, daemon, nth)",
        )
        .bind(key)
        .bind(project)
        .bind(steps.iter().map(|step| step.record.as_str()).collect::<Vec<_>>())
        .bind(column(|step| nanoseconds(step.created_at)))
        .bind(steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>())
        .bind(column(|step| milliseconds(step.duration)))
        .bind(origins().map(|origin| Some(text(&origin?.builder))).collect::<Vec<_>>())
        .bind(origins().map(|origin| Some(text(origin?.daemon.as_ref()?))).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await
        .map(drop)
        .map_err(|error| self.context.of(error))
    }
}
