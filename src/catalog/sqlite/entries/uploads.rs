//! Uploads and their blocks. SQLite lets one write at a time, so that looking
//! and noting are one moment.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::open::microseconds;
use crate::catalog::entries::{
    AppendedEntry, Became, Block, MAX_BLOCKS, MAX_ENTRY, MOST_ALIKE, NewUpload, Put, Reserved,
    UPLOAD_ALIVE, UPLOAD_KEPT, Upload, UploadId, too_many,
};
use crate::catalog::sqlite::leases::end;
use crate::catalog::sqlite::turn::Turn;
use crate::catalog::sqlite::{SqliteCatalog, rows};
use crate::catalog::{CatalogError, Kind, NewExport, columns, packed};
use crate::entry::EntryName;
use crate::moment::Moment;
use crate::place::ProjectId;

/// An upload, and its blocks.
macro_rules! upload {
    () => {
        "SELECT upload.id, project.name AS project, ref, key, version, blocks, bytes, became, size,
             export, ifnull(created, touched) AS created
         FROM upload JOIN project ON project.id = upload.project"
    };
}

impl SqliteCatalog {
    pub(super) async fn insert_upload(&self, upload: &NewUpload) -> Result<Reserved, CatalogError> {
        let failed = |error| self.context.of(error);
        let (git_ref, name) = (upload.git_ref.as_str(), &upload.name);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let project = self.project(&mut tx, &upload.project).await?;
        let now = Timestamp::now().as_microsecond();
        if upload.alone {
            let taken: Option<i64> = sqlx::query_scalar(
                "SELECT 1 FROM upload WHERE project = ?1 AND key = ?2 AND version = ?3 AND ref = ?4
                     AND became IS NULL AND touched > ?5
                 UNION ALL
                 SELECT 1 FROM entry JOIN export ON export.id = entry.export
                 WHERE entry.project = ?1 AND entry.ref = ?4 AND version = ?3 AND key = ?2
                     AND retired IS NULL
                 LIMIT 1",
            )
            .bind(project)
            .bind(name.key.as_str())
            .bind(name.version.as_str())
            .bind(git_ref)
            .bind(now.saturating_sub(microseconds(UPLOAD_ALIVE)))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
            if taken.is_some() {
                tx.rollback().await.map_err(failed)?;
                turn.keep();
                return Ok(Reserved::Exists);
            }
        }
        let (all, of_ref): (i64, i64) = sqlx::query_as(
            "SELECT count(*), ifnull(sum(ref = ?2 AND touched > ?4), 0) FROM upload
             WHERE project = ?1 AND became IS NULL AND expires > ?3",
        )
        .bind(project)
        .bind(git_ref)
        .bind(now)
        .bind(now.saturating_sub(microseconds(UPLOAD_ALIVE)))
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        if too_many([self.context.count(all)?, self.context.count(of_ref)?]) {
            tx.rollback().await.map_err(failed)?;
            turn.keep();
            return Ok(Reserved::TooMany);
        }
        let id = UploadId::random();
        sqlx::query(
            "INSERT INTO upload (id, project, ref, key, version, touched, expires, created, renewed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6, ?6)",
        )
        .bind(id.0)
        .bind(project)
        .bind(git_ref)
        .bind(name.key.as_str())
        .bind(name.version.as_str())
        .bind(now)
        .bind(end(UPLOAD_KEPT))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(Reserved::Upload(id))
    }

