//! Blobs that are known to be what their digest says.
//!
//! A blob was hashed when it was written, and disks rot. BuildKit fails a build
//! for a layer with other bytes, again and again, so that a blob is hashed once
//! more before it is handed over; what was found so lately is believed. Once
//! one was found wrong, all are hashed before they are named: a build that has
//! failed for a blob must not fail for the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::digest::Digest;

/// How long a blob is believed to be as it was found.
const BELIEVED: Duration = Duration::from_secs(600);
/// How long it takes until blobs are looked at again, after a look that was cut
/// off.
const REST: Duration = Duration::from_secs(20);
/// Blobs that are remembered; beyond it all are forgotten, which costs hashing.
const MAX_REMEMBERED: usize = 100_000;

/// What was found lately.
#[derive(Debug, Default)]
pub struct Verified {
    right: Mutex<HashMap<Digest, Instant>>,
    wrong: AtomicBool,
    next_look: Mutex<Option<Instant>>,
    avoided: Mutex<BTreeMap<Digest, Instant>>,
}

impl Verified {
    /// Whether this blob was found to be right not long before `now`.
    pub fn is_believed(&self, digest: &Digest, now: Instant) -> bool {
        self.found()
            .get(digest)
            .is_some_and(|found| now.saturating_duration_since(*found) < BELIEVED)
    }

    /// This blob was found to be right.
    pub fn remember(&self, digest: Digest, now: Instant) {
        let mut found = self.found();
        if found.len() >= MAX_REMEMBERED {
            found.clear();
        }
        found.insert(digest, now);
    }

    /// This blob is to be looked at again.
    pub fn forget(&self, digest: &Digest) {
        self.found().remove(digest);
    }

    /// A blob was found to be wrong: where one has rotted, others may have.
    pub fn suspect(&self) {
        *self
            .next_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.wrong.store(true, Ordering::Relaxed);
    }

    /// Whether it is time to look at all blobs: a look that was cut off is not
    /// begun again by everybody who comes.
    pub fn may_look(&self, now: Instant) -> bool {
        let mut next = self
            .next_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if next.is_some_and(|next| now < next) {
            return false;
        }
        *next = Some(now + REST);
        true
    }

    /// All blobs were looked at since.
    pub fn trust(&self) {
        *self
            .next_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.wrong.store(false, Ordering::Relaxed);
    }

    /// Whether a blob was found to be wrong, and not all were looked at since.
    pub fn is_suspect(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }

    /// This blob could not be read, for no fault of its own that is known.
    pub fn avoid(&self, digest: Digest, now: Instant) {
        let mut avoided = self.avoiding();
        if avoided.len() >= MAX_REMEMBERED {
            avoided.clear();
        }
        avoided.insert(digest, now);
    }

    /// Those that could not be read not long before `now`.
    pub fn avoided(&self, now: Instant) -> Vec<Digest> {
        let mut avoided = self.avoiding();
        avoided.retain(|_, at| now.saturating_duration_since(*at) < BELIEVED);
        avoided.keys().copied().collect()
    }

    fn avoiding(&self) -> MutexGuard<'_, BTreeMap<Digest, Instant>> {
        self.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_lately_is_believed_for_a_while() {
        let (verified, now, digest) = (Verified::default(), Instant::now(), Digest::of(b"x"));
        assert!(!verified.is_believed(&digest, now));
        verified.remember(digest, now);
        assert!(verified.is_believed(&digest, now));
        assert!(!verified.is_believed(&digest, now + BELIEVED));
    }

    #[test]
    fn what_could_not_be_read_is_avoided_for_a_while() {
        let (verified, now, digest) = (Verified::default(), Instant::now(), Digest::of(b"x"));
        verified.avoid(digest, now);
        assert_eq!(verified.avoided(now), [digest]);
        assert!(verified.avoided(now + BELIEVED).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let verified = Verified::default();
        for n in 0..=MAX_REMEMBERED {
            verified.remember(Digest::of(&n.to_le_bytes()), Instant::now());
        }
        assert!(verified.found().len() <= MAX_REMEMBERED);
    }
}
