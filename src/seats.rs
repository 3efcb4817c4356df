//! So many of something for each key at a time: connections of an address,
//! requests with a token.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who has how many; clones are the same.
#[derive(Debug)]
pub struct Seats<K> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// One, until it is dropped.
#[derive(Debug)]
pub struct Seat<K: Eq + Hash> {
    seats: Seats<K>,
    key: K,
}

impl<K> Clone for Seats<K> {
    fn clone(&self) -> Self {
        Self {
            taken: Arc::clone(&self.taken),
            most: self.most,
        }
    }
}

impl<K: Clone + Eq + Hash> Seats<K> {
    /// Nobody has any yet, and everybody may have `most`.
    pub fn new(most: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// One more for `key`, unless it has its most.
    pub fn take(&self, key: K) -> Option<Seat<K>> {
        let mut taken = self.lock();
        let count = taken.get(&key).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        taken.insert(key.clone(), count + 1);
        drop(taken);
        Some(Seat {
            seats: self.clone(),
            key,
        })
    }
}

impl<K> Seats<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_and_what_is_dropped_is_free_again() {
        let seats = Seats::new(2);
        let mut of_a: Vec<_> = (0..2).map(|_| seats.take("a").unwrap()).collect();
        assert!(seats.take("a").is_none());
        assert!(seats.take("b").is_some());
        of_a.pop();
        assert!(seats.take("a").is_some());
        drop(of_a);
        assert!(seats.lock().is_empty());
    }
}
