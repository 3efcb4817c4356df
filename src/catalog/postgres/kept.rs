//! Exports as far as it matters for keeping them.

use std::collections::HashMap;

use jiff::Timestamp;

use super::PostgresCatalog;
use crate::catalog::{CatalogError, ExportId, KeptExport, KeptFilter, Kind, ProjectSize, columns};
use crate::digest::Digest;
use crate::place::{Place, ProjectId};

/// A key and an id; project, ref and scope; when it was written and used; its
/// kind.
type Row = (i64, i64, String, String, String, i64, Option<i64>, i16);

impl PostgresCatalog {
    /// Two statements: an export whose layers go in between keeps nothing.
    pub(super) async fn kept_exports(
        &self,
        filter: &KeptFilter,
    ) -> Result<Vec<KeptExport>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let heads: Vec<Row> = sqlx::query_as(
            "SELECT key, export.id, project.name, ref, scope, written, used, kind
             FROM export JOIN project ON project.id = export.project
             WHERE retired IS NULL AND export.id > $2
               AND ($1::text IS NULL OR export.project = (SELECT id FROM project WHERE name = $1))
             ORDER BY export.id LIMIT $3",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.after.map_or(0, |id| id.0))
        .bind(i64::from(filter.limit))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
        let keys: Vec<i64> = heads.iter().map(|head| head.0).collect();
        let layers: Vec<(i64, Vec<u8>, i64)> =
            sqlx::query_as("SELECT export, digest, size FROM layer WHERE export = ANY($1)")
                .bind(keys)
                .fetch_all(&mut *connection)
                .await
                .map_err(failed)?;
        let mut blobs: HashMap<i64, Vec<(Digest, u64)>> = HashMap::new();
        for (key, digest, size) in layers {
            let blob = (self.digest(&digest)?, self.context.count(size)?);
            blobs.entry(key).or_default().push(blob);
        }
        heads
            .into_iter()
            .map(|head| {
                let blobs = blobs.remove(&head.0).unwrap_or_default();
                self.kept_export(head, blobs)
            })
            .collect()
    }

    fn kept_export(
        &self,
        (_, id, project, git_ref, scope, written, used, kind): Row,
        blobs: Vec<(Digest, u64)>,
    ) -> Result<KeptExport, CatalogError> {
        let context = &self.context;
        let time =
            |micros| Timestamp::from_microsecond(micros).map_err(|error| context.corrupt(error));
        Ok(KeptExport {
            id: ExportId(id),
            place: Place {
                project: columns::parsed(context, &project)?,
                git_ref: columns::parsed(context, &git_ref)?,
                scope: columns::parsed(context, &scope)?,
            },
            kind: Kind::of_column(kind.into()).map_err(|error| context.corrupt(error))?,
            time: time(written)?,
            used: used.map(time).transpose()?,
            blobs,
        })
    }

    pub(super) async fn sizes_by_project(&self) -> Result<Vec<ProjectSize>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT name, coalesce(exports, 0), coalesce(bytes, 0)::bigint FROM project
             LEFT JOIN (SELECT project, count(*) AS exports FROM export
                        WHERE retired IS NULL AND id IS NOT NULL GROUP BY project) AS listed
                 ON listed.project = project.id
             LEFT JOIN (SELECT project, sum(size) AS bytes FROM (
                            SELECT project, max(size) AS size FROM layer
                            WHERE NOT EXISTS (
                                SELECT 1 FROM export WHERE key = layer.export AND retired IS NOT NULL)
                            GROUP BY digest, project) AS blob
                        GROUP BY project) AS named
                 ON named.project = project.id
             ORDER BY name",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let size = |(project, exports, bytes): (String, i64, i64)| {
            Ok(ProjectSize {
                project: columns::parsed(&self.context, &project)?,
                exports: self.context.count(exports)?,
                bytes: self.context.count(bytes)?,
            })
        };
        found.into_iter().map(size).collect()
    }
}
