//! What a hub has said that projects hold, for an export that is brought there
//! later: should the hub lose such a blob meanwhile, this host may send its own.
//!
//! A blob that lies on this disk for another project is none of an export's
//! business, whatever digests its manifest names.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::place::ProjectId;

/// Answers of a generation, of which two are kept.
const MAX: usize = 16_384;

/// The last answers that were yes.
#[derive(Default)]
pub(super) struct Told {
    generations: Mutex<[HashSet<(ProjectId, Digest)>; 2]>,
}

impl Told {
    /// The project holds the blob.
    pub(super) fn remember(&self, project: &ProjectId, digest: &Digest) {
        let generations = self.generations.lock();
        let [new, old] = &mut *generations.unwrap_or_else(PoisonError::into_inner);
        if new.len() >= MAX {
            *old = std::mem::take(new);
        }
        new.insert((project.clone(), *digest));
    }

    /// Whether the project was said to hold the blob.
    pub(super) fn holds(&self, project: &ProjectId, digest: &Digest) -> bool {
        let generations = self.generations.lock();
        let generations = generations.unwrap_or_else(PoisonError::into_inner);
        let asked = (project.clone(), *digest);
        generations.iter().any(|some| some.contains(&asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answers_are_known_and_memory_is_bounded() {
        let told = Told::default();
        let [a, b] = ["a", "b"].map(|project| project.parse().unwrap());
        let blob = |number: usize| Digest::of(&number.to_le_bytes());
        (0..3 * MAX).for_each(|number| told.remember(&a, &blob(number)));
        assert!(told.holds(&a, &blob(3 * MAX - 1)));
        assert!(told.holds(&a, &blob(2 * MAX)));
        assert!(!told.holds(&a, &blob(0)));
        assert!(!told.holds(&b, &blob(2 * MAX)));
        let generations = told.generations.lock().unwrap();
        assert!(generations.iter().map(HashSet::len).sum::<usize>() <= 2 * MAX);
    }
}
