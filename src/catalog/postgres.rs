//! The catalog in Postgres: one database, shared by any number of hubs.
//!
//! A statement sees what was committed before it, and what has to be atomic is
//! one transaction. An export gets its number last, under a lock that is held
//! until it is visible, so that numbers grow in the order of visibility and yet
//! nobody waits while another's megabytes travel. Clocks are the database's.
//!
//! It needs Postgres 11 or newer, UTF-8, and a schema of its own. Between it and a hub there
//! may be a pooler that gives each connection a session of its own, not one
//! that shares them by transaction: ownership is a lock of a session.

mod address;
mod append;
mod collecting;
mod connections;
mod entries;
mod errors;
mod holding;
mod kept;
mod leases;
mod ledger;
mod log;
mod savings;
mod schema;
mod steps;
mod store;
mod tasks;
mod usage;
mod uses;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use sqlx::{PgConnection, Postgres, Transaction};

use self::connections::Connections;
pub use self::connections::PostgresOptions;
pub use self::schema::Tables;
use super::context::Context;
use super::pages;
use super::{
    Catalog, CatalogError, Export, ExportHead, ExportId, Filter, LeaseId, NewExport, Ownership,
    Saving, SavingFilter,
};
use crate::digest::{Digest, RecordDigest};
use crate::place::{GitRef, ProjectId};
use crate::step::Step;

/// The number of a lock, by its name and the schema of this catalog.
macro_rules! lock {
    ($function:literal) => {
        concat!(
            "SELECT ",
            $function,
            "(hashtextextended('layerd/' || coalesce(current_schema(), '') || '/' || $1, 0))"
        )
    };
}
use lock;

/// The catalog of one database.
pub struct PostgresCatalog {
    connections: Connections,
    context: Context,
}

impl PostgresCatalog {
    /// The catalog behind `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, whose
    /// query may say `sslmode`, `sslrootcert` and others of libpq; what the URL
    /// does not say is taken from `PGPASSWORD`, `PGSSLMODE` and the like, and
    /// from the password file. Must be called inside a runtime.
    ///
    /// Nothing is connected yet, so that only the URL itself can be an error.
    /// The first call makes the tables or brings them up to date.
    pub fn connect(url: &str, options: PostgresOptions) -> Result<Self, CatalogError> {
        let (connect, name) = address::parse(url)?;
        let context = errors::context(name);
        Ok(Self {
            connections: Connections::new(context.clone(), connect, options),
            context,
        })
    }

    /// What it is called where somebody reads it: its URL without secrets.
    pub fn name(&self) -> String {
        self.context.name()
    }

    /// How far its tables are, which neither makes nor changes any.
    pub async fn tables(&self) -> Result<Tables, CatalogError> {
        self.connections.tables().await
    }

    /// Shows in `registry` how many connections there are.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.connections.gauges()));
    }

    /// Holds a lock until the transaction ends.
    async fn lock(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        statement: &'static str,
        name: &str,
    ) -> Result<(), CatalogError> {
        sqlx::query(statement)
            .bind(name)
            .execute(&mut **tx)
            .await
            .map(drop)
            .map_err(|error| self.context.of(error))
    }

    /// The number of a project, which it gets where it has none.
    async fn project(
        &self,
        connection: &mut PgConnection,
        project: &ProjectId,
    ) -> Result<i32, CatalogError> {
        let failed = |error| self.context.of(error);
        for statement in [
            "SELECT id FROM project WHERE name = $1",
            "INSERT INTO project (name) VALUES ($1) ON CONFLICT (name) DO NOTHING RETURNING id",
        ] {
            let id = sqlx::query_scalar(statement)
                .bind(project.as_str())
                .fetch_optional(&mut *connection)
                .await
                .map_err(failed)?;
            if let Some(id) = id {
                return Ok(id);
            }
        }
        // Another has just made it.
        sqlx::query_scalar("SELECT id FROM project WHERE name = $1")
            .bind(project.as_str())
            .fetch_one(connection)
            .await
            .map_err(failed)
    }
}

impl fmt::Debug for PostgresCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresCatalog")
            .field(&self.context.name())
            .finish()
    }
}

/// Digests as an array of `bytea`.
fn arrays(digests: &[Digest]) -> Vec<&[u8]> {
    digests
        .iter()
        .map(|digest| &digest.as_bytes()[..])
        .collect()
}

/// Refs as an array of `text`.
fn texts(refs: &[GitRef]) -> Vec<&str> {
    refs.iter().map(GitRef::as_str).collect()
}

/// Exports as an array of `bigint`.
fn numbers(exports: &[ExportId]) -> Vec<i64> {
    exports.iter().map(|export| export.0).collect()
}

