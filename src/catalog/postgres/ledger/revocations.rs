//! Tokens that count no more.

use jiff::Timestamp;
use sqlx::Connection as _;

use super::now;
use crate::catalog::ledger::{MAX_PAGE, NewRevocation, Revision, Revocation};
use crate::catalog::postgres::{PostgresCatalog, lock};
use crate::catalog::{CatalogError, columns};

/// The name of the lock under which revisions are given, until they are visible.
const REVISIONS: &str = "revisions";

/// Revision, token, time, end, author, reason.
type Row = (i64, String, i64, i64, String, String);

impl PostgresCatalog {
    pub(super) async fn insert_revocation(
        &self,
        revocation: &NewRevocation,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.lock(&mut tx, lock!("pg_advisory_xact_lock"), REVISIONS)
            .await?;
        sqlx::query(concat!(
            "INSERT INTO revocation (revision, token, at, until, author, why)
             VALUES (nextval('revision'), $1, ",
            now!(),
            ", $2, $3, $4)
             ON CONFLICT (token) DO UPDATE SET
                 revision = excluded.revision, at = excluded.at, author = excluded.author,
                 why = excluded.why, until = greatest(revocation.until, excluded.until)"
        ))
        .bind(&revocation.id)
        .bind(revocation.until(Timestamp::now()))
        .bind(columns::short(Some(revocation.origin.actor.name())))
        .bind(columns::short(Some(&revocation.why)))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        sqlx::query(concat!("DELETE FROM revocation WHERE until < ", now!()))
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        self.audited(&mut tx, &revocation.audit()).await?;
        tx.commit().await.map_err(failed)
    }

    pub(super) async fn list_revocations(
        &self,
        after: Revision,
    ) -> Result<Vec<Revocation>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT revision, token, at, until, author, why FROM revocation
             WHERE revision > $1 AND until >= ",
            now!(),
            " ORDER BY revision LIMIT $2"
        ))
        .bind(after.0)
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        let revocation = |(revision, id, at, until, by, why): Row| {
            Ok(Revocation {
                revision: Revision(revision),
                id,
                at: self.time(at)?,
                until: self.time(until)?,
                by,
                why,
            })
        };
        rows.into_iter().map(revocation).collect()
    }
}
