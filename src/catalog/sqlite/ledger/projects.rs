//! Projects and refs, and what was settled for a project.

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;

use crate::catalog::ledger::{MAX_PAGE, Origin, ProjectHead, ProjectSettings, RefHead, Settled};
use crate::catalog::sqlite::turn::Turn;
use crate::catalog::sqlite::{SqliteCatalog, rows};
use crate::catalog::{CatalogError, ExportId, columns};
use crate::place::{GitRef, ProjectId};

impl SqliteCatalog {
    pub(super) async fn upsert_settings(
        &self,
        project: &ProjectId,
        settings: &ProjectSettings,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let integer = |number| self.context.integer(number);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let number = self.project(&mut tx, project).await?;
        sqlx::query(
            "INSERT OR REPLACE INTO setting (project, max_bytes, max_age, note, at, author)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(number)
        .bind(settings.max_bytes.map(integer).transpose()?)
        .bind(
            settings
                .max_age
                .map(|age| integer(age.as_secs()))
                .transpose()?,
        )
        .bind(columns::short(Some(&settings.note)))
        .bind(Timestamp::now().as_microsecond())
        .bind(columns::short(Some(origin.actor.name())))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.audited(&mut tx, &settings.audit(project, origin))
            .await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    /// Of one project, or of those behind `after`.
    pub(super) async fn list_settings(
        &self,
        one: Option<&ProjectId>,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Settled>, CatalogError> {
        if !self.keeps_ledger().await? {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT project.name AS project, max_bytes, max_age, note, at, author
             FROM setting JOIN project ON project.id = setting.project
             WHERE (?1 IS NULL OR project.name = ?1) AND project.name > ?2
             ORDER BY project.name LIMIT ?3",
        )
        .bind(one.map(ProjectId::as_str))
        .bind(after.map_or("", ProjectId::as_str))
        .bind(limit.min(MAX_PAGE))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        rows.iter().map(|row| self.settled(row)).collect()
    }

    fn settled(&self, row: &SqliteRow) -> Result<Settled, CatalogError> {
        let context = &self.context;
        let count = |column| {
            let number: Option<i64> = self.column(row, column)?;
            number.map(|number| context.count(number)).transpose()
        };
        Ok(Settled {
            project: rows::text(context, row, "project")?,
            settings: ProjectSettings {
                max_bytes: count("max_bytes")?,
                max_age: count("max_age")?.map(std::time::Duration::from_secs),
                note: self.column(row, "note")?,
            },
            at: self.time(row, "at")?,
            by: self.column(row, "author")?,
        })
    }

    pub(super) async fn list_projects(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<ProjectHead>, CatalogError> {
        // `time` is that of the row with the greatest id.
        let rows = sqlx::query(
            "SELECT page.name AS project, count(export.id) AS exports, max(export.id) AS newest, time
             FROM (SELECT id, name FROM project WHERE name > ?1 ORDER BY name LIMIT ?2) AS page
             LEFT JOIN export ON export.project = page.id AND retired IS NULL
             GROUP BY page.name ORDER BY page.name",
        )
        .bind(after.map_or("", ProjectId::as_str))
        .bind(limit.min(MAX_PAGE))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let head = |row: &SqliteRow| {
            let newest: Option<i64> = self.column(row, "newest")?;
            Ok(ProjectHead {
                project: rows::text(&self.context, row, "project")?,
                exports: rows::count(&self.context, row, "exports")?,
                newest: newest.map(ExportId),
                written: match newest {
                    Some(_) => Some(self.time(row, "time")?),
                    None => None,
                },
            })
        };
        rows.iter().map(head).collect()
    }

    pub(super) async fn list_refs(
        &self,
        project: &ProjectId,
        after: Option<&GitRef>,
        limit: u32,
    ) -> Result<Vec<RefHead>, CatalogError> {
        // The same.
        let rows = sqlx::query(
            "SELECT ref, count(*) AS exports, max(id) AS newest, time FROM export
             WHERE project = (SELECT id FROM project WHERE name = ?1) AND ref > ?2 AND retired IS NULL
             GROUP BY ref ORDER BY ref LIMIT ?3",
        )
        .bind(project.as_str())
        .bind(after.map_or("", GitRef::as_str))
        .bind(limit.min(MAX_PAGE))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let head = |row: &SqliteRow| {
            Ok(RefHead {
                git_ref: rows::text(&self.context, row, "ref")?,
                exports: rows::count(&self.context, row, "exports")?,
                newest: ExportId(self.column(row, "newest")?),
                written: self.time(row, "time")?,
            })
        };
        rows.iter().map(head).collect()
    }
}
