//! Uploads that are open: how long they live, and how much of them there is.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};

use crate::catalog::CatalogError;
use crate::catalog::entries::{
    BLOCK_PINNED, RENEWED, UPLOAD_ALIVE, UPLOAD_KEPT, Unfinished, UploadId,
};
use crate::catalog::sqlite::leases::end;
use crate::catalog::sqlite::turn::Turn;
use crate::catalog::sqlite::{SqliteCatalog, rows};
use crate::digest::Digest;

impl SqliteCatalog {
    pub(super) async fn prolong_upload(&self, id: UploadId) -> Result<bool, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write_lightly().await.map_err(failed)?;
        let open = self.open_upload(&mut tx, id).await?.is_some();
        if open {
            self.note_life(&mut tx, id).await?;
        }
        tx.commit().await.map_err(failed)?;
        turn.keep_heavy().await;
        Ok(open)
    }

    /// It lives, and its blocks are pinned for longer than it will.
    pub(super) async fn note_life(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        id: UploadId,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let now = Timestamp::now().as_microsecond();
        sqlx::query("UPDATE upload SET touched = ?2, expires = ?3 WHERE id = ?1")
            .bind(id.0)
            .bind(now)
            .bind(end(UPLOAD_KEPT))
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        let due = sqlx::query(
            "UPDATE upload SET renewed = ?2 WHERE id = ?1 AND ifnull(renewed, 0) <= ?2 - ?3",
        )
        .bind(id.0)
        .bind(now)
        .bind(microseconds(RENEWED))
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
        if due.rows_affected() == 0 {
            return Ok(());
        }
        sqlx::query(
            "UPDATE pin SET expires = max(expires, ?2)
             WHERE (digest, holder) IN (SELECT digest, upload FROM block WHERE upload = ?1)",
        )
        .bind(id.0)
        .bind(end(BLOCK_PINNED))
        .execute(&mut **tx)
        .await
        .map(drop)
        .map_err(failed)
    }

    pub(super) async fn sum_unfinished(&self) -> Result<Vec<Unfinished>, CatalogError> {
        // A catalog that takes no writes may be as an older layerd left it.
        let kept: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'upload')",
        )
        .fetch_one(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        if !kept {
            return Ok(Vec::new());
        }
        let now = Timestamp::now().as_microsecond();
        let found = sqlx::query(
            "SELECT project.name AS project, ref, sum(bytes) AS bytes,
                 sum(iif(touched > ?2, bytes, 0)) AS alive
             FROM upload JOIN project ON project.id = upload.project
             WHERE became IS NULL AND expires > ?1 GROUP BY upload.project, ref HAVING sum(bytes) > 0",
        )
        .bind(now)
        .bind(now.saturating_sub(microseconds(UPLOAD_ALIVE)))
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let sums = |row: &SqliteRow| {
            Ok(Unfinished {
                project: rows::text(&self.context, row, "project")?,
                git_ref: rows::text(&self.context, row, "ref")?,
                bytes: rows::count(&self.context, row, "bytes")?,
                alive: rows::count(&self.context, row, "alive")?,
            })
        };
        found.iter().map(sums).collect()
    }

    pub(super) async fn blocks_replaced(
        &self,
        id: UploadId,
        name: &str,
        alone: bool,
    ) -> Result<Vec<(Digest, u64)>, CatalogError> {
        let found = sqlx::query(
            "SELECT DISTINCT digest, size FROM block WHERE upload = ?1 AND (?3 OR name = ?2)",
        )
        .bind(id.0)
        .bind(name)
        .bind(alone)
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let blocks = found.iter().map(|row| rows::blob(&self.context, row));
        blocks.collect()
    }
}

pub(super) fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
