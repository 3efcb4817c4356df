//! Uploads that are open: how long they live, and how much of them there is.

use sqlx::{Connection as _, Postgres, Transaction};

use crate::catalog::entries::{
    BLOCK_PINNED, RENEWED, UPLOAD_ALIVE, UPLOAD_KEPT, Unfinished, UploadId,
};
use crate::catalog::postgres::{PostgresCatalog, microseconds};
use crate::catalog::{CatalogError, columns};
use crate::digest::Digest;

impl PostgresCatalog {
    pub(super) async fn prolong_upload(&self, id: UploadId) -> Result<bool, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        let open = self.open_upload(&mut tx, id).await?.is_some();
        if open {
            self.note_life(&mut tx, id).await?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(open)
    }

    /// It lives, and its blocks are pinned for longer than it will.
    pub(super) async fn note_life(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        id: UploadId,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let due: bool = sqlx::query_scalar(
            "UPDATE upload SET touched = statement_timestamp(),
                 expires = statement_timestamp() + $2 * interval '1 microsecond'
             WHERE id = $1
             RETURNING renewed <= statement_timestamp() - $3 * interval '1 microsecond'",
        )
        .bind(id.0)
        .bind(microseconds(UPLOAD_KEPT))
        .bind(microseconds(RENEWED))
        .fetch_optional(&mut **tx)
        .await
        .map_err(failed)?
        .unwrap_or(false);
        if !due {
            return Ok(());
        }
        sqlx::query("UPDATE upload SET renewed = statement_timestamp() WHERE id = $1")
            .bind(id.0)
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        sqlx::query(
            "UPDATE pin SET expires = greatest(expires,
                 statement_timestamp() + $2 * interval '1 microsecond')
             WHERE (digest, holder) IN (
                 SELECT digest, upload FROM block WHERE upload = $1 ORDER BY digest)",
        )
        .bind(id.0)
        .bind(microseconds(BLOCK_PINNED))
        .execute(&mut **tx)
        .await
        .map(drop)
        .map_err(failed)
    }

    pub(super) async fn sum_unfinished(&self) -> Result<Vec<Unfinished>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Vec<(String, String, i64, i64)> = sqlx::query_as(
            "SELECT project.name, ref, sum(bytes)::bigint,
                 coalesce(sum(bytes) FILTER (
                     WHERE touched > statement_timestamp() - $1 * interval '1 microsecond'), 0)::bigint
             FROM upload JOIN project ON project.id = upload.project
             WHERE became IS NULL AND expires > statement_timestamp()
             GROUP BY project.name, ref HAVING sum(bytes) > 0",
        )
        .bind(microseconds(UPLOAD_ALIVE))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let sums = |(project, git_ref, bytes, alive): (String, String, i64, i64)| {
            Ok(Unfinished {
                project: columns::parsed(&self.context, &project)?,
                git_ref: columns::parsed(&self.context, &git_ref)?,
                bytes: self.context.count(bytes)?,
                alive: self.context.count(alive)?,
            })
        };
        found.into_iter().map(sums).collect()
    }

    pub(super) async fn blocks_replaced(
        &self,
        id: UploadId,
        name: &str,
        alone: bool,
    ) -> Result<Vec<(Digest, u64)>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "SELECT DISTINCT digest, size FROM block WHERE upload = $1 AND ($3 OR name = $2)",
        )
        .bind(id.0)
        .bind(name)
        .bind(alone)
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let block =
            |(digest, size): (Vec<u8>, i64)| Ok((self.digest(&digest)?, self.context.count(size)?));
        found.into_iter().map(block).collect()
    }
}
