//! How much each project had, day by day.

use async_trait::async_trait;
use jiff::civil::Date;
use sqlx::sqlite::SqliteRow;

use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::catalog::usage::{DayUsage, UsageFilter, Usages, kept_from};
use crate::catalog::{CatalogError, ProjectSize};
use crate::place::ProjectId;

#[async_trait]
impl Usages for SqliteCatalog {
    async fn keep_usage(&self, day: Date, sizes: &[ProjectSize]) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        for size in sizes {
            let project = self.project(&mut tx, &size.project).await?;
            sqlx::query(
                "INSERT OR REPLACE INTO usage (project, day, exports, bytes) VALUES (?1, ?2, ?3, ?4)",
            )
            .bind(project)
            .bind(day.to_string())
            .bind(self.context.integer(size.exports)?)
            .bind(self.context.integer(size.bytes)?)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        for old in [
            "DELETE FROM usage WHERE day < ?1",
            "DELETE FROM saving WHERE day < ?1",
        ] {
            let old = sqlx::query(old).bind(kept_from(day).to_string());
            old.execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    async fn usage(&self, filter: &UsageFilter) -> Result<Vec<DayUsage>, CatalogError> {
        let failed = |error| self.context.of(error);
        // A catalog that takes no writes may be as an older layerd left it.
        let kept: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'usage')",
        )
        .fetch_one(self.readers())
        .await
        .map_err(failed)?;
        if !kept {
            return Ok(Vec::new());
        }
        let after = filter.after.as_ref();
        let rows = sqlx::query(
            "SELECT project.name AS project, day, exports, bytes
             FROM usage JOIN project ON project.id = usage.project
             WHERE (?1 IS NULL OR project.name = ?1) AND day >= ?2
               AND (?6 IS NULL OR day < ?6)
               AND (?3 IS NULL OR day < ?3 OR (day = ?3 AND project.name > ?4))
             ORDER BY day DESC, project.name LIMIT ?5",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.since.map(|day| day.to_string()).unwrap_or_default())
        .bind(after.map(|(day, _)| day.to_string()))
        .bind(after.map(|(_, project)| project.as_str()))
        .bind(filter.rows())
        .bind(filter.before.map(|day| day.to_string()))
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        let row = |row: &SqliteRow| {
            Ok(DayUsage {
                day: rows::text(&self.context, row, "day")?,
                project: rows::text(&self.context, row, "project")?,
                exports: rows::count(&self.context, row, "exports")?,
                bytes: rows::count(&self.context, row, "bytes")?,
            })
        };
        rows.iter().map(row).collect()
    }
}
