//! Opening: for writing where that works, else for reading.
//!
//! A directory that takes no writes, for want of rights or of space, still has
//! hits to give.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tokio::time::{Instant, sleep};

use super::errors::{cannot_open, refused};
use crate::catalog::CatalogError;
use crate::catalog::context::Context;

static MIGRATIONS: Migrator = sqlx::migrate!("src/catalog/migrations/sqlite");

/// What an older catalog lacks of what a list of exports names.
const STAND_INS: [&str; 3] = [
    "PRAGMA temp_store = MEMORY",
    "CREATE TEMP VIEW export AS SELECT *, 0 AS kind FROM main.export",
    "CREATE TEMP TABLE entry (export INTEGER PRIMARY KEY, project, ref, key, version, size)",
];

/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before the file is opened again that another process was
/// just switching to write-ahead logging: there SQLite itself does not wait.
const REOPEN_AFTER: Duration = Duration::from_millis(20);

/// Readers at once.
const READERS: u32 = 4;

/// Writers at once: SQLite lets one write at a time, and the queue of a pool is
/// fairer than its retries.
const WRITERS: u32 = 1;

/// Connections to one catalog. Readers have their own, so that writers that
/// wait for the lock leave none of them without.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    pub(super) readers: SqlitePool,
    /// Or why it takes no writes.
    pub(super) writers: Result<SqlitePool, Refusal>,
}

/// Why a catalog that opens for reading takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    ReadOnly,
    Full,
}

impl Refusal {
    /// Whether that error of a write leaves hope for reading.
    fn of(error: &CatalogError, dir: &Path) -> Option<Self> {
        match error {
            CatalogError::Full(_) => Some(Self::Full),
            CatalogError::ReadOnly(_) => Some(Self::ReadOnly),
            // What the missing right to make the log's files comes to.
            error if cannot_open(error) && access(dir, Access::WRITE_OK).is_err() => {
                Some(Self::ReadOnly)
            }
            _ => None,
        }
    }
}

/// Opens for writing, or for reading where only that works.
pub(super) async fn open(path: &Path, context: &Context) -> Result<Pools, CatalogError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let deadline = Instant::now() + BUSY_TIMEOUT;
    let error = loop {
        match open_for_writing(path, context).await {
            Err(CatalogError::Busy(_)) if Instant::now() < deadline => sleep(REOPEN_AFTER).await,
            Err(error) => break error,
            Ok(pools) => return Ok(pools),
        }
    };
    let Some(refusal) = Refusal::of(&error, dir) else {
        return Err(error);
    };
    match open_for_reading(path, context).await {
        Ok(readers) => Ok(Pools {
            readers,
            writers: Err(refusal),
        }),
        Err(error @ CatalogError::Corrupt { .. }) => Err(error),
        Err(_) => Err(refused(context, refusal)),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(2 * BUSY_TIMEOUT)
}

async fn open_for_writing(path: &Path, context: &Context) -> Result<Pools, CatalogError> {
    // SQLite would silently open it for reading, and only fail when it writes.
    if path.exists() && access(path, Access::WRITE_OK).is_err() {
        return Err(refused(context, Refusal::ReadOnly));
    }
    let options = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let writers = pool(WRITERS)
        .connect_with(options.clone())
        .await
        .map_err(|error| context.of(error))?;
    if let Err(error) = migrate(&writers, context).await {
        writers.close().await;
        return Err(error);
    }
    // Able to write too: the last to close puts the log back into the file,
    // which a connection that only reads could not.
    Ok(Pools {
        readers: pool(READERS).connect_lazy_with(options),
        writers: Ok(writers),
    })
}

/// Brings the schema up to date under the write lock, since several processes
/// may be at it; without the lock where there is nothing to do, so that a
/// process that holds it for long keeps nobody from reading.
async fn migrate(pool: &SqlitePool, context: &Context) -> Result<(), CatalogError> {
    let applied: Result<Option<i64>, _> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(pool)
            .await;
    let latest = MIGRATIONS.iter().map(|migration| migration.version).max();
    if applied.is_ok_and(|applied| applied == latest) {
        return Ok(());
    }
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
pub(super) async fn open_for_reading(
    path: &Path,
    context: &Context,
) -> Result<SqlitePool, CatalogError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let shared = options(path).read_only(true);
    match connect_and_read(shared.clone(), context).await {
        // Unread changes in the log would be missed by an immutable open.
        Err(error) if !has_log(path) && Refusal::of(&error, dir).is_some() => {
            connect_and_read(shared.immutable(true), context).await
        }
        opened => opened,
    }
}

/// Opens for reading, and changes nothing: beside a log that is read SQLite keeps
/// files of its own, so that the log is read only where there is one.
pub(super) async fn peek(path: &Path, context: &Context) -> Result<Pools, CatalogError> {
    let shared = options(path).read_only(true);
    let alone = !has_log(path);
    let readers = connect_and_read(shared.immutable(alone), context).await?;
    let applied: Result<Option<i64>, _> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&readers)
            .await;
    let latest = MIGRATIONS.iter().map(|migration| migration.version).max();
    if applied.is_ok_and(|applied| applied > latest) {
        return Err(CatalogError::Newer(context.name()));
    }
    Ok(Pools {
        readers,
        writers: Err(Refusal::ReadOnly),
    })
}

/// An empty one in memory: one connection, which nothing may end.
pub(super) async fn nowhere(context: &Context) -> Result<Pools, CatalogError> {
    let only = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(SqliteConnectOptions::new().in_memory(true))
        .await
        .map_err(|error| context.of(error))?;
    migrate(&only, context).await?;
    Ok(Pools {
        readers: only.clone(),
        writers: Ok(only),
    })
}

/// A pool that has proven that it can read.
async fn connect_and_read(
    options: SqliteConnectOptions,
    context: &Context,
) -> Result<SqlitePool, CatalogError> {
    let pool = pool(READERS)
        .after_connect(|connection, _| {
            Box::pin(async move {
                // A pool would try again and again; the query below says what is wrong.
                if let Err(error) = stand_in(connection).await {
                    tracing::debug!(%error, "what an older catalog lacks is not put before it");
                }
                Ok(())
            })
        })
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

/// Has lists of exports work where an older layerd has left the catalog, and
/// nobody may bring it up to date: what they lack there is put before it, for
/// this connection alone.
async fn stand_in(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let lacks: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'export')
             AND NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'entry')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if lacks {
        for statement in STAND_INS {
            sqlx::query(statement).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}
