//! What one hub does for all that share a catalog.
//!
//! The store is listed to know its size, which costs requests where it is a
//! bucket: one hub does it, and another one as soon as that has gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::cache::{LocalCache, StoreSize};
use crate::catalog::Catalog;

/// What the right to do it is called.
const TASK: &str = "housekeeping";
/// How often a hub that has not the right asks for it.
const PAUSE: Duration = Duration::from_secs(15);

/// Keeps house whenever it is this hub's turn, for ever.
pub(super) async fn keep(
    catalog: Arc<dyn Catalog>,
    cache: Arc<LocalCache>,
    size: StoreSize,
    grown: Arc<Notify>,
) {
    loop {
        match catalog.try_own(TASK).await {
            Ok(Some(ownership)) => {
                tracing::info!("this hub keeps house from now on");
                tokio::select! {
                    () = size.follow(cache.clone(), grown.clone()) => {}
                    () = ownership.lost() => {
                        tracing::warn!("another hub may keep house from now on");
                    }
                }
                size.unknown();
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "whose turn it is to keep house is not known"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
