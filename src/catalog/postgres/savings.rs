//! What builds were saved: one row for a project, a ref and a day, into which
//! every build of that day is added.

use sqlx::{Postgres, QueryBuilder};

use super::PostgresCatalog;
use crate::catalog::columns::{self, most};
use crate::catalog::{CatalogError, MAX_REFS_A_DAY, OTHER_REFS, Saving, SavingFilter};

/// Project, ref and day; builds, steps and cached ones; milliseconds saved and
/// estimated.
type Row = (String, String, String, i64, i64, i64, i64, i64);

impl PostgresCatalog {
    pub(super) async fn upsert_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, &saving.project).await?;
        sqlx::query(
            "INSERT INTO saving (project, ref, day, builds, steps, cached, saved, estimated)
             SELECT $1, CASE
                 WHEN EXISTS (SELECT FROM saving
                              WHERE project = $1 AND ref = $2::text AND day = $3::text::date)
                   OR (SELECT count(*) FROM
                          (SELECT FROM saving
                           WHERE project = $1 AND day = $3::text::date LIMIT $9) AS refs) < $9
                 THEN $2::text ELSE $10::text END, $3::text::date, $4, $5, $6, $7, $8
             ON CONFLICT (project, ref, day) DO UPDATE SET
                 builds = least(saving.builds, $11 - excluded.builds) + excluded.builds,
                 steps = least(saving.steps, $11 - excluded.steps) + excluded.steps,
                 cached = least(saving.cached, $11 - excluded.cached) + excluded.cached,
                 saved = least(saving.saved, $11 - excluded.saved) + excluded.saved,
                 estimated =
                     least(saving.estimated, $11 - excluded.estimated) + excluded.estimated",
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
        .execute(&mut *connection)
        .await
        .map(drop)
        .map_err(|error| self.context.of(error))
    }

    pub(super) async fn list_savings(
        &self,
        filter: &SavingFilter,
    ) -> Result<Vec<Saving>, CatalogError> {
        let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
            "SELECT project.name, ref, day::text, builds, steps, cached, saved, estimated
             FROM saving JOIN project ON project.id = saving.project WHERE true",
        );
        if let Some(project) = &filter.project {
            query
                .push(" AND project.name = ")
                .push_bind(project.as_str().to_owned());
        }
        if let Some(git_ref) = &filter.git_ref {
            query
                .push(" AND ref = ")
                .push_bind(git_ref.as_str().to_owned());
        }
        if let Some(since) = filter.since {
            query
                .push(" AND day >= ")
                .push_bind(since.to_string())
                .push("::text::date");
        }
        if let Some((day, project, git_ref)) = &filter.after {
            query
                .push(" AND (day < ")
                .push_bind(day.to_string())
                .push("::text::date OR (day = ")
                .push_bind(day.to_string())
                .push("::text::date AND (project.name, ref) > (")
                .push_bind(project.as_str().to_owned())
                .push(", ")
                .push_bind(git_ref.as_str().to_owned())
                .push(")))");
        }
        query.push(" ORDER BY saving.day DESC, project.name, ref");
        if let Some(limit) = filter.limit {
            query.push(" LIMIT ").push_bind(i64::from(limit));
        }
        let mut connection = self.connections.one().await?;
        let rows: Vec<Row> = query
            .build_query_as()
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        rows.into_iter().map(|row| self.saving(row)).collect()
    }

    fn saving(&self, row: Row) -> Result<Saving, CatalogError> {
        let context = &self.context;
        let (project, git_ref, day, builds, steps, cached, saved, estimated) = row;
        Ok(Saving {
            project: columns::parsed(context, &project)?,
            git_ref: columns::parsed(context, &git_ref)?,
            day: columns::parsed(context, &day)?,
            builds: context.count(builds)?,
            steps: context.count(steps)?,
            cached: context.count(cached)?,
            saved_ms: context.count(saved)?,
            estimated_ms: context.count(estimated)?,
        })
    }
}