    pub(super) async fn get_upload(&self, id: UploadId) -> Result<Option<Upload>, CatalogError> {
        let row = sqlx::query(concat!(upload!(), " WHERE upload.id = ?1 AND expires > ?2"))
            .bind(id.0)
            .bind(Timestamp::now().as_microsecond())
            .fetch_optional(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        row.map(|row| self.row_of_upload(&row)).transpose()
    }

    pub(super) async fn uploads_named(
        &self,
        project: &ProjectId,
        name: &EntryName,
    ) -> Result<Vec<Upload>, CatalogError> {
        let found = sqlx::query(concat!(
            upload!(),
            " WHERE project.name = ?1 AND key = ?2 AND version = ?3 AND expires > ?4
             ORDER BY touched DESC LIMIT ?5"
        ))
        .bind(project.as_str())
        .bind(name.key.as_str())
        .bind(name.version.as_str())
        .bind(Timestamp::now().as_microsecond())
        .bind(MOST_ALIKE)
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        found.iter().map(|row| self.row_of_upload(row)).collect()
    }

    pub(super) async fn upsert_block(
        &self,
        id: UploadId,
        block: &Block,
        alone: bool,
    ) -> Result<Put, CatalogError> {
        let failed = |error| self.context.of(error);
        let size = self.context.integer(block.size)?;
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write_lightly().await.map_err(failed)?;
        let put = async {
            let Some((blocks, bytes)) = self.open_upload(&mut tx, id).await? else {
                return Ok(Put::Closed);
            };
            let before: Option<i64> =
                sqlx::query_scalar("SELECT size FROM block WHERE upload = ?1 AND name = ?2")
                    .bind(id.0)
                    .bind(&block.name)
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(failed)?;
            let before = before.map(|size| self.context.count(size)).transpose()?;
            let (blocks, bytes) = match (alone, before) {
                (true, _) => (0, 0),
                (false, Some(size)) => (blocks.saturating_sub(1), bytes.saturating_sub(size)),
                (false, None) => (blocks, bytes),
            };
            if blocks >= MAX_BLOCKS as u64 {
                return Ok(Put::Full);
            }
            let bytes = bytes.saturating_add(block.size);
            if bytes > MAX_ENTRY {
                return Ok(Put::TooLarge);
            }
            if alone {
                sqlx::query("DELETE FROM block WHERE upload = ?1")
                    .bind(id.0)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            }
            sqlx::query(
                "INSERT INTO block (upload, name, digest, size, start, position)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (upload, name) DO UPDATE SET
                     digest = excluded.digest, size = excluded.size, start = excluded.start,
                     position = coalesce(excluded.position,
                         iif(digest = excluded.digest, position, NULL))",
            )
            .bind(id.0)
            .bind(&block.name)
            .bind(&block.digest.as_bytes()[..])
            .bind(size)
            .bind(self.optional(block.start)?)
            .bind(self.optional(block.position)?)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
            self.count_blocks(&mut tx, id, (blocks + 1, bytes)).await?;
            Ok(Put::Done)
        };
        let put = put.await?;
        tx.commit().await.map_err(failed)?;
        turn.keep_heavy().await;
        Ok(put)
    }

    pub(super) async fn set_positions(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<Option<String>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write_lightly().await.map_err(failed)?;
        let known: Vec<String> = match self.open_upload(&mut tx, id).await? {
            Some(_) => sqlx::query_scalar("SELECT name FROM block WHERE upload = ?1")
                .bind(id.0)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?,
            None => Vec::new(),
        };
        let known: BTreeSet<String> = known.into_iter().collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
            tx.rollback().await.map_err(failed)?;
            turn.keep_heavy().await;
            return Ok(Some(unknown.clone()));
        }
        for statement in [
            "UPDATE block SET start = NULL, position = NULL WHERE upload = ?1 AND ?2 NOT NULL",
            "UPDATE block SET position = listed.key
             FROM (SELECT key, value FROM json_each(?2)) AS listed
             WHERE upload = ?1 AND name = listed.value",
            "DELETE FROM block WHERE upload = ?1 AND position IS NULL AND ?2 NOT NULL",
        ] {
            sqlx::query(statement)
                .bind(id.0)
                .bind(serde_json::json!(names).to_string())
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        let (blocks, bytes): (i64, i64) =
            sqlx::query_as("SELECT count(*), ifnull(sum(size), 0) FROM block WHERE upload = ?1")
                .bind(id.0)
                .fetch_one(&mut *tx)
                .await
                .map_err(failed)?;
        let left = (self.context.count(blocks)?, self.context.count(bytes)?);
        self.count_blocks(&mut tx, id, left).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep_heavy().await;
        Ok(None)
    }

    pub(super) async fn blocks_of(&self, id: UploadId) -> Result<Vec<Block>, CatalogError> {
        let found = sqlx::query(
            "SELECT name, digest, size, start, position FROM block WHERE upload = ?1
             ORDER BY position NULLS LAST, start NULLS LAST, name",
        )
        .bind(id.0)
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        found.iter().map(|row| self.row_of_block(row)).collect()
    }

    pub(super) async fn insert_entry(
        &self,
        id: UploadId,
        export: NewExport,
        size: u64,
    ) -> Result<AppendedEntry, CatalogError> {
        let failed = |error| self.context.of(error);
        let plain = export.config.clone();
        let config = self.context.blocking(move || packed::pack(&plain)).await?;
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let upload = sqlx::query(concat!(upload!(), " WHERE upload.id = ?1 AND expires > ?2"))
            .bind(id.0)
            .bind(Timestamp::now().as_microsecond())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
        let upload = upload.map(|row| self.row_of_upload(&row)).transpose()?;
        let appended = match upload {
            None => AppendedEntry::Gone,
            Some(Upload {
                became: Some((became, _)),
                ..
            }) => AppendedEntry::Already(became),
            Some(upload) => {
                self.append_named(&mut tx, &upload, (&export, &config), size)
                    .await?
            }
        };
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(appended)
    }

    async fn append_named(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        upload: &Upload,
        (export, config): (&NewExport, &[u8]),
        size: u64,
    ) -> Result<AppendedEntry, CatalogError> {
        let failed = |error| self.context.of(error);
        let (name, git_ref) = (&upload.name, upload.git_ref.as_str());
        let project = self.project(tx, &upload.project).await?;
        let taken: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM entry JOIN export ON export.id = entry.export
             WHERE entry.project = ?1 AND entry.ref = ?2 AND version = ?3 AND key = ?4
                 AND retired IS NULL",
        )
        .bind(project)
        .bind(git_ref)
        .bind(name.version.as_str())
        .bind(name.key.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(failed)?;
        if taken.is_some() {
            return Ok(AppendedEntry::Exists);
        }
        let id = self.insert(tx, (export, Kind::Entry), config).await?;
        sqlx::query(
            "INSERT INTO entry (export, project, ref, key, version, size)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(id.0)
        .bind(project)
        .bind(git_ref)
        .bind(name.key.as_str())
        .bind(name.version.as_str())
        .bind(self.context.integer(size)?)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        self.update_upload(tx, upload.id, (Became::Entry(id), size))
            .await?;
        Ok(AppendedEntry::Done(id))
    }

    /// What it became, if it is open, and how large that is; its blocks go.
    pub(super) async fn update_upload(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        id: UploadId,
        (became, size): (Became, u64),
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let (what, export) = became.as_columns();
        sqlx::query(
            "UPDATE upload SET became = ?2, export = ?3, size = ?4
             WHERE id = ?1 AND became IS NULL",
        )
        .bind(id.0)
        .bind(what)
        .bind(export)
        .bind(self.context.integer(size)?)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        sqlx::query("DELETE FROM block WHERE upload = ?1")
            .bind(id.0)
            .execute(&mut **tx)
            .await
            .map(drop)
            .map_err(failed)
    }

    pub(super) async fn delete_upload(&self, id: UploadId) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        sqlx::query("DELETE FROM upload WHERE id = ?1 AND became IS NULL")
            .bind(id.0)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    /// How many blocks and bytes an upload has, if it is open.
    pub(super) async fn open_upload(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        id: UploadId,
    ) -> Result<Option<(u64, u64)>, CatalogError> {
        let row = sqlx::query(
            "SELECT blocks, bytes FROM upload WHERE id = ?1 AND became IS NULL AND expires > ?2",
        )
        .bind(id.0)
        .bind(Timestamp::now().as_microsecond())
        .fetch_optional(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))?;
        let counts = |row: SqliteRow| {
            Ok((
                rows::count(&self.context, &row, "blocks")?,
                rows::count(&self.context, &row, "bytes")?,
            ))
        };
        row.map(counts).transpose()
    }

    async fn count_blocks(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        id: UploadId,
        (blocks, bytes): (u64, u64),
    ) -> Result<(), CatalogError> {
        sqlx::query("UPDATE upload SET blocks = ?2, bytes = ?3 WHERE id = ?1")
            .bind(id.0)
            .bind(self.context.integer(blocks)?)
            .bind(self.context.integer(bytes)?)
            .execute(&mut **tx)
            .await
            .map_err(|error| self.context.of(error))?;
        self.note_life(tx, id).await
    }

    fn optional(&self, number: Option<u64>) -> Result<Option<i64>, CatalogError> {
        number
            .map(|number| self.context.integer(number))
            .transpose()
    }

    fn row_of_upload(&self, row: &SqliteRow) -> Result<Upload, CatalogError> {
        let context = &self.context;
        let corrupt = |error: sqlx::Error| context.corrupt(error);
        let became: Option<&str> = row.try_get("became").map_err(corrupt)?;
        let became = match became {
            None => None,
            Some(became) => {
                let export = row.try_get("export").map_err(corrupt)?;
                let became = Became::of_columns(became, export);
                let became = became.map_err(|error| context.corrupt(error))?;
                Some((became, rows::count(context, row, "size")?))
            }
        };
        Ok(Upload {
            id: UploadId(row.try_get("id").map_err(corrupt)?),
            project: rows::text(context, row, "project")?,
            git_ref: rows::text(context, row, "ref")?,
            name: EntryName {
                key: rows::text(context, row, "key")?,
                version: rows::text(context, row, "version")?,
            },
            blocks: rows::count(context, row, "blocks")?,
            bytes: rows::count(context, row, "bytes")?,
            began: Moment::at(columns::microsecond(
                context,
                row.try_get("created").map_err(corrupt)?,
            )?),
            became,
        })
    }

    fn row_of_block(&self, row: &SqliteRow) -> Result<Block, CatalogError> {
        let context = &self.context;
        let corrupt = |error: sqlx::Error| context.corrupt(error);
        let optional = |column| {
            let number: Option<i64> = row.try_get(column).map_err(corrupt)?;
            number.map(|number| context.count(number)).transpose()
        };
        Ok(Block {
            name: row.try_get("name").map_err(corrupt)?,
            digest: rows::digest(context, row, "digest")?,
            size: rows::count(context, row, "size")?,
            start: optional("start")?,
            position: optional("position")?,
        })
    }
}
