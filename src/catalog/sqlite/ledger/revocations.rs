//! Tokens that count no more.

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;

use crate::catalog::CatalogError;
use crate::catalog::columns;
use crate::catalog::ledger::{MAX_PAGE, NewRevocation, Revision, Revocation};
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::sqlite::turn::Turn;

impl SqliteCatalog {
    pub(super) async fn insert_revocation(
        &self,
        revocation: &NewRevocation,
    ) -> Result<(), CatalogError> {
        let failed = |error| self.context.of(error);
        let now = Timestamp::now();
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        // A row that is replaced gets a new revision, so that others see it.
        sqlx::query(
            "INSERT OR REPLACE INTO revocation (token, at, until, author, why)
             VALUES (?1, ?2, max(?3, ifnull((SELECT until FROM revocation WHERE token = ?1), 0)), ?4, ?5)",
        )
        .bind(&revocation.id)
        .bind(now.as_microsecond())
        .bind(revocation.until(now))
        .bind(columns::short(Some(revocation.origin.actor.name())))
        .bind(columns::short(Some(&revocation.why)))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        sqlx::query("DELETE FROM revocation WHERE until < ?1")
            .bind(now.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        self.audited(&mut tx, &revocation.audit()).await?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(())
    }

    pub(super) async fn list_revocations(
        &self,
        after: Revision,
    ) -> Result<Vec<Revocation>, CatalogError> {
        if !self.keeps_ledger().await? {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT revision, token, at, until, author, why FROM revocation
             WHERE revision > ?1 AND until >= ?2 ORDER BY revision LIMIT ?3",
        )
        .bind(after.0)
        .bind(Timestamp::now().as_microsecond())
        .bind(MAX_PAGE)
        .fetch_all(self.readers())
        .await
        .map_err(|error| self.context.of(error))?;
        let revocation = |row: &SqliteRow| {
            Ok(Revocation {
                revision: Revision(self.column(row, "revision")?),
                id: self.column(row, "token")?,
                at: self.time(row, "at")?,
                until: self.time(row, "until")?,
                by: self.column(row, "author")?,
                why: self.column(row, "why")?,
            })
        };
        rows.iter().map(revocation).collect()
    }
}
