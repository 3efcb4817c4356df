//! Pins, candidates, and what is condemned.
//!
//! No lock is held over a look and a note. Who pins notes the pin, and what it
//! then looks for it finds: all that was condemned before. Who condemns notes
//! that, and then finds all that was pinned before. Each is a statement of its
//! own, which sees what was committed before it began: so of two that come at
//! once at least one sees the other.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::PgConnection;

use super::{PostgresCatalog, arrays, microseconds};
use crate::blobs::{StoreId, Taken};
use crate::catalog::{
    CatalogError, Collecting, KeptExport, KeptFilter, PinHolder, ProjectSize, Uses,
};
use crate::digest::Digest;

/// Blobs of `$1` that something names.
const NAMED: &str = "SELECT digest FROM unnest($1::bytea[]) AS asked (digest)
    WHERE EXISTS (SELECT 1 FROM layer WHERE layer.digest = asked.digest)
       OR EXISTS (SELECT 1 FROM possession
                  WHERE possession.digest = asked.digest AND possession.expires > statement_timestamp())
       OR EXISTS (SELECT 1 FROM pin
                  WHERE pin.digest = asked.digest AND pin.expires > statement_timestamp())";

impl PostgresCatalog {
    /// In the order of digests, so that no two writers wait for each other.
    async fn run(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let mut blobs = blobs.to_vec();
        blobs.sort_unstable();
        blobs.dedup();
        let found: Vec<Vec<u8>> = sqlx::query_scalar(statement)
            .bind(arrays(&blobs))
            .bind(microseconds(ttl))
            .fetch_all(connection)
            .await
            .map_err(|error| self.context.of(error))?;
        found.iter().map(|digest| self.digest(digest)).collect()
    }

    async fn named(
        &self,
        connection: &mut PgConnection,
        blobs: &[Digest],
    ) -> Result<(Vec<Digest>, Vec<Digest>), CatalogError> {
        let named: Vec<Vec<u8>> = sqlx::query_scalar(NAMED)
            .bind(arrays(blobs))
            .fetch_all(connection)
            .await
            .map_err(|error| self.context.of(error))?;
        let named = named
            .iter()
            .map(|digest| self.digest(digest))
            .collect::<Result<std::collections::BTreeSet<_>, _>>()?;
        Ok(blobs.iter().partition(|digest| named.contains(digest)))
    }

    async fn pin_blobs(
        &self,
        holder: PinHolder,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connections.one().await?;
        sqlx::query(
            "INSERT INTO pin (digest, holder, expires)
                SELECT DISTINCT digest, $3, statement_timestamp() + $2 * interval '1 microsecond'
                FROM unnest($1::bytea[]) AS given (digest)
             ON CONFLICT (digest, holder) DO UPDATE SET expires = greatest(pin.expires, excluded.expires)",
        )
        .bind(arrays(blobs))
        .bind(microseconds(ttl))
        .bind(holder.0)
        .execute(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let condemned = "SELECT digest FROM condemned
            WHERE digest = ANY($1) AND expires > statement_timestamp() AND $2 >= 0";
        self.run(&mut connection, condemned, blobs, ttl).await
    }

    async fn unpin_blobs(&self, holder: PinHolder, blobs: &[Digest]) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        sqlx::query(
            "WITH gone AS (DELETE FROM pin WHERE holder = $2 AND digest = ANY($1) RETURNING digest)
             INSERT INTO candidate (digest, due) SELECT digest, statement_timestamp() FROM gone
             WHERE NOT EXISTS (SELECT 1 FROM layer WHERE layer.digest = gone.digest)
             ORDER BY digest ON CONFLICT DO NOTHING",
        )
        .bind(arrays(blobs))
        .bind(holder.0)
        .execute(&mut *connection)
        .await
        .map(drop)
        .map_err(|error| self.context.of(error))
    }

