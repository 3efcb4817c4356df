//! Opening: for writing where that works, else for reading.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::time::{Instant, sleep};

use super::errors::{Context, cannot_open};
use crate::catalog::CatalogError;

static MIGRATIONS: Migrator = sqlx::migrate!("src/catalog/migrations");

/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before the file is opened again that another process was
/// just switching to write-ahead logging: there SQLite itself does not wait.
const REOPEN_AFTER: Duration = Duration::from_millis(20);

/// Readers at once; writers take turns anyway.
const CONNECTIONS: u32 = 4;

/// A pool, and whether it is for reading only.
pub(super) async fn open(
    path: &Path,
    context: &Context,
) -> Result<(SqlitePool, bool), CatalogError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match open_for_writing(path, context).await {
            Err(CatalogError::Busy(_)) if Instant::now() < deadline => sleep(REOPEN_AFTER).await,
            Err(error)
                if path.is_file()
                    && (matches!(error, CatalogError::ReadOnly(_)) || cannot_open(&error)) =>
            {
                return Ok((open_for_reading(path, context).await?, true));
            }
            opened => return opened.map(|pool| (pool, false)),
        }
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
}

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(2 * BUSY_TIMEOUT)
}

async fn open_for_writing(path: &Path, context: &Context) -> Result<SqlitePool, CatalogError> {
    let options = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = pool()
        .connect_with(options)
        .await
        .map_err(|error| context.of(error))?;
    match migrate(&pool, context).await {
        Ok(()) => Ok(pool),
        Err(error) => {
            pool.close().await;
            Err(error)
        }
    }
}

/// Brings the schema up to date under the write lock, since several processes
/// may be at it.
async fn migrate(pool: &SqlitePool, context: &Context) -> Result<(), CatalogError> {
    let mut tx = pool
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(|error| context.of(error))?;
    MIGRATIONS
        .run_direct(None, &mut *tx, false)
        .await
        .map_err(|error| context.of_migration(error))?;
    tx.commit().await.map_err(|error| context.of(error))
}

/// Opens what nobody may write here: beside live writers where the log and its
/// shared memory can be read, else as a file that does not change.
async fn open_for_reading(path: &Path, context: &Context) -> Result<SqlitePool, CatalogError> {
    let shared = options(path).read_only(true);
    match connect_and_read(shared.clone(), context).await {
        // Unread changes in the log would be missed by an immutable open.
        Err(error) if !has_log(path) && cannot_open(&error) => {
            connect_and_read(shared.immutable(true), context).await
        }
        opened => opened,
    }
}

/// A pool that has proven that it can read.
async fn connect_and_read(
    options: SqliteConnectOptions,
    context: &Context,
) -> Result<SqlitePool, CatalogError> {
    let pool = pool()
        .connect_with(options)
        .await
        .map_err(|error| context.of(error))?;
    match sqlx::query("SELECT count(*) FROM project")
        .execute(&pool)
        .await
    {
        Ok(_) => Ok(pool),
        Err(error) => {
            pool.close().await;
            Err(context.of(error))
        }
    }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}