/// As microseconds, of which a time stamp of the database can be so far away.
fn microseconds(ttl: Duration) -> i64 {
    const CENTURY: i64 = 100 * 366 * 24 * 3600 * 1_000_000;
    i64::try_from(ttl.as_micros()).map_or(CENTURY, |ttl| ttl.min(CENTURY))
}

/// Text as Postgres takes it: anything but a zero byte.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[async_trait]
impl Catalog for PostgresCatalog {
    async fn append(&self, export: NewExport) -> Result<ExportId, CatalogError> {
        let call = self.append_export(export);
        self.connections.bounded(call).await
    }

    async fn writable(&self) -> Result<(), CatalogError> {
        self.connections.bounded(self.takes_writes()).await
    }

    async fn ready(&self) -> Result<(), CatalogError> {
        self.connections.ready().await
    }

    async fn close(&self) {
        self.connections.close().await;
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<ExportHead>, CatalogError> {
        self.connections.bounded(self.list_exports(filter)).await
    }

    async fn count(&self, filter: &Filter) -> Result<u64, CatalogError> {
        self.connections.bounded(self.count_exports(filter)).await
    }

    async fn get(&self, id: ExportId) -> Result<Option<Export>, CatalogError> {
        self.connections.bounded(self.get_export(id)).await
    }

    async fn holds(
        &self,
        project: &ProjectId,
        digest: &Digest,
    ) -> Result<Option<u64>, CatalogError> {
        let call = self.size_of_held(project, digest);
        self.connections.bounded(call).await
    }

    async fn held(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let call = self.held_by(project, None, digests);
        self.connections.bounded(call).await
    }

    async fn possess(
        &self,
        project: &ProjectId,
        git_ref: &GitRef,
        blobs: &[(Digest, u64)],
        ttl: Duration,
    ) -> Result<(), CatalogError> {
        let call = self.insert_possessions((project, git_ref), blobs, ttl);
        self.connections.bounded(call).await
    }

    async fn holding_refs(&self, project: &ProjectId) -> Result<Vec<GitRef>, CatalogError> {
        self.connections.bounded(self.refs_of(project)).await
    }

    async fn visible(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CatalogError> {
        let call = self.held_by(project, Some(refs), digests);
        self.connections.bounded(call).await
    }

    fn referenced(&self) -> BoxStream<'_, Result<(Digest, u64), CatalogError>> {
        pages::stream(|after| self.connections.bounded(self.page_after(after)))
    }

    async fn lasting(&self, blobs: &[Digest]) -> Result<Vec<Digest>, CatalogError> {
        let call = self.not_only_leased(blobs);
        self.connections.bounded(call).await
    }

    async fn leased(&self) -> Result<u64, CatalogError> {
        self.connections.bounded(self.count_leased()).await
    }

    async fn take_lease_as(&self, lease: LeaseId, ttl: Duration) -> Result<(), CatalogError> {
        self.connections
            .bounded(self.insert_lease(lease, ttl))
            .await
    }

    async fn renew_lease(&self, lease: LeaseId, ttl: Duration) -> Result<bool, CatalogError> {
        let call = self.update_lease(lease, ttl);
        self.connections.bounded(call).await
    }

    async fn end_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        self.connections.bounded(self.delete_lease(lease)).await
    }

    async fn retire(&self, exports: &[ExportId]) -> Result<u64, CatalogError> {
        let call = self.retire_exports(exports, None);
        self.connections.bounded(call).await
    }

    async fn subsume(&self, exports: &[ExportId], by: ExportId) -> Result<u64, CatalogError> {
        let call = self.retire_exports(exports, Some(by));
        self.connections.bounded(call).await
    }

    async fn subsumed(&self, exports: &[ExportId]) -> Result<Vec<ExportId>, CatalogError> {
        let call = self.subsumed_exports(exports);
        self.connections.bounded(call).await
    }

    async fn steps(
        &self,
        project: &ProjectId,
        refs: Option<&[GitRef]>,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CatalogError> {
        let call = self.steps_of_results(project, refs, results);
        self.connections.bounded(call).await
    }

    async fn add_saving(&self, saving: &Saving) -> Result<(), CatalogError> {
        self.connections.bounded(self.upsert_saving(saving)).await
    }

    async fn savings(&self, filter: &SavingFilter) -> Result<Vec<Saving>, CatalogError> {
        self.connections.bounded(self.list_savings(filter)).await
    }

    async fn naming(&self, digest: &Digest) -> Result<Vec<ExportId>, CatalogError> {
        self.connections.bounded(self.exports_naming(digest)).await
    }

    async fn try_own(&self, task: &str) -> Result<Option<Ownership>, CatalogError> {
        self.connections.bounded(self.own(task)).await
    }
}

#[cfg(test)]
mod tests;
