//! The tables: made, or brought up to date, before the first use.
//!
//! Nothing is asked of the database when a hub starts, so that it starts while
//! the database is down. The first call brings the tables up to date, all calls
//! at that time wait for the same attempt, and the next call after one that
//! failed tries again. A migration goes on when whoever waits for it gives up.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use sqlx::ConnectOptions as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::CatalogError;
use crate::catalog::context::Context;

static MIGRATIONS: Migrator = sqlx::migrate!("src/catalog/migrations/postgres");

/// How long a migration waits for a lock: whoever comes after it waits as well.
const LOCKS: &str = "SET lock_timeout = '5s'";

/// How long it lets others go on before it tries again.
const PAUSE: Duration = Duration::from_secs(2);

/// How much longer a caller waits for an attempt than that for its connection.
const GRACE: Duration = Duration::from_secs(1);

type Attempt = Shared<BoxFuture<'static, Result<(), CatalogError>>>;

/// How far the tables of a database are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// There are none.
    Absent,
    /// They are those of an older version.
    Older,
    /// They are those of this version.
    Current,
}

/// Whether the tables are there.
pub(super) struct Schema {
    context: Context,
    options: PgConnectOptions,
    patience: Duration,
    done: OnceLock<()>,
    attempt: Mutex<Option<Attempt>>,
}

impl Schema {
    /// Not looked at yet. A connection is waited for for `patience`.
    pub(super) fn new(context: Context, options: PgConnectOptions, patience: Duration) -> Self {
        Self {
            context,
            options,
            patience,
            done: OnceLock::new(),
            attempt: Mutex::new(None),
        }
    }

    /// Waits until the tables are as this version needs them.
    pub(super) async fn ready(&self) -> Result<(), CatalogError> {
        if self.done.get().is_some() {
            return Ok(());
        }
        let attempt = {
            let mut current = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            current.get_or_insert_with(|| self.attempt()).clone()
        };
        let made = match timeout(self.patience + GRACE, attempt.clone()).await {
            Ok(made) => made,
            Err(_) => return Err(self.context.unavailable("its tables are being prepared")),
        };
        if made.is_ok() {
            self.done.get_or_init(|| ());
        }
        let mut current = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|current| current.ptr_eq(&attempt));
        made
    }

    /// How far they are, which changes nothing.
    pub(super) async fn look(&self) -> Result<Tables, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = connect(&self.context, &self.options, self.patience).await?;
        let any: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
        let applied: Option<i64> = match any {
            false => None,
            true => sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?,
        };
        connection.close().await.map_err(failed)?;
        let latest = MIGRATIONS.iter().map(|migration| migration.version).max();
        match applied {
            None => Ok(Tables::Absent),
            applied if applied < latest => Ok(Tables::Older),
            applied if applied > latest => Err(CatalogError::Newer(self.context.name())),
            _ => Ok(Tables::Current),
        }
    }

    fn attempt(&self) -> Attempt {
        let (context, options) = (self.context.clone(), self.options.clone());
        let prepared = tokio::spawn(prepare(context.clone(), options, self.patience));
        let prepared = AbortOnDropHandle::new(prepared);
        prepared
            .map(move |prepared| prepared.unwrap_or_else(|error| Err(context.unavailable(error))))
            .boxed()
            .shared()
    }
}

/// A connection that belongs to no pool.
pub(super) async fn connect(
    context: &Context,
    options: &PgConnectOptions,
    patience: Duration,
) -> Result<PgConnection, CatalogError> {
    match timeout(patience, options.connect()).await {
        Ok(connected) => connected.map_err(|error| context.of(error)),
        Err(_) => Err(context.unavailable(format!("no connection within {patience:?}"))),
    }
}

/// Until it is done, or fails for another reason than that others hold a lock.
async fn prepare(
    context: Context,
    options: PgConnectOptions,
    patience: Duration,
) -> Result<(), CatalogError> {
    loop {
        match prepare_now(&context, &options, patience).await {
            Err(error @ CatalogError::Busy(_)) => {
                tracing::warn!(%error, "the tables are in use and could not be brought up to date: trying again");
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn prepare_now(
    context: &Context,
    options: &PgConnectOptions,
    patience: Duration,
) -> Result<(), CatalogError> {
    let mut connection = connect(context, options, patience).await?;
    // Without the lock where there is nothing to do, so that nobody waits for
    // one that has something to do.
    let applied: Result<Option<i64>, _> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await;
    let latest = MIGRATIONS.iter().map(|migration| migration.version).max();
    if !applied.is_ok_and(|applied| applied == latest) {
        sqlx::query(LOCKS)
            .execute(&mut connection)
            .await
            .map_err(|error| context.of(error))?;
        MIGRATIONS
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| context.of_migration(error))?;
    }
    connection.close().await.map_err(|error| context.of(error))
}