    async fn condemn_blobs(
        &self,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let (named, unnamed) = self.named(&mut connection, blobs).await?;
        if !named.is_empty() {
            // What is named no more by now stays a candidate.
            let leave = "DELETE FROM candidate WHERE digest = ANY($1) AND $2 >= 0 AND (
                    EXISTS (SELECT 1 FROM layer WHERE layer.digest = candidate.digest)
                 OR EXISTS (SELECT 1 FROM possession WHERE possession.digest = candidate.digest
                            AND possession.expires > statement_timestamp())
                 OR EXISTS (SELECT 1 FROM pin WHERE pin.digest = candidate.digest
                            AND pin.expires > statement_timestamp()))
                RETURNING digest";
            self.run(&mut connection, leave, &named, ttl).await?;
        }
        if unnamed.is_empty() {
            return Ok(unnamed);
        }
        let condemn = "INSERT INTO condemned (digest, expires)
                SELECT digest, statement_timestamp() + $2 * interval '1 microsecond'
                FROM unnest($1::bytea[]) AS given (digest)
            ON CONFLICT (digest) DO UPDATE SET expires = excluded.expires
                WHERE condemned.expires <= statement_timestamp()
            RETURNING digest";
        let noted = self.run(&mut connection, condemn, &unnamed, ttl).await?;
        let (named, condemned) = self.named(&mut connection, &noted).await?;
        if !named.is_empty() {
            let spare = "DELETE FROM condemned WHERE digest = ANY($1) AND $2 >= 0 RETURNING digest";
            self.run(&mut connection, spare, &named, ttl).await?;
        }
        Ok(condemned)
    }

    async fn acquit_blobs(&self, blobs: &[Digest]) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        for statement in [
            "DELETE FROM candidate WHERE digest = ANY($1) AND $2 >= 0 RETURNING digest",
            "DELETE FROM condemned WHERE digest = ANY($1) AND $2 >= 0 RETURNING digest",
        ] {
            self.run(&mut connection, statement, blobs, Duration::ZERO)
                .await?;
        }
        Ok(())
    }

    async fn postpone_blobs(&self, blobs: &[Digest], wait: Duration) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        let later =
            "UPDATE candidate SET due = statement_timestamp() + $2 * interval '1 microsecond'
            WHERE digest = ANY($1) RETURNING digest";
        self.run(&mut connection, later, blobs, wait)
            .await
            .map(drop)
    }

    async fn nominate_blobs(
        &self,
        blobs: &[Digest],
        wait: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let (_, unnamed) = self.named(&mut connection, blobs).await?;
        if !unnamed.is_empty() {
            let nominate = "INSERT INTO candidate (digest, due)
                    SELECT digest, statement_timestamp() + $2 * interval '1 microsecond'
                    FROM unnest($1::bytea[]) AS given (digest)
                ON CONFLICT (digest) DO UPDATE SET due = least(candidate.due, excluded.due)
                RETURNING digest";
            self.run(&mut connection, nominate, &unnamed, wait).await?;
        }
        Ok(unnamed)
    }

    async fn due_candidates(&self, limit: u32) -> Result<Vec<Digest>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT digest FROM candidate WHERE due <= statement_timestamp() AND NOT EXISTS (
                 SELECT 1 FROM condemned
                 WHERE condemned.digest = candidate.digest AND expires > statement_timestamp())
             ORDER BY due LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        found.iter().map(|digest| self.digest(digest)).collect()
    }
}

#[async_trait]
impl Collecting for PostgresCatalog {
    async fn pin(
        &self,
        holder: PinHolder,
        blobs: &[Digest],
        ttl: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let call = self.pin_blobs(holder, blobs, ttl);
        self.connections.bounded(call).await
    }

    async fn unpin(&self, holder: PinHolder, blobs: &[Digest]) -> Result<(), CatalogError> {
        let call = self.unpin_blobs(holder, blobs);
        self.connections.bounded(call).await
    }

    async fn candidates(&self, limit: u32) -> Result<Vec<Digest>, CatalogError> {
        self.connections.bounded(self.due_candidates(limit)).await
    }

    async fn nominate(
        &self,
        blobs: &[Digest],
        wait: Duration,
    ) -> Result<Vec<Digest>, CatalogError> {
        let call = self.nominate_blobs(blobs, wait);
        self.connections.bounded(call).await
    }

    async fn condemn(&self, blobs: &[Digest], ttl: Duration) -> Result<Vec<Digest>, CatalogError> {
        let call = self.condemn_blobs(blobs, ttl);
        self.connections.bounded(call).await
    }

    async fn postpone(&self, blobs: &[Digest], wait: Duration) -> Result<(), CatalogError> {
        let call = self.postpone_blobs(blobs, wait);
        self.connections.bounded(call).await
    }

    async fn acquit(&self, blobs: &[Digest]) -> Result<(), CatalogError> {
        self.connections.bounded(self.acquit_blobs(blobs)).await
    }

    async fn purge(&self) -> Result<(), CatalogError> {
        self.connections.bounded(self.purge_now()).await
    }

    async fn kept(&self, filter: &KeptFilter) -> Result<Vec<KeptExport>, CatalogError> {
        self.connections.bounded(self.kept_exports(filter)).await
    }

    async fn now(&self) -> Result<Timestamp, CatalogError> {
        self.connections.bounded(self.clock()).await
    }

    async fn note_use(&self, uses: &Uses, at: Timestamp) -> Result<(), CatalogError> {
        self.connections.bounded(self.write_uses(uses, at)).await
    }

    async fn store(&self) -> Result<Option<StoreId>, CatalogError> {
        self.bound_to().await
    }

    async fn bind(&self, store: StoreId, taken: Taken) -> Result<StoreId, CatalogError> {
        self.bind_to(store, taken).await
    }

    async fn project_sizes(&self) -> Result<Vec<ProjectSize>, CatalogError> {
        self.connections.bounded(self.sizes_by_project()).await
    }
}
