//! What builds were saved: one row for a project, a ref and a day, into which
//! every build of that day is added.

use sqlx::sqlite::SqliteRow;

use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::catalog::columns::most;
use crate::catalog::{CatalogError, MAX_REFS_A_DAY, OTHER_REFS, Saving, SavingFilter};
use crate::place::{GitRef, ProjectId};

impl SqliteCatalog {
    pub(super) async fn upsert_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let project = self.project(&mut tx, &saving.project).await?;
        sqlx::query(
            "INSERT INTO saving (project, ref, day, builds, steps, cached, saved, estimated)
             SELECT ?1, CASE
                 WHEN EXISTS (SELECT 1 FROM saving WHERE project = ?1 AND ref = ?2 AND day = ?3)
                   OR (SELECT count(*) FROM
                          (SELECT 1 FROM saving WHERE project = ?1 AND day = ?3 LIMIT ?9)) < ?9
                 THEN ?2 ELSE ?10 END, ?3, ?4, ?5, ?6, ?7, ?8
             WHERE true
             ON CONFLICT (project, ref, day) DO UPDATE SET
                 builds = min(builds, ?11 - excluded.builds) + excluded.builds,
                 steps = min(steps, ?11 - excluded.steps) + excluded.steps,
                 cached = min(cached, ?11 - excluded.cached) + excluded.cached,
                 saved = min(saved, ?11 - excluded.saved) + excluded.saved,
                 estimated = min(estimated, ?11 - excluded.estimated) + excluded.estimated",
        )
        .bind(project)
        .bind(saving.git_ref.as_str())
        .bind(saving.day.to_string())
        .bind(most(saving.builds))
        .bind(most(saving.steps))
        .bind(most(saving.cached))
        .bind(most(saving.saved_ms))
        .bind(most(saving.estimated_ms))
        .bind(i64::from(MAX_REFS_A_DAY))
        .bind(OTHER_REFS)
        .bind(i64::MAX)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    pub(super) async fn list_savings(
        &self,
        filter: &SavingFilter,
    ) -> Result<Vec<Saving>, CatalogError> {
        let failed = |error| self.context.of(error);
        // A catalog that takes no writes may be as an older layerd left it.
        let kept: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'saving')",
        )
        .fetch_one(self.readers())
        .await
        .map_err(failed)?;
        if !kept {
            return Ok(Vec::new());
        }
        let after = filter.after.as_ref();
        let rows = sqlx::query(
            "SELECT project.name AS project, ref, day, builds, steps, cached, saved, estimated
             FROM saving JOIN project ON project.id = saving.project
             WHERE (?1 IS NULL OR project.name = ?1) AND (?2 IS NULL OR ref = ?2) AND day >= ?3
               AND (?4 IS NULL OR day < ?4 OR (day = ?4 AND (project.name, ref) > (?5, ?6)))
             ORDER BY day DESC, project.name, ref LIMIT ?7",
        )
        .bind(filter.project.as_ref().map(ProjectId::as_str))
        .bind(filter.git_ref.as_ref().map(GitRef::as_str))
        .bind(filter.since.map(|day| day.to_string()).unwrap_or_default())
        .bind(after.map(|(day, ..)| day.to_string()))
        .bind(after.map(|(_, project, _)| project.as_str()))
        .bind(after.map(|(.., git_ref)| git_ref.as_str()))
        .bind(filter.limit.map_or(-1, i64::from))
        .fetch_all(self.readers())
        .await
        .map_err(failed)?;
        rows.iter().map(|row| self.saving(row)).collect()
    }

    fn saving(&self, row: &SqliteRow) -> Result<Saving, CatalogError> {
        let context = &self.context;
        Ok(Saving {
            project: rows::text(context, row, "project")?,
            git_ref: rows::text(context, row, "ref")?,
            day: rows::text(context, row, "day")?,
            builds: rows::count(context, row, "builds")?,
            steps: rows::count(context, row, "steps")?,
            cached: rows::count(context, row, "cached")?,
            saved_ms: rows::count(context, row, "saved")?,
            estimated_ms: rows::count(context, row, "estimated")?,
        })
    }
}
