//! Which blob store is the catalog's.

use super::SqliteCatalog;
use super::turn::Turn;
use crate::blobs::{StoreId, Taken};
use crate::catalog::CatalogError;

const KEEPS: &str =
    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'store')";
const BOUND: &str = "SELECT id FROM store";
const BIND: &str = "INSERT INTO store (only_one, id) VALUES (1, ?1) ON CONFLICT DO NOTHING";
const BIND_ANEW: &str = "INSERT OR REPLACE INTO store (only_one, id) VALUES (1, ?1)";

impl SqliteCatalog {
    pub(super) async fn bound_to(&self) -> Result<Option<StoreId>, CatalogError> {
        // A catalog that takes no writes may be as an older layerd left it.
        let keeps: bool = sqlx::query_scalar(KEEPS)
            .fetch_one(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        if !keeps {
            return Ok(None);
        }
        let id: Option<String> = sqlx::query_scalar(BOUND)
            .fetch_optional(self.readers())
            .await
            .map_err(|error| self.context.of(error))?;
        id.map(|id| id.parse().map_err(|error| self.context.corrupt(error)))
            .transpose()
    }

    pub(super) async fn bind_to(
        &self,
        store: StoreId,
        taken: Taken,
    ) -> Result<StoreId, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut turn = Turn::of(self.writers()?).await.map_err(failed)?;
        let mut tx = turn.write().await.map_err(failed)?;
        sqlx::query(match taken {
            Taken::First => BIND,
            Taken::Anew => BIND_ANEW,
        })
        .bind(store.to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        turn.keep();
        Ok(self.bound_to().await?.unwrap_or(store))
    }
}
