//! What builds were saved: one row for a project, a ref and a day, into which
//! every build of that day is added.

use sqlx::{Postgres, QueryBuilder};

use super::PostgresCatalog;
use crate::catalog::{CatalogError, Saving, SavingFilter, columns};

/// Project, ref and day; builds, steps and cached ones; milliseconds saved and
/// estimated.
type Row = (String, String, String, i64, i64, i64, i64, i64);

impl PostgresCatalog {
    pub(super) async fn upsert_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, &saving.project).await?;
        sqlx::query(
            "INSERT INTO saving (project, ref, day, builds, steps, cached, saved, estimated)
             VALUES ($1, $2, $3::text::date, $4, $5, $6, $7, $8)
             ON CONFLICT (project, ref, day) DO UPDATE SET
                 builds = saving.builds + excluded.builds, steps = saving.steps + excluded.steps,
                 cached = saving.cached + excluded.cached, saved = saving.saved + excluded.saved,
                 estimated = saving.estimated + excluded.estimated",
        )
        .bind(project)
        .bind(saving.git_ref.as_str())
        .bind(saving.day.to_string())
        .bind(self.context.integer(saving.builds)?)
        .bind(self.context.integer(saving.steps)?)
        .bind(self.context.integer(saving.cached)?)
        .bind(self.context.integer(saving.saved_ms)?)
        .bind(self.context.integer(saving.estimated_ms)?)
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
