//! Who does a background task: whoever has the lock of its name, in a session
//! of its own.
//!
//! The server frees the lock when the session ends, however it ends; where its
//! client has vanished without a word, the server's keep-alive ends it.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{PostgresCatalog, lock};
use crate::catalog::ownership::is_task;
use crate::catalog::{CatalogError, Ownership};

/// How often an owner looks whether its session is still there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long the server may take to answer that.
const SILENCE: Duration = Duration::from_secs(5);

/// After half a minute without a sign of its client, the server ends a session.
const KEEP_ALIVE: &str = "SELECT set_config('tcp_keepalives_idle', '15', false),
    set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)";

impl PostgresCatalog {
    pub(super) async fn own(&self, task: &str) -> Result<Option<Ownership>, CatalogError> {
        let failed = |error| self.context.of(error);
        if !is_task(task) {
            return Err(self.context.other(format!("{task:?} is no name of a task")));
        }
        let mut session = self.connections.own().await?;
        let owned: bool = sqlx::query_scalar(lock!("pg_try_advisory_lock"))
            .bind(format!("task/{task}"))
            .fetch_one(&mut session)
            .await
            .map_err(failed)?;
        if !owned {
            session.close().await.map_err(failed)?;
            return Ok(None);
        }
        sqlx::query(KEEP_ALIVE)
            .execute(&mut session)
            .await
            .map_err(failed)?;
        let lost = CancellationToken::new();
        let beating = AbortOnDropHandle::new(tokio::spawn(beat(session, lost.clone())));
        Ok(Some(Ownership::new(lost, beating)))
    }
}

/// Keeps the session, until it is lost.
async fn beat(mut session: PgConnection, lost: CancellationToken) {
    let _lost = lost.drop_guard();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        match timeout(SILENCE, session.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "a background task is owned no more");
                return;
            }
            Err(_) => {
                tracing::warn!("a background task is owned no more: the database is silent");
                return;
            }
        }
    }
}
