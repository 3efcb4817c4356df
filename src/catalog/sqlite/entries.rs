//! Entries, as they are found; what is uploaded for them is in `uploads`, and
//! how much of that there is in `open`.

mod open;
mod uploads;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::catalog::collecting::HOUR;
use crate::catalog::entries::{
    AppendedEntry, Became, Block, Entries, EntryHead, NewUpload, Put, Reserved, Unfinished, Upload,
    UploadId,
};
use crate::catalog::{CatalogError, ExportId, NewExport, columns};
use crate::digest::Digest;
use crate::entry::{EntryKey, EntryName, EntryVersion};
use crate::place::{GitRef, ProjectId};

/// Of one ref and one key.
const FIND: &str = "SELECT entry.export, entry.ref, entry.key, version, size, time
    FROM entry JOIN export ON export.id = entry.export
    WHERE entry.project = (SELECT id FROM project WHERE name = ?1) AND entry.ref = ?2
      AND version = ?3 AND entry.key >= ?4 AND entry.key < ?5 AND retired IS NULL
    ORDER BY entry.key = ?4 DESC, entry.export DESC LIMIT 1";

#[async_trait]
impl Entries for SqliteCatalog {
    async fn reserve(&self, upload: &NewUpload) -> Result<Reserved, CatalogError> {
        self.insert_upload(upload).await
    }

    async fn touch_upload(&self, id: UploadId) -> Result<bool, CatalogError> {
        self.prolong_upload(id).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, CatalogError> {
        self.sum_unfinished().await
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, CatalogError> {
        self.get_upload(id).await
    }

    async fn uploads(
        &self,
        project: &ProjectId,
        name: &EntryName,
    ) -> Result<Vec<Upload>, CatalogError> {
        self.uploads_named(project, name).await
    }

    async fn put_block(
        &self,
        id: UploadId,
        block: &Block,
        alone: bool,
    ) -> Result<Put, CatalogError> {
        self.upsert_block(id, block, alone).await
    }

    async fn order_blocks(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<Option<String>, CatalogError> {
        self.set_positions(id, names).await
    }

    async fn replaced(
        &self,
        id: UploadId,
        name: &str,
        alone: bool,
    ) -> Result<Vec<(Digest, u64)>, CatalogError> {
        self.blocks_replaced(id, name, alone).await
    }

    async fn blocks(&self, id: UploadId) -> Result<Vec<Block>, CatalogError> {
        self.blocks_of(id).await
    }

    async fn append_entry(
        &self,
        id: UploadId,
        export: NewExport,
        size: u64,
    ) -> Result<AppendedEntry, CatalogError> {
        self.insert_entry(id, export, size).await
    }

    async fn close_upload(
        &self,
        id: UploadId,
        became: Became,
        size: u64,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        self.update_upload(&mut tx, id, (became, size)).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    async fn drop_upload(&self, id: UploadId) -> Result<(), CatalogError> {
        self.delete_upload(id).await
    }

    async fn find_entry(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        keys: &[EntryKey],
        version: &EntryVersion,
    ) -> Result<Option<EntryHead>, CatalogError> {
        for git_ref in refs {
            for key in keys {
                let found = sqlx::query(FIND)
                    .bind(project.as_str())
                    .bind(git_ref.as_str())
                    .bind(version.as_str())
                    .bind(key.as_str())
                    .bind(key.end())
                    .fetch_optional(self.readers())
                    .await
                    .map_err(|error| self.context.of(error))?;
                if let Some(row) = found {
                    return self.entry_head(&row).map(Some);
                }
            }
        }
        Ok(None)
    }

    async fn entry_layers(
        &self,
        export: ExportId,
    ) -> Result<Option<Vec<(Digest, u64)>>, CatalogError> {
        let failed = |error| self.context.of(error);
        let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM entry WHERE export = ?1")
            .bind(export.0)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        if known.is_none() {
            return Ok(None);
        }
        let found =
            sqlx::query("SELECT digest, size FROM layer WHERE export = ?1 ORDER BY position")
                .bind(export.0)
                .fetch_all(self.readers())
                .await
                .map_err(failed)?;
        let layers = found.iter().map(|row| rows::blob(&self.context, row));
        layers.collect::<Result<_, _>>().map(Some)
    }

    async fn note_entry_use(&self, export: ExportId) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let now = Timestamp::now().as_microsecond();
        let due: Option<i64> = sqlx::query_scalar(
            "SELECT id FROM export WHERE id = ?1 AND retired IS NULL
                 AND max(ifnull(used, time), time) <= ?2 - ?3",
        )
        .bind(export.0)
        .bind(now)
        .bind(HOUR)
        .fetch_optional(self.readers())
        .await
        .map_err(failed)?;
        if due.is_none() {
            return Ok(());
        }
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        sqlx::query("UPDATE export SET used = ?2 WHERE id = ?1")
            .bind(export.0)
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    async fn secret(&self, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32], CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let secret: Vec<u8> = sqlx::query_scalar(
            "INSERT INTO secret (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET name = name RETURNING value",
        )
        .bind(name)
        .bind(&fresh[..])
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        let secret = secret.try_into();
        secret.map_err(|_| self.context.corrupt("a secret has not 32 bytes"))
    }
}

impl SqliteCatalog {
    fn entry_head(&self, row: &SqliteRow) -> Result<EntryHead, CatalogError> {
        let context = &self.context;
        let corrupt = |error: sqlx::Error| context.corrupt(error);
        Ok(EntryHead {
            id: ExportId(row.try_get("export").map_err(corrupt)?),
            git_ref: rows::text(context, row, "ref")?,
            name: EntryName {
                key: rows::text(context, row, "key")?,
                version: rows::text(context, row, "version")?,
            },
            size: rows::count(context, row, "size")?,
            time: columns::microsecond(context, row.try_get("time").map_err(corrupt)?)?,
        })
    }
}
