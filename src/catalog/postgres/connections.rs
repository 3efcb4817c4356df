//! Connections to one database, and how long anything may take on them.

use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::time::timeout;

use super::schema::{Schema, Tables, connect};
use crate::catalog::CatalogError;
use crate::catalog::context::Context;

/// How long the question takes whether the database is there at all.
const GLANCE: Duration = Duration::from_secs(1);

/// How long it takes until a socket that is not there is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// When an idle connection is closed: before something on the way forgets it.
const IDLE: Duration = Duration::from_secs(120);

/// What every connection is told: its limits, in milliseconds; that what was
/// committed is on a disk, unless the server is even stricter; and that each
/// statement sees what was committed before it.
const SETTINGS: &str = "SELECT set_config('statement_timeout', $1, false),
    set_config('lock_timeout', $2, false),
    set_config('idle_in_transaction_session_timeout', $1, false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('client_min_messages', 'error', false),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

/// Limits of a [`PostgresCatalog`](super::PostgresCatalog).
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Connections at most, beside one for each task that is
    /// [owned](crate::catalog::Catalog::try_own).
    pub connections: u32,
    /// How long a call waits for a connection, and so for a server that
    /// restarts.
    pub patience: Duration,
    /// How long one statement may take; it waits half of that for a lock.
    pub statement: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            connections: 16,
            patience: Duration::from_millis(1500),
            statement: Duration::from_secs(30),
        }
    }
}

/// The connections of one catalog; the first is made when one is needed.
pub(super) struct Connections {
    context: Context,
    pool: PgPool,
    options: PgConnectOptions,
    schema: Schema,
    limits: PostgresOptions,
}

impl Connections {
    pub(super) fn new(
        context: Context,
        options: PgConnectOptions,
        limits: PostgresOptions,
    ) -> Self {
        let statement = limits.statement.as_millis().to_string();
        let lock = (limits.statement / 2).as_millis().to_string();
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(limits.patience)
            .idle_timeout(IDLE)
            .after_connect(move |connection, _| {
                let (statement, lock) = (statement.clone(), lock.clone());
                Box::pin(async move {
                    sqlx::query(SETTINGS)
                        .bind(statement)
                        .bind(lock)
                        .execute(connection)
                        .await
                        .map(drop)
                })
            })
            // A call that is given up while it begins a transaction leaves its
            // connection inside of it, and what the next one writes would be
            // undone. This tells as well whether the connection still works.
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                Box::pin(async move {
                    let done = sqlx::raw_sql("ROLLBACK").execute(connection).await;
                    done.map(|_| true)
                })
            })
            .connect_lazy_with(options.clone());
        Self {
            schema: Schema::new(context.clone(), options.clone(), limits.patience),
            context,
            pool,
            options,
            limits,
        }
    }

    /// A connection that works, to a database with all its tables.
    pub(super) async fn one(&self) -> Result<PoolConnection<Postgres>, CatalogError> {
        self.schema.ready().await?;
        let began = Instant::now();
        let acquired = loop {
            match self.pool.acquire().await {
                // A server that restarts has no socket for a moment.
                Err(sqlx::Error::Io(error))
                    if error.kind() == ErrorKind::NotFound
                        && began.elapsed() < self.limits.patience =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                acquired => break acquired,
            }
        };
        match acquired {
            Ok(connection) => Ok(connection),
            Err(error @ sqlx::Error::PoolTimedOut) => {
                self.reached().await?;
                Err(self.context.of(error))
            }
            Err(error) => Err(self.context.of(error)),
        }
    }

    /// How far the tables are, which changes nothing.
    pub(super) async fn tables(&self) -> Result<Tables, CatalogError> {
        self.bounded(self.schema.look()).await
    }

    /// A connection for one purpose, without time-outs and outside the pool.
    pub(super) async fn own(&self) -> Result<PgConnection, CatalogError> {
        connect(&self.context, &self.options, self.limits.patience).await
    }

    /// Whether the database answers; that all connections are in use is no
    /// reason to say no.
    pub(super) async fn ready(&self) -> Result<(), CatalogError> {
        self.schema.ready().await?;
        match timeout(GLANCE, self.pool.acquire()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error @ sqlx::Error::PoolClosed)) => Err(self.context.of(error)),
            _ => self.reached().await,
        }
    }

    /// A call with an end, also where packets are lost without a word: the
    /// server's own limits end any other.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        let limit = 2 * (self.limits.patience + self.limits.statement);
        match timeout(limit, call).await {
            Ok(done) => done,
            Err(_) => Err(self
                .context
                .unavailable(format!("no answer within {limit:?}"))),
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// For the gauges.
    pub(super) fn gauges(&self) -> impl Collector + use<> {
        Gauges(self.pool.clone())
    }

    /// A try to connect, whose error says what stands in the way.
    async fn reached(&self) -> Result<(), CatalogError> {
        let connection = connect(&self.context, &self.options, GLANCE).await?;
        connection
            .close()
            .await
            .map_err(|error| self.context.of(error))
    }
}

/// How many connections there are, as it is at each scrape.
struct Gauges(PgPool);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let idle = i64::try_from(self.0.num_idle()).unwrap_or(i64::MAX);
        let used = (i64::from(self.0.size()) - idle).max(0);
        let mut gauges = encoder.encode_descriptor(
            "layerd_catalog_connections",
            "Connections to the catalog's database",
            None,
            MetricType::Gauge,
        )?;
        for (state, connections) in [("idle", idle), ("used", used)] {
            gauges
                .encode_family(&[("state", state)])?
                .encode_gauge(&connections)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}
