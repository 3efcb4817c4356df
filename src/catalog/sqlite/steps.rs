//! The steps of exports, beside their layers.

use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row as _, Sqlite, Transaction};

use super::rows::texts;
use crate::catalog::columns::{self, milliseconds, nanoseconds};
use crate::catalog::context::Context;
use crate::catalog::{CatalogError, ExportId};
use crate::digest::RecordDigest;
use crate::place::{GitRef, ProjectId};
use crate::step::{Origin, Step};

/// Results in one question; each is a record's digest and a number.
const RESULTS: usize = 1000;

/// Each result may stand in many exports: the first that is found will do.
pub(super) const OF_RESULTS: &str = "SELECT step.record, step.created_at, step.name, step.duration,
        ifnull(step.builder, export.builder) AS builder, step.daemon
    FROM json_each(?1) AS result CROSS JOIN step CROSS JOIN export ON export.id = step.export
    WHERE (step.export, step.position) = (
        SELECT export, position FROM step INDEXED BY step_by_record
        WHERE project = (SELECT id FROM project WHERE name = ?2)
          AND record = result.value ->> 0 AND created_at = result.value ->> 1
          AND (?3 IS NULL OR (SELECT ref FROM export WHERE id = step.export) IN (
              SELECT value FROM json_each(?3) AS readable))
        LIMIT 1)";

/// Adds the steps of an export: its id, and that of its project.
pub(super) async fn insert(
    context: &Context,
    tx: &mut Transaction<'_, Sqlite>,
    (export, project): (i64, i64),
    steps: &[Step],
) -> Result<(), CatalogError> {
    for (position, step) in steps.iter().enumerate() {
        sqlx::query(
            "INSERT INTO step (export, position, project, record, created_at, name, duration, builder, daemon)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(export)
        .bind(context.integer(position as u64)?)
        .bind(project)
        .bind(step.record.as_str())
        .bind(nanoseconds(step.created_at))
        .bind(step.name.as_str())
        .bind(milliseconds(step.duration))
        .bind(step.origin.as_ref().map(|origin| &origin.builder))
        .bind(step.origin.as_ref().and_then(|origin| origin.daemon.as_ref()))
        .execute(&mut **tx)
        .await
        .map_err(|error| context.of(error))?;
    }
    Ok(())
}

/// The steps of one export, as they were given.
pub(super) async fn of_export(
    context: &Context,
    tx: &mut Transaction<'_, Sqlite>,
    export: ExportId,
) -> Result<Vec<Step>, CatalogError> {
    // A catalog that takes no writes may be as an older layerd left it.
    let kept: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'step')",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| context.of(error))?;
    if !kept {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT record, created_at, name, duration FROM step WHERE export = ?1 ORDER BY position",
    )
    .bind(export.0)
    .fetch_all(&mut **tx)
    .await
    .map_err(|error| context.of(error))?;
    rows.iter().map(|row| step(context, row)).collect()
}

/// The steps of results that a project keeps.
pub(super) async fn of_results(
    context: &Context,
    readers: &SqlitePool,
    (project, refs): (&ProjectId, Option<&[GitRef]>),
    results: &[(RecordDigest, Timestamp)],
) -> Result<Vec<Step>, CatalogError> {
    let mut steps = Vec::new();
    for page in results.chunks(RESULTS) {
        let asked: Vec<(&str, i64)> = page
            .iter()
            .map(|(record, created_at)| (record.as_str(), nanoseconds(*created_at)))
            .collect();
        let rows = sqlx::query(OF_RESULTS)
            .bind(serde_json::json!(asked).to_string())
            .bind(project.as_str())
            .bind(refs.map(texts))
            .fetch_all(readers)
            .await
            .map_err(|error| context.of(error))?;
        for row in &rows {
            let origin = Some(origin(context, row)?);
            steps.push(Step {
                origin,
                ..step(context, row)?
            });
        }
    }
    Ok(steps)
}

fn step(context: &Context, row: &SqliteRow) -> Result<Step, CatalogError> {
    let failed = |error| context.corrupt(error);
    let record: &str = row.try_get("record").map_err(failed)?;
    let created_at: i64 = row.try_get("created_at").map_err(failed)?;
    let name: &str = row.try_get("name").map_err(failed)?;
    let duration: i64 = row.try_get("duration").map_err(failed)?;
    columns::step(context, (record, created_at), name, duration, None)
}

fn origin(context: &Context, row: &SqliteRow) -> Result<Origin, CatalogError> {
    Ok(Origin {
        builder: row
            .try_get("builder")
            .map_err(|error| context.corrupt(error))?,
        daemon: row
            .try_get("daemon")
            .map_err(|error| context.corrupt(error))?,
    })
}
