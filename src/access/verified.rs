//! Tokens that were found good, so that a client's every request needn't be
//! verified anew.
//!
//! What is kept goes with the keys that found it good. Whether a token's time
//! has come or gone is asked each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::grant::Grant;
use crate::digest::Digest;

/// How many are kept: more than a hub has clients.
const KEPT: usize = 4096;

/// By the digest of the token.
#[derive(Default)]
pub struct Verified(Mutex<HashMap<Digest, Arc<Grant>>>);

impl Verified {
    /// What a token grants, if it is among them.
    pub fn get(&self, token: &Digest) -> Option<Arc<Grant>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(token).cloned()
    }

    /// Keeps one more. When there are too many all go: the next request of each
    /// brings it back.
    pub fn keep(&self, token: Digest, grant: Arc<Grant>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(token, grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let verified = Verified::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        for n in 0..3 * KEPT {
            verified.keep(digest(n), Arc::new(Grant::everything()));
            assert!(verified.get(&digest(n)).is_some());
        }
        assert!(verified.0.lock().unwrap().len() <= KEPT);
    }
}
