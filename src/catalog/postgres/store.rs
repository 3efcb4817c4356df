//! Which blob store is the catalog's.

use super::PostgresCatalog;
use crate::blobs::{StoreId, Taken};
use crate::catalog::CatalogError;

const BOUND: &str = "SELECT id FROM store";
const BIND: &str = "INSERT INTO store (only_one, id) VALUES (1, $1) ON CONFLICT DO NOTHING";
const BIND_ANEW: &str = "INSERT INTO store (only_one, id) VALUES (1, $1)
    ON CONFLICT (only_one) DO UPDATE SET id = excluded.id";

impl PostgresCatalog {
    pub(super) async fn bound_to(&self) -> Result<Option<StoreId>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let id: Option<String> = sqlx::query_scalar(BOUND)
            .fetch_optional(&mut *connection)
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
        let mut connection = self.connections.one().await?;
        sqlx::query(match taken {
            Taken::First => BIND,
            Taken::Anew => BIND_ANEW,
        })
        .bind(store.to_string())
        .execute(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        drop(connection);
        Ok(self.bound_to().await?.unwrap_or(store))
    }
}
