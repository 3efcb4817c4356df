//! Exports as far as it matters for keeping them.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{SqliteCatalog, rows};
use crate::catalog::{CatalogError, ExportId, KeptExport, KeptFilter, ProjectSize};
use crate::digest::Digest;
use crate::place::{Place, ProjectId};

impl SqliteCatalog {
    /// Two statements: an export whose layers go in between keeps nothing.
    pub(super) async fn kept_exports(
        &self,
        filter: &KeptFilter,
    ) -> Result<Vec<KeptExport>, CatalogError> {
        let failed = |error| self.context.of(error);
        let heads = sqlx::query(
            "SELECT export.id, project.name AS project, ref, scope, kind, time, used
             FROM export JOIN project ON project.id = export.project
             WHERE (?1 IS NULL OR project.name = ?1) AND export.id > ?2 AND retired IS NULL
             ORDER BY export.id LIMIT ?3",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.after.map_or(i64::MIN, |id| id.0))
        .bind(filter.limit)
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        let mut kept = heads
            .iter()
            .map(|row| self.kept_export(row))
            .collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<i64> = kept.iter().map(|export| export.id.0).collect();
        let layers = sqlx::query(
            "SELECT export, digest, max(size) AS size FROM layer
             WHERE export IN (SELECT value FROM json_each(?1)) GROUP BY export, digest",
        )
        .bind(serde_json::json!(ids).to_string())
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        let mut blobs: HashMap<i64, Vec<(Digest, u64)>> = HashMap::new();
        for row in &layers {
            let export: i64 = row.try_get("export").map_err(failed)?;
            let blob = rows::blob(&self.context, row)?;
            blobs.entry(export).or_default().push(blob);
        }
        for export in &mut kept {
            export.blobs = blobs.remove(&export.id.0).unwrap_or_default();
        }
        Ok(kept)
    }

    fn kept_export(&self, row: &SqliteRow) -> Result<KeptExport, CatalogError> {
        let context = &self.context;
        let corrupt = |error: sqlx::Error| context.corrupt(error);
        let time =
            |micros| Timestamp::from_microsecond(micros).map_err(|error| context.corrupt(error));
        let used: Option<i64> = row.try_get("used").map_err(corrupt)?;
        Ok(KeptExport {
            id: ExportId(row.try_get("id").map_err(corrupt)?),
            place: Place {
                project: rows::text(context, row, "project")?,
                git_ref: rows::text(context, row, "ref")?,
                scope: rows::text(context, row, "scope")?,
            },
            kind: rows::kind(context, row)?,
            time: time(row.try_get("time").map_err(corrupt)?)?,
            used: used.map(time).transpose()?,
            blobs: Vec::new(),
        })
    }

    pub(super) async fn sizes_by_project(&self) -> Result<Vec<ProjectSize>, CatalogError> {
        let found = sqlx::query(
            "SELECT name AS project,
                 (SELECT count(*) FROM export
                  WHERE export.project = project.id AND retired IS NULL) AS exports,
                 ifnull(bytes, 0) AS bytes
             FROM project LEFT JOIN (
                 SELECT project, sum(size) AS bytes FROM (
                     SELECT project, max(size) AS size FROM layer
                     WHERE export NOT IN (SELECT id FROM export WHERE retired IS NOT NULL)
                     GROUP BY digest, project)
                 GROUP BY project) AS named ON named.project = project.id
             ORDER BY name",
        )
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let size = |row: &SqliteRow| {
            Ok(ProjectSize {
                project: rows::text(&self.context, row, "project")?,
                exports: rows::count(&self.context, row, "exports")?,
                bytes: rows::count(&self.context, row, "bytes")?,
            })
        };
        found.iter().map(size).collect()
    }

    pub(super) fn digests(&self, rows: &[SqliteRow]) -> Result<Vec<Digest>, CatalogError> {
        rows.iter()
            .map(|row| rows::digest(&self.context, row, "digest"))
            .collect()
    }
}
