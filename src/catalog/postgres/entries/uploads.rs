//! Uploads and their blocks.
//!
//! Who reserves a name or appends an entry holds a lock of that name, so that
//! of two at once the second finds what the first has done. Who changes an
//! upload holds its row.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

use crate::catalog::entries::{
    AppendedEntry, Became, Block, MAX_BLOCKS, MAX_ENTRY, MOST_ALIKE, NewUpload, Put, Reserved,
    UPLOAD_ALIVE, UPLOAD_KEPT, Upload, UploadId, too_many,
};
use crate::catalog::postgres::{PostgresCatalog, lock, microseconds};
use crate::catalog::{CatalogError, Kind, NewExport, columns};
use crate::entry::EntryName;
use crate::moment::Moment;
use crate::place::{GitRef, ProjectId};

/// An id; project, ref, key and version; blocks and bytes; what it became, how
/// large, and the export that has it; how long ago it was reserved.
type Row = (
    i64,
    String,
    String,
    String,
    String,
    i32,
    i64,
    Option<String>,
    Option<i64>,
    Option<i64>,
    i64,
);

/// Name, digest, size, start, position.
type BlockRow = (String, Vec<u8>, i64, Option<i64>, Option<i32>);

macro_rules! upload {
    () => {
        "SELECT upload.id, project.name, ref, key, version, blocks, bytes, became, size, export,
             (extract(epoch FROM statement_timestamp() - created) * 1000000)::bigint
         FROM upload JOIN project ON project.id = upload.project
         WHERE expires > statement_timestamp()"
    };
}

