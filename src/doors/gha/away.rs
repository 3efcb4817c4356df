//! Whether a client is sent to a bucket.
//!
//! A hub can't know whether a client reaches the bucket. So one is sent there
//! that is known to come back where it does not, and what it asks for again is
//! given here; with all else, for a while, since its next download would wait for
//! the same. One that has a single try is never sent away.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// For how long an address leads to a bucket, for a client with two tries: the
/// second one comes 5 s after the first has failed (`DefaultRetryDelay` of
/// `@actions/cache`), maybe to another hub, which does not know of the first.
const SOON: Duration = Duration::from_secs(4);
/// Whoever asks for the same within that comes back. Later it is another read:
/// BuildKit keeps the addresses of its layers.
const BACK: Duration = Duration::from_secs(300);
/// For how long a client that came back stays.
const STAYS: Duration = Duration::from_secs(3600);
/// Addresses, and clients, that are remembered.
const REMEMBERED: usize = 4096;

/// What a client does where it gets nothing from a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Returns {
    /// It fails: `downloadV1` of go-actions-cache.
    #[default]
    Never,
    /// It asks once more: `downloadCacheHttpClient` of `@actions/cache`.
    Once,
    /// It asks many times: Azure's client for Go, and with it the second version
    /// of go-actions-cache.
    Often,
}

/// An address, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which of all.
    pub number: u64,
    /// How long ago it was given.
    pub age: Duration,
    /// What its client does.
    pub returns: Returns,
}

/// Who was sent away.
#[derive(Debug, Default)]
pub struct Away {
    sent: Mutex<Lately<u64>>,
    staying: Mutex<Lately<IpAddr>>,
}

impl Away {
    /// Whether whoever asks from there is sent; that is remembered.
    pub fn sends(&self, asked: Asked, peer: Option<IpAddr>) -> bool {
        self.sends_at(Instant::now(), asked, peer)
    }

    fn sends_at(&self, now: Instant, asked: Asked, peer: Option<IpAddr>) -> bool {
        let peer = peer.map(|peer| peer.to_canonical());
        let mut staying = lock(&self.staying);
        if peer.is_some_and(|peer| staying.has(&peer, STAYS, now)) {
            return false;
        }
        let may = match asked.returns {
            Returns::Never => false,
            Returns::Once => asked.age <= SOON,
            Returns::Often => true,
        };
        let mut sent = lock(&self.sent);
        if sent.has(&asked.number, BACK, now) {
            if let Some(peer) = peer {
                staying.note(peer, now);
            }
            return false;
        }
        if may {
            sent.note(asked.number, now);
        }
        may
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happened of late; when there is too much of it, all is forgotten.
#[derive(Debug)]
struct Lately<K>(HashMap<K, Instant>);

impl<K> Default for Lately<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Lately<K> {
    fn has(&self, key: &K, within: Duration, now: Instant) -> bool {
        let noted = self.0.get(key);
        noted.is_some_and(|noted| now.saturating_duration_since(*noted) < within)
    }

    fn note(&mut self, key: K, now: Instant) {
        if self.0.len() >= REMEMBERED {
            self.0
                .retain(|_, noted| now.saturating_duration_since(*noted) < STAYS);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(number: u64, returns: Returns, age: u64) -> Asked {
        Asked {
            number,
            age: Duration::from_secs(age),
            returns,
        }
    }

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn whoever_has_one_try_is_never_sent_away() {
        let away = Away::default();
        assert!(!away.sends(asked(1, Returns::Never, 0), peer(1)));
        assert!(away.sends(asked(2, Returns::Often, 0), peer(1)));
    }

    #[test]
    fn a_second_try_is_answered_here_by_whichever_hub() {
        let [one, two] = [(), ()].map(|()| Away::default());
        assert!(one.sends(asked(1, Returns::Once, 4), peer(1)));
        assert!(!two.sends(asked(1, Returns::Once, 5), peer(1)));
        // That alone does not say that it can't reach the bucket.
        assert!(two.sends(asked(2, Returns::Once, 0), peer(1)));
    }

    #[test]
    fn a_client_that_came_back_stays_and_others_do_not() {
        let away = Away::default();
        for (number, sent) in [(1, true), (1, false), (2, false)] {
            let asked = asked(number, Returns::Often, 600);
            assert_eq!(away.sends(asked, peer(1)), sent, "{number}");
        }
        assert!(away.sends(asked(2, Returns::Often, 600), peer(2)));
        assert!(away.sends(asked(3, Returns::Once, 0), peer(2)));
        assert!(!away.sends(asked(4, Returns::Once, 0), peer(1)));
    }

    #[test]
    fn what_is_read_again_later_is_no_second_try() {
        let (away, now) = (Away::default(), Instant::now());
        for after in [Duration::ZERO, BACK, 2 * BACK] {
            let asked = asked(1, Returns::Often, after.as_secs());
            assert!(away.sends_at(now + after, asked, peer(1)), "{after:?}");
        }
        let again = asked(1, Returns::Often, 900);
        assert!(!away.sends_at(now + 2 * BACK, again, peer(1)));
        let other = asked(2, Returns::Often, 0);
        assert!(!away.sends_at(now + STAYS, other, peer(1)));
        assert!(away.sends_at(now + 2 * BACK + STAYS, other, peer(1)));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let away = Away::default();
        for number in 0..3 * REMEMBERED as u64 {
            assert!(away.sends(asked(number, Returns::Often, 0), None));
            assert!(lock(&away.sent).0.len() <= REMEMBERED);
        }
    }
}
