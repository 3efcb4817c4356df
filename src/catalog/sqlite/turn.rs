//! A connection for one transaction, and what becomes of it afterwards.
//!
//! SQLite rolls some failures back by itself, a full disk among them, and sqlx
//! then still counts the transaction as open: every later one on that
//! connection would fail. So only a connection whose transaction ended well
//! goes back to its pool.

use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection as _, Sqlite, Transaction};

/// A connection that is closed unless it is kept.
#[derive(Debug)]
pub(super) struct Turn {
    connection: PoolConnection<Sqlite>,
    kept: bool,
    /// Its commits may not be on a disk.
    light: bool,
}

impl Turn {
    /// Waits for a connection of the pool.
    pub(super) async fn of(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: pool.acquire().await?,
            kept: false,
            light: false,
        })
    }

    /// A transaction that sees one moment.
    pub(super) async fn read(&mut self) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
        self.connection.begin_with("BEGIN").await
    }

    /// A transaction that has the write lock from its start, so that it can't
    /// fail for having read before another wrote.
    pub(super) async fn write(&mut self) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
        self.connection.begin_with("BEGIN IMMEDIATE").await
    }

    /// The same, whose commit a crash of the machine may undo: it waits for no
    /// disk.
    pub(super) async fn write_lightly(&mut self) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
        self.light = true;
        sqlx::query("PRAGMA synchronous = NORMAL")
            .execute(&mut *self.connection)
            .await?;
        self.write().await
    }

    /// Gives the connection back: its transaction ended well.
    pub(super) fn keep(mut self) {
        self.kept = !self.light;
    }

    /// The same, after a light transaction.
    pub(super) async fn keep_heavy(mut self) {
        let heavy = sqlx::query("PRAGMA synchronous = FULL");
        self.kept = heavy.execute(&mut *self.connection).await.is_ok();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.kept {
            self.connection.close_on_drop();
        }
    }
}
