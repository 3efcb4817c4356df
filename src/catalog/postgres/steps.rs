//! The steps of exports, beside their layers.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{PostgresCatalog, texts};
use crate::catalog::CatalogError;
use crate::catalog::columns::{self, nanoseconds};
use crate::digest::RecordDigest;
use crate::place::{GitRef, ProjectId};
use crate::step::{Origin, Step};

/// Results in one question; each is a record's digest and a number.
const RESULTS: usize = 10_000;

/// Each result may stand in many exports: the first that is found will do.
pub(super) const OF_RESULTS: &str = "SELECT found.* FROM unnest($2::text[], $3::bigint[]) AS asked (record, created_at)
    CROSS JOIN LATERAL (
        SELECT step.record, step.created_at, step.name, duration,
               coalesce(step.builder, export.builder), daemon
        FROM step JOIN export ON export.key = step.export
        WHERE step.project = $1 AND step.record = asked.record AND step.created_at = asked.created_at
            AND ($4::text[] IS NULL OR export.ref = ANY($4::text[]))
        LIMIT 1) AS found";

impl PostgresCatalog {
    /// The steps of one export, by its key, as they were given.
    pub(super) async fn steps_of_export(
        &self,
        connection: &mut PgConnection,
        key: i64,
    ) -> Result<Vec<Step>, CatalogError> {
        let rows: Vec<(String, i64, String, i64)> = sqlx::query_as(
            "SELECT record, created_at, name, duration FROM step WHERE export = $1 ORDER BY nth",
        )
        .bind(key)
        .fetch_all(connection)
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter()
            .map(|(record, created_at, name, duration)| {
                let result = (record.as_str(), *created_at);
                columns::step(&self.context, result, name, *duration, None)
            })
            .collect()
    }

    pub(super) async fn steps_of_results(
        &self,
        project: &ProjectId,
        refs: Option<&[GitRef]>,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CatalogError> {
        type Row = (String, i64, String, i64, String, Option<String>);
        let failed = |error| self.context.of(error);
        if results.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connections.one().await?;
        let project: Option<i32> = sqlx::query_scalar("SELECT id FROM project WHERE name = $1")
            .bind(project.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        let mut steps = Vec::new();
        for page in results.chunks(RESULTS) {
            let records: Vec<&str> = page.iter().map(|(record, _)| record.as_str()).collect();
            let dates: Vec<i64> = page.iter().map(|(_, date)| nanoseconds(*date)).collect();
            let rows: Vec<Row> = sqlx::query_as(OF_RESULTS)
                .bind(project)
                .bind(records)
                .bind(dates)
                .bind(refs.map(texts))
                .fetch_all(&mut *connection)
                .await
                .map_err(failed)?;
            for (record, created_at, name, duration, builder, daemon) in rows {
                let origin = Some(Origin { builder, daemon });
                let result = (record.as_str(), created_at);
                steps.push(columns::step(
                    &self.context,
                    result,
                    &name,
                    duration,
                    origin,
                )?);
            }
        }
        Ok(steps)
    }
}
