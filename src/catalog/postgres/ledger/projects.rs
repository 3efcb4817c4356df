//! Projects and refs, and what was settled for a project.

use std::time::Duration;

use sqlx::Connection as _;

use super::now;
use crate::catalog::ledger::{MAX_PAGE, Origin, ProjectHead, ProjectSettings, RefHead, Settled};
use crate::catalog::postgres::PostgresCatalog;
use crate::catalog::{CatalogError, ExportId, columns};
use crate::place::{GitRef, ProjectId};

/// Project, bytes, seconds, note, time, author.
type Setting = (String, Option<i64>, Option<i64>, String, i64, String);
/// Name, exports, the newest and its time.
type Project = (String, i64, Option<i64>, Option<i64>);
type Ref = (String, i64, i64, i64);

impl PostgresCatalog {
    pub(super) async fn upsert_settings(
        &self,
        project: &ProjectId,
        settings: &ProjectSettings,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let integer = |number| self.context.integer(number);
        let seconds = settings.max_age.map(|age| integer(age.as_secs()));
        let mut connection = self.connections.one().await?;
        let number = self.project(&mut connection, project).await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        sqlx::query(concat!(
            "INSERT INTO setting (project, max_bytes, max_age, note, at, author)
             VALUES ($1, $2, $3, $4, ",
            now!(),
            ", $5)
             ON CONFLICT (project) DO UPDATE SET
                 max_bytes = excluded.max_bytes, max_age = excluded.max_age,
                 note = excluded.note, at = excluded.at, author = excluded.author"
        ))
        .bind(number)
        .bind(settings.max_bytes.map(integer).transpose()?)
        .bind(seconds.transpose()?)
        .bind(columns::short(Some(&settings.note)))
        .bind(columns::short(Some(origin.actor.name())))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.audited(&mut tx, &settings.audit(project, origin))
            .await?;
        tx.commit().await.map_err(failed)
    }

    /// Of one project, or of those behind `after`.
    pub(super) async fn list_settings(
        &self,
        one: Option<&ProjectId>,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Settled>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let rows: Vec<Setting> = sqlx::query_as(
            "SELECT project.name, max_bytes, max_age, note, at, author
             FROM setting JOIN project ON project.id = setting.project
             WHERE ($1::text IS NULL OR project.name = $1) AND project.name > $2
             ORDER BY project.name LIMIT $3",
        )
        .bind(one.map(ProjectId::as_str))
        .bind(after.map_or("", ProjectId::as_str))
        .bind(i64::from(limit.min(MAX_PAGE)))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        rows.into_iter().map(|row| self.settled(row)).collect()
    }

    fn settled(&self, row: Setting) -> Result<Settled, CatalogError> {
        let (project, max_bytes, max_age, note, at, by) = row;
        let count = |number: Option<i64>| {
            let counted = number.map(|number| self.context.count(number));
            counted.transpose()
        };
        Ok(Settled {
            project: columns::parsed(&self.context, &project)?,
            settings: ProjectSettings {
                max_bytes: count(max_bytes)?,
                max_age: count(max_age)?.map(Duration::from_secs),
                note,
            },
            at: self.time(at)?,
            by,
        })
    }

    pub(super) async fn list_projects(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<ProjectHead>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let rows: Vec<Project> = sqlx::query_as(
            "SELECT page.name, counted.exports, counted.newest, export.written
             FROM (SELECT id, name FROM project WHERE name > $1 ORDER BY name LIMIT $2) AS page
             CROSS JOIN LATERAL (
                 SELECT count(*) AS exports, max(id) AS newest FROM export
                 WHERE project = page.id AND retired IS NULL) AS counted
             LEFT JOIN export ON export.id = counted.newest
             ORDER BY page.name",
        )
        .bind(after.map_or("", ProjectId::as_str))
        .bind(i64::from(limit.min(MAX_PAGE)))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let head = |(project, exports, newest, written): Project| {
            Ok(ProjectHead {
                project: columns::parsed(&self.context, &project)?,
                exports: self.context.count(exports)?,
                newest: newest.map(ExportId),
                written: written.map(|written| self.time(written)).transpose()?,
            })
        };
        rows.into_iter().map(head).collect()
    }

    pub(super) async fn list_refs(
        &self,
        project: &ProjectId,
        after: Option<&GitRef>,
        limit: u32,
    ) -> Result<Vec<RefHead>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let rows: Vec<Ref> = sqlx::query_as(
            "SELECT page.ref, page.exports, page.newest, export.written
             FROM (SELECT ref, count(*) AS exports, max(id) AS newest FROM export
                 WHERE project = (SELECT id FROM project WHERE name = $1)
                   AND ref > $2 AND retired IS NULL
                 GROUP BY ref ORDER BY ref LIMIT $3) AS page
             JOIN export ON export.id = page.newest
             ORDER BY page.ref",
        )
        .bind(project.as_str())
        .bind(after.map_or("", GitRef::as_str))
        .bind(i64::from(limit.min(MAX_PAGE)))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let head = |(git_ref, exports, newest, written): Ref| {
            Ok(RefHead {
                git_ref: columns::parsed(&self.context, &git_ref)?,
                exports: self.context.count(exports)?,
                newest: ExportId(newest),
                written: self.time(written)?,
            })
        };
        rows.into_iter().map(head).collect()
    }
}
