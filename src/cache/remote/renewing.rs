//! A hub's token that is exchanged for an identity, and exchanged anew before
//! it ends.
//!
//! The first call waits for the first token. Later ones find it renewed: from
//! two thirds of its life on, a call has that done beside it, and goes on with
//! the token that there is. One that the hub refuses is dropped, once in a while:
//! the hub may have been restored, or been given other keys. What fails is tried
//! again after some seconds; while there is no token, calls fail with the reason.
//! Whoever goes away does not end what others wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::hub::Hub;
use super::identity::Identity;
use crate::access::Secret;

/// How long a failure is told before another try.
const PAUSE: Duration = Duration::from_secs(3);

/// How often a token is dropped because the hub refuses it, at most.
const DROPPED: Duration = Duration::from_secs(30);

/// A token that renews itself.
pub(super) struct Renewing {
    hub: Arc<Hub>,
    identity: Identity,
    held: Mutex<Held>,
    /// Of those who exchange, one does.
    exchanging: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    failed: Option<(Instant, Failure)>,
    /// When one was dropped last.
    dropped: Option<Instant>,
}

struct Token {
    secret: Secret,
    renewed: Instant,
    ends: Instant,
}

impl Renewing {
    pub(super) fn new(hub: Arc<Hub>, identity: Identity) -> Self {
        Self {
            hub,
            identity,
            held: Mutex::default(),
            exchanging: tokio::sync::Mutex::default(),
        }
    }

    /// The token as it is now.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Secret, Failure> {
        let now = Instant::now();
        let (there, due) = {
            let held = self.held();
            let there = held.token.as_ref().filter(|token| now < token.ends);
            (
                there.map(|token| token.secret.clone()),
                there.is_none_or(|token| now >= token.renewed) && held.failed(now).is_none(),
            )
        };
        let exchanged = due.then(|| {
            let renewing = Arc::clone(self);
            tokio::spawn(async move { renewing.exchange().await })
        });
        match (there, exchanged) {
            (Some(secret), _) => return Ok(secret),
            (None, Some(exchanged)) => drop(exchanged.await),
            (None, None) => {}
        }
        let held = self.held();
        let token = held.token.as_ref().map(|token| token.secret.clone());
        match (held.failed(Instant::now()), token) {
            (Some(failure), _) => Err(failure),
            (None, Some(secret)) => Ok(secret),
            (None, None) => Err(Failure::Unreachable("there is no token yet".to_owned())),
        }
    }

    /// The hub says that this one does not count. Gives whether there may be
    /// another now.
    pub(super) fn refused(&self, secret: &Secret) -> bool {
        let mut held = self.held();
        let Some(token) = &held.token else {
            return true;
        };
        if token.secret.expose() != secret.expose() {
            return true;
        }
        let rests = |at: Instant| at.elapsed() < DROPPED;
        if held.dropped.is_some_and(rests) {
            return false;
        }
        tracing::info!("the hub refuses the token that it gave: another is asked for");
        held.token = None;
        held.dropped = Some(Instant::now());
        true
    }

    async fn exchange(&self) {
        let _one = self.exchanging.lock().await;
        let now = Instant::now();
        {
            // Another may have done it meanwhile.
            let held = self.held();
            let fresh = held.token.as_ref().is_some_and(|token| now < token.renewed);
            if fresh || held.failed(now).is_some() {
                return;
            }
        }
        let given = match self.identity.current().await {
            Ok(identity) => self.hub.given(&identity).await,
            Err(why) => Err(Failure::Unreachable(why)),
        };
        let now = Instant::now();
        let mut held = self.held();
        match given {
            Ok(given) => {
                tracing::debug!(
                    seconds = given.lasts.as_secs(),
                    "an identity was exchanged for a token"
                );
                held.failed = None;
                held.token = Some(Token {
                    secret: given.token,
                    renewed: now + given.lasts * 2 / 3,
                    ends: now + given.lasts,
                });
            }
            Err(failure) => {
                let why = failure.cache_error(None);
                tracing::warn!(%why, "the hub gave no token for this identity");
                held.failed = Some((now, failure));
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Why there is none, where that was found just now.
    fn failed(&self, now: Instant) -> Option<Failure> {
        let (at, failure) = self.failed.as_ref()?;
        (now.saturating_duration_since(*at) < PAUSE).then(|| failure.clone())
    }
}
