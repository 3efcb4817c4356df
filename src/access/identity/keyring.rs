//! The keys of one issuer, kept and renewed.
//!
//! They are fetched when the first token comes, again after an hour, and when a
//! token names a key that is not among them: that may be a new one, or a stranger
//! who makes names up, so it happens every 30 s at most. While the issuer can't
//! be reached the keys from before go on counting for a day. Whoever waits for
//! a fetch can go away without ending it for the others. Only so many wait: a
//! stranger who names an issuer that hangs takes nothing from those of others,
//! nor from a token whose key is there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::config::{Issuer, KeySource};
use super::fetch;
use super::jwks::{PublicKey, PublicKeys};
use super::rejected::Rejected;
use crate::watched::Watched;

/// When keys are fetched again.
const RENEWED: Duration = Duration::from_secs(3600);
/// How long keys count that can't be renewed.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How often an issuer is asked, at most.
const PAUSE: Duration = Duration::from_secs(30);
/// The same while there is no key at all.
const RETRY: Duration = Duration::from_secs(2);

/// How many wait for a fetch.
const WAITING: usize = 64;

/// The keys of one issuer.
pub struct Keyring(Kept);

enum Kept {
    File(Watched<PublicKeys>),
    Fetched(Arc<Fetched>),
}

struct Fetched {
    issuer: Issuer,
    held: Mutex<Held>,
    /// Of those who fetch, one does.
    fetching: tokio::sync::Mutex<()>,
    waiting: Semaphore,
}

#[derive(Clone, Default)]
struct Held {
    keys: Option<(Arc<PublicKeys>, Instant)>,
    tried: Option<Instant>,
    /// Why the last try failed.
    trouble: Option<String>,
}

impl Keyring {
    /// That of an issuer. Nothing is fetched yet; a file is read.
    pub fn open(issuer: &Issuer) -> Result<Self, String> {
        let kept = match &issuer.keys {
            KeySource::Remote { .. } => Kept::Fetched(Arc::new(Fetched {
                issuer: issuer.clone(),
                held: Mutex::default(),
                fetching: tokio::sync::Mutex::default(),
                waiting: Semaphore::new(WAITING),
            })),
            KeySource::File(path) => {
                let path = path.clone();
                let watched = Watched::open([path.clone()], move || {
                    let json = std::fs::read(&path).map_err(|error| error.to_string());
                    let keys = json.and_then(|json| PublicKeys::parse(&json));
                    keys.map_err(|why| format!("{}: {why}", path.display()))
                });
                Kept::File(watched?)
            }
        };
        Ok(Self(kept))
    }

    /// The key of that name.
    pub async fn key(&self, kid: &str, now: Instant) -> Result<PublicKey, Rejected> {
        let fetched = match &self.0 {
            Kept::File(watched) => {
                let key = watched.current().get(kid).cloned();
                return key.ok_or_else(|| Rejected::UnknownKey(kid.to_owned()));
            }
            Kept::Fetched(fetched) => fetched,
        };
        if !fetched.held().wants(kid, now) {
            return fetched.key(kid, now);
        }
        let usable = fetched.key(kid, now);
        if usable.is_ok() && fetched.fetching.try_lock().is_err() {
            return usable;
        }
        let Ok(_waiting) = fetched.waiting.try_acquire() else {
            return usable.map_err(|_| Rejected::Busy);
        };
        // In a task of its own, so that it ends whoever goes away.
        let (task, name) = (Arc::clone(fetched), kid.to_owned());
        let renewed = tokio::spawn(async move { task.renew(&name, now).await });
        if let Err(error) = renewed.await {
            tracing::error!(%error, "keys were not fetched");
        }
        fetched.key(kid, now)
    }

    /// Fetches, or reads, and says how many there are, or why there are none.
    pub async fn look(&self) -> Result<usize, String> {
        match &self.0 {
            Kept::File(watched) => Ok(watched.current().count()),
            Kept::Fetched(fetched) => Ok(fetched.fetch().await?.count()),
        }
    }
}

impl Held {
    /// Whether the issuer is to be asked on behalf of a token with that key.
    fn wants(&self, kid: &str, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        let rested = |pause| self.tried.is_none_or(|tried| since(tried) >= pause);
        match &self.keys {
            None => rested(RETRY),
            Some((keys, fetched)) => {
                rested(PAUSE) && (keys.get(kid).is_none() || since(*fetched) >= RENEWED)
            }
        }
    }
}

impl Fetched {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, kid: &str, now: Instant) -> Result<PublicKey, Rejected> {
        let held = self.held();
        let unavailable =
            |why: &str| Rejected::Unavailable(self.issuer.name.clone(), why.to_owned());
        let trouble = held.trouble.as_deref();
        match &held.keys {
            Some((keys, fetched)) if now.saturating_duration_since(*fetched) < STALE => {
                match (keys.get(kid), trouble) {
                    (Some(key), _) => Ok(key.clone()),
                    (None, Some(why)) => Err(unavailable(why)),
                    (None, None) => Err(Rejected::UnknownKey(kid.to_owned())),
                }
            }
            _ => Err(unavailable(trouble.unwrap_or("they are being fetched"))),
        }
    }

    async fn renew(&self, kid: &str, now: Instant) {
        let _one = self.fetching.lock().await;
        {
            let mut held = self.held();
            // Another may have done it meanwhile.
            if !held.wants(kid, now) {
                return;
            }
            held.tried = Some(now);
        }
        let fetched = self.fetch().await;
        let issuer = &self.issuer.name;
        let mut held = self.held();
        match fetched {
            Ok(keys) => {
                if held.trouble.take().is_some() {
                    tracing::info!(issuer, "the keys of an issuer can be fetched again");
                }
                held.keys = Some((Arc::new(keys), now));
            }
            Err(why) => {
                if held.trouble.as_ref() != Some(&why) {
                    tracing::warn!(issuer, why, "the keys of an issuer can't be fetched");
                }
                held.trouble = Some(why);
            }
        }
    }

    async fn fetch(&self) -> Result<PublicKeys, String> {
        match &self.issuer.keys {
            KeySource::Remote { at, authorities } => {
                fetch::keys(&self.issuer.url, at, authorities.as_ref()).await
            }
            KeySource::File(path) => Err(format!("{} is not fetched", path.display())),
        }
    }
}
