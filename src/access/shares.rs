//! Room that all clients share, and of which one alone can't take everything.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::grant::Grant;
use super::pattern::RefPattern;

/// Clients that are remembered before those that have nothing are forgotten.
const REMEMBERED: usize = 256;

/// Whom a share is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Whoever has tokens of one project that were made for the same, and may
    /// write the same: a pull request takes nothing from a branch.
    Bearer(String, String, Vec<RefPattern>),
    /// Who has none: everybody at an address.
    At(Option<IpAddr>),
}

impl Client {
    /// Whoever was granted this, and comes from there.
    pub fn of(grant: &Grant, peer: Option<SocketAddr>) -> Self {
        match grant.project() {
            // Nobody vouches for what it says: it may be another one each time.
            _ if grant.subject().is_empty() => Self::At(peer.map(|peer| peer.ip())),
            Some(project) => Self::Bearer(
                project.to_string(),
                grant.subject().to_owned(),
                grant.write().to_vec(),
            ),
            None => Self::Bearer(String::new(), grant.subject().to_owned(), Vec::new()),
        }
    }
}

/// Why there is no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Whoever has it lets nobody in any more.
    #[error("the hub is closing")]
    Closing,
    /// Others have all of it, for longer than one may wait.
    #[error("too many {0} at once: try again")]
    TooMany(String),
}

/// So much room; clones are the same.
#[derive(Clone)]
pub struct Shares(Arc<Shared>);

struct Shared {
    all: Arc<Semaphore>,
    /// What one client has at most.
    most: usize,
    waiting: AtomicUsize,
    own: Mutex<HashMap<Client, Arc<Semaphore>>>,
}

/// Some of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Shares {
    /// `all`, of which one client has half.
    pub fn halved(all: usize) -> Self {
        Self::new(all, all.div_ceil(2))
    }

    /// `all`, of which one client has `most`.
    pub fn new(all: usize, most: usize) -> Self {
        Self(Arc::new(Shared {
            all: Arc::new(Semaphore::new(all)),
            most,
            waiting: AtomicUsize::new(0),
            own: Mutex::default(),
        }))
    }

    /// So much of it, as soon as it is free; for what is more than a client can
    /// have, all that it can.
    pub async fn take(&self, client: &Client, many: usize) -> Result<Share, NoRoom> {
        let many = u32::try_from(many.clamp(1, self.0.most)).unwrap_or(u32::MAX);
        let closing = |_| NoRoom::Closing;
        let _waiting = Waiting::begin(&self.0);
        // Whoever waits for its own share keeps nothing from the others.
        let own = self.own(client).acquire_many_owned(many).await;
        let own = own.map_err(closing)?;
        let all = Arc::clone(&self.0.all).acquire_many_owned(many).await;
        Ok(Share {
            _own: own,
            _all: all.map_err(closing)?,
        })
    }

    /// The same, and not for longer than `limit`: there are too many of `what`
    /// then.
    pub async fn take_within(
        &self,
        limit: Duration,
        client: &Client,
        many: usize,
        what: &str,
    ) -> Result<Share, NoRoom> {
        let taken = tokio::time::timeout(limit, self.take(client, many)).await;
        taken.map_err(|_| NoRoom::TooMany(what.to_owned()))?
    }

    /// The same, if it is free now.
    pub fn try_take(&self, client: &Client) -> Option<Share> {
        Some(Share {
            _own: self.own(client).try_acquire_owned().ok()?,
            _all: Arc::clone(&self.0.all).try_acquire_owned().ok()?,
        })
    }

    /// Whether anybody waits for some of it.
    pub fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    fn own(&self, client: &Client) -> Arc<Semaphore> {
        let mut own = self.0.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= REMEMBERED {
            // Whoever has or waits for some holds it too.
            own.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let made = || Arc::new(Semaphore::new(self.0.most));
        Arc::clone(own.entry(client.clone()).or_insert_with(made))
    }
}

/// Counts who waits.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn client(name: &str) -> Client {
        Client::Bearer("p".to_owned(), name.to_owned(), Vec::new())
    }

    #[tokio::test]
    async fn one_client_never_has_more_than_its_share() {
        let shares = Shares::halved(4);
        let a = client("a");
        let held = [
            shares.take(&a, 1).await.unwrap(),
            shares.take(&a, 1).await.unwrap(),
        ];
        assert!(shares.try_take(&a).is_none());
        let mut waiting = Box::pin(shares.take(&a, 1));
        assert!(!shares.is_wanted());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(shares.is_wanted());
        let others = shares.take(&client("b"), 2).await.unwrap();
        assert!(shares.try_take(&client("c")).is_none(), "all is taken");
        drop(held);
        waiting.await.unwrap();
        assert!(!shares.is_wanted());
        drop(others);
        assert!(shares.try_take(&client("c")).is_some());
    }

    #[tokio::test]
    async fn whoever_waits_too_long_is_told_to_try_again() {
        let shares = Shares::halved(1);
        let held = shares.take(&client("a"), 9).await.unwrap();
        let limit = Duration::from_millis(1);
        let refused = shares.take_within(limit, &client("b"), 1, "reads").await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.to_string(), "too many reads at once: try again");
        drop(held);
        let taken = shares.take_within(limit, &client("b"), 1, "reads").await;
        taken.unwrap();
    }

    #[tokio::test]
    async fn clients_that_have_nothing_are_forgotten() {
        let shares = Shares::halved(4);
        let held = shares.take(&client("kept"), 2).await.unwrap();
        for number in 0..3 * REMEMBERED {
            assert!(shares.try_take(&client(&number.to_string())).is_some());
        }
        assert!(shares.0.own.lock().unwrap().len() <= REMEMBERED);
        assert!(shares.try_take(&client("kept")).is_none());
        drop(held);
        assert!(shares.try_take(&client("kept")).is_some());
    }
}
