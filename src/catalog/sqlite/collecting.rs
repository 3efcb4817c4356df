//! Pins, candidates, and what is condemned. SQLite lets one write at a time, so
//! that looking and noting are one moment.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::leases::end;
use super::turn::Turn;
use super::{SqliteCatalog, rows};
use crate::blobs::{StoreId, Taken};
use crate::catalog::{
    CatalogError, Collecting, KeptExport, KeptFilter, PinHolder, ProjectSize, Uses,
};
use crate::digest::Digest;

/// Blobs in one statement.
const AT_ONCE: usize = 1000;

/// Whether anything names `digest` at `?2`.
macro_rules! named {
    ($digest:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM layer WHERE layer.digest = ",
            $digest,
            ") OR EXISTS (SELECT 1 FROM possession WHERE possession.digest = ",
            $digest,
            " AND possession.expires > ?2)",
            " OR EXISTS (SELECT 1 FROM pin WHERE pin.digest = ",
            $digest,
            " AND pin.expires > ?2))"
        )
    };
}

impl SqliteCatalog {
    async fn run(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        statement: &'static str,
        blobs: &[Digest],
        time: i64,
    ) -> Result<(), CatalogError> {
        sqlx::query(statement)
            .bind(rows::hexes(blobs))
            .bind(time)
            .execute(&mut **tx)
            .await
            .map(drop)
            .map_err(|error| self.context.of(error))
    }
}

#[async_trait]
impl Collecting for SqliteCatalog {
    async fn pin(
        &self,
        holder: PinHolder,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let failed = |error| self.context.of(error);
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write_lightly().await.map_err(failed)?;
        sqlx::query(
            "INSERT INTO pin (digest, holder, expires) SELECT unhex(value), ?3, ?2 FROM json_each(?1) WHERE true
             ON CONFLICT (digest, holder) DO UPDATE SET expires = max(expires, excluded.expires)",
        )
        .bind(rows::hexes(blobs))
        .bind(end(ttl))
        .bind(holder.0)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        let condemned = sqlx::query(
            "SELECT digest FROM condemned
             WHERE digest IN (SELECT unhex(value) FROM json_each(?1)) AND expires > ?2",
        )
        .bind(rows::hexes(blobs))
        .bind(Timestamp::now().as_microsecond())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep_heavy().await;
        self.digests(&condemned)
    }

    async fn unpin(&self, holder: PinHolder, blobs: &[Digest]) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write_lightly().await.map_err(failed)?;
        for statement in [
            "INSERT INTO candidate (digest, due) SELECT digest, ?3 FROM pin
             WHERE holder = ?2 AND digest IN (SELECT unhex(value) FROM json_each(?1))
                 AND NOT EXISTS (SELECT 1 FROM layer WHERE layer.digest = pin.digest)
             ON CONFLICT DO NOTHING",
            "DELETE FROM pin WHERE holder = ?2 AND ?3
                 AND digest IN (SELECT unhex(value) FROM json_each(?1))",
        ] {
            sqlx::query(statement)
                .bind(rows::hexes(blobs))
                .bind(holder.0)
                .bind(Timestamp::now().as_microsecond())
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        turn.keep_heavy().await;
        Ok(())
    }

    async fn candidates(&self, limit: u32) -> Result<Vec<Digest>, CatalogError> {
        let found = sqlx::query(
            "SELECT digest FROM candidate WHERE due <= ?1
                 AND NOT EXISTS (SELECT 1 FROM condemned WHERE condemned.digest = candidate.digest AND expires > ?1)
             ORDER BY due LIMIT ?2",
        )
        .bind(Timestamp::now().as_microsecond())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        self.digests(&found)
    }

    async fn nominate(
        &self,
        blobs: &[Digest],
        wait: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut unnamed = Vec::new();
        for page in blobs.chunks(AT_ONCE) {
            let found = sqlx::query(concat!(
                "SELECT unhex(value) AS digest FROM json_each(?1) WHERE NOT ",
                named!("unhex(value)")
            ))
            .bind(rows::hexes(page))
            .bind(Timestamp::now().as_microsecond())
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
            unnamed.extend(self.digests(&found)?);
        }
        if unnamed.is_empty() {
            return Ok(unnamed);
        }
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let insert = "INSERT INTO candidate (digest, due) SELECT unhex(value), ?2 FROM json_each(?1) WHERE true
             ON CONFLICT (digest) DO UPDATE SET due = min(due, excluded.due)";
        for page in unnamed.chunks(AT_ONCE) {
            self.run(&mut tx, insert, page, end(wait)).await?;
        }
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(unnamed)
    }

    async fn condemn(&self, blobs: &[Digest], ttl: Duration) -> Result<Vec<Digest>, CatalogError> {
        let failed = |error| self.context.of(error);
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let now = Timestamp::now().as_microsecond();
        for statement in [
            "DELETE FROM condemned WHERE expires <= ?2",
            concat!(
                "DELETE FROM candidate WHERE digest IN (SELECT unhex(value) FROM json_each(?1)) AND ",
                named!("candidate.digest")
            ),
        ] {
            self.run(&mut tx, statement, blobs, now).await?;
        }
        let condemned = sqlx::query(concat!(
            "INSERT INTO condemned (digest, expires) SELECT unhex(value), ?3 FROM json_each(?1) WHERE NOT ",
            named!("unhex(value)"),
            " ON CONFLICT (digest) DO NOTHING RETURNING digest"
        ))
        .bind(rows::hexes(blobs))
        .bind(now)
        .bind(end(ttl))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        self.digests(&condemned)
    }

    async fn postpone(&self, blobs: &[Digest], wait: Duration) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        let later = "UPDATE candidate SET due = ?2
             WHERE digest IN (SELECT unhex(value) FROM json_each(?1))";
        self.run(&mut tx, later, blobs, end(wait)).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    async fn acquit(&self, blobs: &[Digest]) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        for statement in [
            "DELETE FROM candidate WHERE digest IN (SELECT unhex(value) FROM json_each(?1)) AND ?2",
            "DELETE FROM condemned WHERE digest IN (SELECT unhex(value) FROM json_each(?1)) AND ?2",
        ] {
            self.run(&mut tx, statement, blobs, 1).await?;
        }
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    async fn purge(&self) -> Result<(), CatalogError> {
        self.purge_all().await
    }

    async fn kept(&self, filter: &KeptFilter) -> Result<Vec<KeptExport>, CatalogError> {
        self.kept_exports(filter).await
    }

    async fn now(&self) -> Result<Timestamp, CatalogError> {
        Ok(Timestamp::now())
    }

    async fn note_use(&self, uses: &Uses, at: Timestamp) -> Result<(), CatalogError> {
        self.write_uses(uses, at).await
    }

    async fn store(&self) -> Result<Option<StoreId>, CatalogError> {
        self.bound_to().await
    }

    async fn bind(&self, store: StoreId, taken: Taken) -> Result<StoreId, CatalogError> {
        self.bind_to(store, taken).await
    }

    async fn project_sizes(&self) -> Result<Vec<ProjectSize>, CatalogError> {
        self.sizes_by_project().await
    }
}