impl PostgresCatalog {
    pub(super) async fn insert_upload(&self, upload: &NewUpload) -> Result<Reserved, CatalogError> {
        let failed = |error| self.context.of(error);
        let name = &upload.name;
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, &upload.project).await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        if upload.alone {
            self.lock_name(&mut tx, project, (&upload.git_ref, name))
                .await?;
            let alive: bool = sqlx::query_scalar(
                "SELECT EXISTS (
                     SELECT 1 FROM upload WHERE project = $1 AND key = $2 AND version = $3
                         AND ref = $4 AND became IS NULL
                         AND touched > statement_timestamp() - $5 * interval '1 microsecond')",
            )
            .bind(project)
            .bind(name.key.as_str())
            .bind(name.version.as_str())
            .bind(upload.git_ref.as_str())
            .bind(microseconds(UPLOAD_ALIVE))
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
            if alive
                || self
                    .has_entry(&mut tx, project, (&upload.git_ref, name))
                    .await?
            {
                tx.rollback().await.map_err(failed)?;
                return Ok(Reserved::Exists);
            }
        }
        let (all, of_ref): (i64, i64) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE ref = $2
                 AND touched > statement_timestamp() - $3 * interval '1 microsecond') FROM upload
             WHERE project = $1 AND became IS NULL AND expires > statement_timestamp()",
        )
        .bind(project)
        .bind(upload.git_ref.as_str())
        .bind(microseconds(UPLOAD_ALIVE))
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        if too_many([self.context.count(all)?, self.context.count(of_ref)?]) {
            tx.rollback().await.map_err(failed)?;
            return Ok(Reserved::TooMany);
        }
        let id = UploadId::random();
        sqlx::query(
            "INSERT INTO upload (id, project, ref, key, version, touched, created, renewed, expires)
             VALUES ($1, $2, $3, $4, $5, statement_timestamp(), statement_timestamp(),
                 statement_timestamp(), statement_timestamp() + $6 * interval '1 microsecond')",
        )
        .bind(id.0)
        .bind(project)
        .bind(upload.git_ref.as_str())
        .bind(name.key.as_str())
        .bind(name.version.as_str())
        .bind(microseconds(UPLOAD_KEPT))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(Reserved::Upload(id))
    }

    /// Others with that name wait until the transaction ends.
    async fn lock_name(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        project: i32,
        (git_ref, name): (&GitRef, &EntryName),
    ) -> Result<(), CatalogError> {
        let (key, version) = (&name.key, &name.version);
        // No ref, key or version holds a line feed.
        let name = format!("entry/{project}\n{git_ref}\n{key}\n{version}");
        self.lock(tx, lock!("pg_advisory_xact_lock"), &name).await
    }

    async fn has_entry(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        project: i32,
        (git_ref, name): (&GitRef, &EntryName),
    ) -> Result<bool, CatalogError> {
        sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM entry JOIN export ON export.key = entry.export
                 WHERE entry.project = $1 AND entry.ref = $2 AND version = $3 AND entry.key = $4
                     AND retired IS NULL)",
        )
        .bind(project)
        .bind(git_ref.as_str())
        .bind(name.version.as_str())
        .bind(name.key.as_str())
        .fetch_one(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))
    }

    pub(super) async fn get_upload(&self, id: UploadId) -> Result<Option<Upload>, CatalogError> {
        let mut connection = self.connections.one().await?;
        self.upload_in(&mut connection, id).await
    }

    async fn upload_in(
        &self,
        connection: &mut PgConnection,
        id: UploadId,
    ) -> Result<Option<Upload>, CatalogError> {
        let asked = Moment::now();
        let row: Option<Row> = sqlx::query_as(concat!(upload!(), " AND upload.id = $1"))
            .bind(id.0)
            .fetch_optional(connection)
            .await
            .map_err(|error| self.context.of(error))?;
        row.map(|row| self.row_of_upload(row, asked)).transpose()
    }

    pub(super) async fn uploads_named(
        &self,
        project: &ProjectId,
        name: &EntryName,
    ) -> Result<Vec<Upload>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let asked = Moment::now();
        let found: Vec<Row> = sqlx::query_as(concat!(
            upload!(),
            " AND project.name = $1 AND key = $2 AND version = $3
             ORDER BY touched DESC LIMIT $4"
        ))
        .bind(project.as_str())
        .bind(name.key.as_str())
        .bind(name.version.as_str())
        .bind(i64::from(MOST_ALIKE))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        found
            .into_iter()
            .map(|row| self.row_of_upload(row, asked))
            .collect()
    }

    pub(super) async fn upsert_block(
        &self,
        id: UploadId,
        block: &Block,
        alone: bool,
    ) -> Result<Put, CatalogError> {
        let failed = |error| self.context.of(error);
        let position = block.position.map(i32::try_from).transpose();
        let position = position.map_err(|error| self.context.other(error))?;
        let start = block.start.map(|start| self.context.integer(start));
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        let Some((blocks, bytes)) = self.open_upload(&mut tx, id).await? else {
            return Ok(Put::Closed);
        };
        let before: Option<i64> =
            sqlx::query_scalar("SELECT size FROM block WHERE upload = $1 AND name = $2")
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
            self.delete_blocks(&mut tx, id).await?;
        }
        sqlx::query(
            "INSERT INTO block (upload, name, digest, size, start, position)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (upload, name) DO UPDATE SET
                 digest = excluded.digest, size = excluded.size, start = excluded.start,
                 position = coalesce(excluded.position,
                     CASE WHEN block.digest = excluded.digest THEN block.position END)",
        )
        .bind(id.0)
        .bind(&block.name)
        .bind(&block.digest.as_bytes()[..])
        .bind(self.context.integer(block.size)?)
        .bind(start.transpose()?)
        .bind(position)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.count_blocks(&mut tx, id, (blocks + 1, bytes)).await?;
        tx.commit().await.map_err(failed)?;
        Ok(Put::Done)
    }

    pub(super) async fn set_positions(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<Option<String>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        let known: Vec<String> = match self.open_upload(&mut tx, id).await? {
            Some(_) => sqlx::query_scalar("SELECT name FROM block WHERE upload = $1")
                .bind(id.0)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?,
            None => Vec::new(),
        };
        let known: BTreeSet<String> = known.into_iter().collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
            return Ok(Some(unknown.clone()));
        }
        for statement in [
            "DELETE FROM block WHERE upload = $1 AND NOT EXISTS (
                 SELECT 1 FROM unnest($2::text[]) AS listed (name) WHERE listed.name = block.name)",
            "UPDATE block SET start = NULL, position = listed.nth
             FROM unnest($2::text[]) WITH ORDINALITY AS listed (name, nth)
             WHERE upload = $1 AND block.name = listed.name",
        ] {
            sqlx::query(statement)
                .bind(id.0)
                .bind(names)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        let (blocks, bytes): (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(size), 0)::bigint FROM block WHERE upload = $1",
        )
        .bind(id.0)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        let left = (self.context.count(blocks)?, self.context.count(bytes)?);
        self.count_blocks(&mut tx, id, left).await?;
        tx.commit().await.map_err(failed)?;
        Ok(None)
    }

    pub(super) async fn blocks_of(&self, id: UploadId) -> Result<Vec<Block>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Vec<BlockRow> = sqlx::query_as(
            "SELECT name, digest, size, start, position FROM block WHERE upload = $1
             ORDER BY position NULLS LAST, start NULLS LAST, name",
        )
        .bind(id.0)
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let count = |number: Option<i64>| number.map(|number| self.context.count(number));
        let block = |(name, digest, size, start, position): BlockRow| {
            Ok(Block {
                name,
                digest: self.digest(&digest)?,
                size: self.context.count(size)?,
                start: count(start).transpose()?,
                position: count(position.map(i64::from)).transpose()?,
            })
        };
        found.into_iter().map(block).collect()
    }

    pub(super) async fn insert_entry(
        &self,
        id: UploadId,
        export: NewExport,
        size: u64,
    ) -> Result<AppendedEntry, CatalogError> {
        let failed = |error| self.context.of(error);
        let documents = self.documents(&export).await?;
        let mut connection = self.connections.one().await?;
        let project = self.project(&mut connection, &export.place.project).await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.open_upload(&mut tx, id).await?;
        let upload = match self.upload_in(&mut tx, id).await? {
            None => return Ok(AppendedEntry::Gone),
            Some(Upload {
                became: Some((became, _)),
                ..
            }) => return Ok(AppendedEntry::Already(became)),
            Some(upload) => upload,
        };
        let of = (&upload.git_ref, &upload.name);
        self.lock_name(&mut tx, project, of).await?;
        if self.has_entry(&mut tx, project, of).await? {
            return Ok(AppendedEntry::Exists);
        }
        let kind = (project, Kind::Entry);
        let (key, export) = self.append_in(&mut tx, kind, &export, &documents).await?;
        sqlx::query(
            "INSERT INTO entry (export, project, ref, key, version, size)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(key)
        .bind(project)
        .bind(upload.git_ref.as_str())
        .bind(upload.name.key.as_str())
        .bind(upload.name.version.as_str())
        .bind(self.context.integer(size)?)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.update_upload(&mut tx, id, (Became::Entry(export), size))
            .await?;
        tx.commit().await.map_err(failed)?;
        Ok(AppendedEntry::Done(export))
    }

    pub(super) async fn finish_upload(
        &self,
        id: UploadId,
        became: (Became, u64),
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.update_upload(&mut tx, id, became).await?;
        tx.commit().await.map_err(failed)
    }

    /// What it became, if it is open, and how large that is; its blocks go.
    async fn update_upload(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        id: UploadId,
        (became, size): (Became, u64),
    ) -> Result<(), CatalogError> {
        let (what, export) = became.as_columns();
        sqlx::query(
            "UPDATE upload SET became = $2, export = $3, size = $4
             WHERE id = $1 AND became IS NULL",
        )
        .bind(id.0)
        .bind(what)
        .bind(export)
        .bind(self.context.integer(size)?)
        .execute(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))?;
        self.delete_blocks(tx, id).await
    }

    async fn delete_blocks(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        id: UploadId,
    ) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM block WHERE upload = $1")
            .bind(id.0)
            .execute(&mut **tx)
            .await
            .map(drop)
            .map_err(|error| self.context.of(error))
    }

    pub(super) async fn delete_upload(&self, id: UploadId) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        sqlx::query("DELETE FROM upload WHERE id = $1 AND became IS NULL")
            .bind(id.0)
            .execute(&mut *connection)
            .await
            .map(drop)
            .map_err(|error| self.context.of(error))
    }

    /// How many blocks and bytes an upload has, if it is open; nobody else
    /// changes it until the transaction ends.
    pub(super) async fn open_upload(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        id: UploadId,
    ) -> Result<Option<(u64, u64)>, CatalogError> {
        let found: Option<(i32, i64)> = sqlx::query_as(
            "SELECT blocks, bytes FROM upload
             WHERE id = $1 AND became IS NULL AND expires > statement_timestamp() FOR UPDATE",
        )
        .bind(id.0)
        .fetch_optional(&mut **tx)
        .await
        .map_err(|error| self.context.of(error))?;
        let counts = |(blocks, bytes): (i32, i64)| {
            Ok((
                self.context.count(blocks.into())?,
                self.context.count(bytes)?,
            ))
        };
        found.map(counts).transpose()
    }

    async fn count_blocks(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        id: UploadId,
        (blocks, bytes): (u64, u64),
    ) -> Result<(), CatalogError> {
        sqlx::query("UPDATE upload SET blocks = $2::bigint::integer, bytes = $3 WHERE id = $1")
            .bind(id.0)
            .bind(self.context.integer(blocks)?)
            .bind(self.context.integer(bytes)?)
            .execute(&mut **tx)
            .await
            .map_err(|error| self.context.of(error))?;
        self.note_life(tx, id).await
    }

    /// As it was told to who asked then.
    fn row_of_upload(&self, row: Row, asked: Moment) -> Result<Upload, CatalogError> {
        let context = &self.context;
        let (id, project, git_ref, key, version, blocks, bytes, became, size, export, ago) = row;
        let became = match became.zip(size) {
            None => None,
            Some((became, size)) => {
                let became = Became::of_columns(&became, export);
                let became = became.map_err(|error| context.corrupt(error))?;
                Some((became, context.count(size)?))
            }
        };
        Ok(Upload {
            id: UploadId(id),
            project: columns::parsed(context, &project)?,
            git_ref: columns::parsed(context, &git_ref)?,
            name: EntryName {
                key: columns::parsed(context, &key)?,
                version: columns::parsed(context, &version)?,
            },
            blocks: context.count(blocks.into())?,
            bytes: context.count(bytes)?,
            began: asked - Duration::from_micros(ago.try_into().unwrap_or(0)),
            became,
        })
    }
}
