//! Tokens that count no more, though they have not expired.
//!
//! Every hub knows all of them by heart, and looks for new ones when somebody
//! calls and it has not looked within a second: so a token that was revoked at
//! one hub is refused by all a second later, and a hub that is not asked asks
//! nobody. All that call at that time wait for one look, and not for long: where
//! the catalog can't be reached, what is known counts on, and the call then
//! fails as the catalog does, since nothing is told or kept without it.
//!
//! Once in a minute all are read again: a catalog that was restored from a
//! backup counts its revisions from an earlier one on.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use jiff::Timestamp;

use super::denied::Denied;
use crate::catalog::ledger::{MAX_PAGE, Revision};
use crate::catalog::{Catalog, CatalogError};
use crate::telemetry::Seldom;

/// For how long it counts that it was looked.
const FRESH: Duration = Duration::from_secs(1);
/// How often all are read, not only those that are new.
const ALL_AGAIN: Duration = Duration::from_secs(60);
/// How long a call waits for a look.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is logged that calls have waited in vain.
const TOLD: Duration = Duration::from_secs(10);

/// What a hub knows of revoked tokens; clones know the same.
#[derive(Clone)]
pub struct Revoked {
    catalog: Arc<dyn Catalog>,
    known: Arc<Mutex<Known>>,
    late: Arc<Seldom>,
}

#[derive(Default)]
struct Known {
    /// Until when each has to be remembered, by its id.
    ids: HashMap<String, Timestamp>,
    /// What of the catalog is in there.
    revision: Revision,
    /// When all were read last.
    all_read: Option<Instant>,
    /// When was looked last, with or without success.
    looked: Option<Instant>,
    /// A look that goes on, whoever waits for it.
    looking: Option<Shared<BoxFuture<'static, ()>>>,
}

impl Revoked {
    /// As `catalog` has them; nothing is asked yet.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self {
            catalog,
            known: Arc::default(),
            late: Arc::new(Seldom::new(TOLD)),
        }
    }

    /// Refuses a token that was revoked, if that could be found out.
    pub async fn check(&self, id: &str) -> Result<(), Denied> {
        let looking = self.looking();
        if let Some(looking) = looking
            && tokio::time::timeout(PATIENCE, looking).await.is_err()
            && let Some(calls) = self.late.count()
        {
            tracing::warn!(
                calls,
                "which tokens are revoked could not be looked up in time"
            );
        }
        match self.known().ids.contains_key(id) {
            true => Err(Denied::Revoked),
            false => Ok(()),
        }
    }

    /// The look that has to be waited for, if any.
    fn looking(&self) -> Option<Shared<BoxFuture<'static, ()>>> {
        let mut known = self.known();
        if known.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return None;
        }
        let runs = known.looking.as_ref().filter(|look| look.peek().is_none());
        if let Some(runs) = runs {
            return Some(runs.clone());
        }
        let this = self.clone();
        let looking = tokio::spawn(async move { this.look().await });
        let looking = looking.map(|_| ()).boxed().shared();
        known.looking = Some(looking.clone());
        Some(looking)
    }

    async fn look(&self) {
        // What is revoked from now on may be missed.
        let now = Instant::now();
        if let Err(error) = self.read().await {
            tracing::warn!(%error, "which tokens are revoked can't be looked up");
        }
        let mut known = self.known();
        known.looked = Some(now);
        known.ids.retain(|_, until| *until >= Timestamp::now());
    }

    async fn read(&self) -> Result<(), CatalogError> {
        let began = Instant::now();
        let (mut after, all) = {
            let known = self.known();
            let due = known.all_read.is_none_or(|at| at.elapsed() >= ALL_AGAIN);
            match due {
                true => (Revision::default(), true),
                false => (known.revision, false),
            }
        };
        loop {
            let page = self.catalog.revocations(after).await?;
            let is_last = page.len() < MAX_PAGE as usize;
            let mut known = self.known();
            for revocation in page {
                after = revocation.revision.max(after);
                known.ids.insert(revocation.id, revocation.until);
            }
            if is_last {
                // It may have gone back.
                known.revision = after;
                if all {
                    known.all_read = Some(began);
                }
                return Ok(());
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known();
        f.debug_tuple("Revoked").field(&known.ids.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::SqliteCatalog;
    use crate::catalog::ledger::{Actor, Ledger as _, NewRevocation, Origin};

    async fn revoke(catalog: &SqliteCatalog, id: String) {
        let revocation = NewRevocation {
            id,
            expires: None,
            why: String::new(),
            origin: Origin::here(Actor::Anybody),
        };
        catalog.revoke(&revocation).await.unwrap();
    }

    impl Revoked {
        /// As if a second had passed.
        fn forget(&self) {
            self.known().looked = None;
        }
    }

    #[tokio::test]
    async fn what_is_revoked_elsewhere_is_known_at_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let [here, there] = [(), ()].map(|()| SqliteCatalog::open(dir.path()));
        let (here, there) = (here.await.unwrap(), there.await.unwrap());
        let revoked = Revoked::new(Arc::new(here));
        assert_eq!(revoked.check("one").await, Ok(()));
        // More than a page.
        for n in 0..MAX_PAGE {
            revoke(&there, format!("other-{n}")).await;
        }
        revoke(&there, "one".to_owned()).await;
        revoked.forget();
        let all = (0..64).map(|_| revoked.check("one"));
        for answer in futures::future::join_all(all).await {
            assert_eq!(answer, Err(Denied::Revoked));
        }
        assert_eq!(revoked.check("two").await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_revoked_in_a_catalog_that_went_back_is_known_within_a_minute() {
        let [new, old] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let [new, old] = [new.path(), old.path()].map(SqliteCatalog::open);
        let (new, old) = (new.await.unwrap(), old.await.unwrap());
        for n in 0..5 {
            revoke(&new, format!("before-{n}")).await;
        }
        let mut revoked = Revoked::new(Arc::new(new));
        revoked.check("any").await.unwrap();
        revoke(&old, "after".to_owned()).await;
        revoked.catalog = Arc::new(old);
        revoked.forget();
        assert_eq!(revoked.check("after").await, Ok(()));
        // As if a minute had passed.
        revoked.known().all_read = None;
        revoked.forget();
        assert_eq!(revoked.check("after").await, Err(Denied::Revoked));
        assert_eq!(revoked.check("before-4").await, Err(Denied::Revoked));
        // From there on it is followed again.
        let catalog = Arc::clone(&revoked.catalog);
        let revocation = NewRevocation {
            id: "later".to_owned(),
            expires: None,
            why: String::new(),
            origin: Origin::here(Actor::Anybody),
        };
        catalog.revoke(&revocation).await.unwrap();
        revoked.forget();
        assert_eq!(revoked.check("later").await, Err(Denied::Revoked));
    }

    #[tokio::test]
    async fn what_is_known_counts_while_the_catalog_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
        revoke(&catalog, "one".to_owned()).await;
        let revoked = Revoked::new(catalog.clone());
        assert_eq!(revoked.check("one").await, Err(Denied::Revoked));
        catalog.close().await;
        revoked.forget();
        assert_eq!(revoked.check("one").await, Err(Denied::Revoked));
        assert_eq!(revoked.check("two").await, Ok(()));
    }
}
