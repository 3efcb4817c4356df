//! How much each project had, day by day.

use async_trait::async_trait;
use jiff::civil::Date;
use sqlx::Connection as _;

use super::PostgresCatalog;
use crate::catalog::usage::{DayUsage, UsageFilter, Usages, kept_from};
use crate::catalog::{CatalogError, ProjectSize, columns};
use crate::place::ProjectId;

/// Day, project, exports, bytes.
type Row = (String, String, i64, i64);

#[async_trait]
impl Usages for PostgresCatalog {
    async fn keep_usage(&self, day: Date, sizes: &[ProjectSize]) -> Result<(), CatalogError> {
        let kept = self.upsert_usage(day, sizes);
        self.connections.bounded(kept).await
    }

    async fn usage(&self, filter: &UsageFilter) -> Result<Vec<DayUsage>, CatalogError> {
        self.connections.bounded(self.list_usage(filter)).await
    }
}

impl PostgresCatalog {
    async fn upsert_usage(&self, day: Date, sizes: &[ProjectSize]) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let integer = |number| self.context.integer(number);
        let names = sizes.iter().map(|size| size.project.as_str().to_owned());
        let exports = sizes.iter().map(|size| integer(size.exports));
        let bytes = sizes.iter().map(|size| integer(size.bytes));
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        sqlx::query(
            "INSERT INTO usage (project, day, exports, bytes)
             SELECT project.id, $1::text::date, size.exports, size.bytes
             FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS size (name, exports, bytes)
             JOIN project ON project.name = size.name
             ON CONFLICT (project, day) DO UPDATE SET
                 exports = excluded.exports, bytes = excluded.bytes",
        )
        .bind(day.to_string())
        .bind(names.collect::<Vec<_>>())
        .bind(exports.collect::<Result<Vec<_>, _>>()?)
        .bind(bytes.collect::<Result<Vec<_>, _>>()?)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        for old in [
            "DELETE FROM usage WHERE day < $1::text::date",
            "DELETE FROM saving WHERE day < $1::text::date",
        ] {
            let old = sqlx::query(old).bind(kept_from(day).to_string());
            old.execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    async fn list_usage(&self, filter: &UsageFilter) -> Result<Vec<DayUsage>, CatalogError> {
        let after = filter.after.as_ref();
        let mut connection = self.connections.one().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT day::text, project.name, exports, bytes
             FROM usage JOIN project ON project.id = usage.project
             WHERE ($1::text IS NULL OR project.name = $1)
               AND ($2::text IS NULL OR day >= $2::text::date)
               AND ($3::text IS NULL OR day < $3::text::date
                    OR (day = $3::text::date AND project.name > $4))
               AND ($6::text IS NULL OR day < $6::text::date)
             ORDER BY usage.day DESC, project.name LIMIT $5",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.since.map(|day| day.to_string()))
        .bind(after.map(|(day, _)| day.to_string()))
        .bind(after.map(|(_, project)| project.as_str()))
        .bind(i64::from(filter.rows()))
        .bind(filter.before.map(|day| day.to_string()))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let row = |(day, project, exports, bytes): Row| {
            Ok(DayUsage {
                day: columns::parsed(&self.context, &day)?,
                project: columns::parsed(&self.context, &project)?,
                exports: self.context.count(exports)?,
                bytes: self.context.count(bytes)?,
            })
        };
        rows.into_iter().map(row).collect()
    }
}
