//! What a daemon has already, as far as this door has seen: steps that it ran,
//! and those that were counted as saved on it.
//!
//! The results of steps that it ran and exported say so themselves. What it ran
//! without exporting, or loaded from an import, is known here alone, and
//! forgotten when the sidecar ends.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::reckon::text;
use crate::digest::Digest;
use crate::step::{Step, StepName};

/// Results and names that are remembered; the oldest go first.
const MAX_KEYS: usize = 200_000;

/// What daemons have.
#[derive(Default)]
pub struct Known(Mutex<Keys>);

#[derive(Default)]
struct Keys {
    known: HashSet<Digest>,
    oldest: VecDeque<Digest>,
}

/// What one daemon has.
pub struct Had<'a> {
    keys: &'a mut Keys,
    daemon: Option<&'a str>,
}

impl Known {
    /// What `daemon` has; nobody else looks or adds meanwhile, so that of two
    /// builds that hit the same at once one is saved it.
    pub fn with<T>(&self, daemon: Option<&str>, look: impl FnOnce(&mut Had<'_>) -> T) -> T {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut Had {
            keys: &mut keys,
            daemon,
        })
    }
}

impl Had<'_> {
    /// Whether the daemon had this result, as far as that can't be excluded: it
    /// made it, or was given it before.
    pub fn result(&self, step: &Step) -> bool {
        let origin = step.origin.as_ref();
        let made_by = origin.and_then(|origin| origin.daemon.as_deref());
        let elsewhere = made_by
            .zip(self.daemon)
            .is_some_and(|(made_by, here)| made_by != here);
        !elsewhere || self.keys.known.contains(&self.of_result(step))
    }

    /// Whether a step of that name ran here or was a hit: then one that is a hit
    /// now may be its own.
    pub fn name(&self, name: &StepName) -> bool {
        self.keys.known.contains(&self.of_name(name))
    }

    /// It has these results now, and what goes by these names.
    pub fn add(&mut self, steps: &[Step], names: &[StepName]) {
        let results: Vec<Digest> = steps.iter().map(|step| self.of_result(step)).collect();
        let names: Vec<Digest> = names.iter().map(|name| self.of_name(name)).collect();
        for key in results.into_iter().chain(names) {
            if self.keys.known.insert(key) {
                self.keys.oldest.push_back(key);
            }
        }
        while self.keys.oldest.len() > MAX_KEYS {
            if let Some(oldest) = self.keys.oldest.pop_front() {
                self.keys.known.remove(&oldest);
            }
        }
    }

    fn of_result(&self, step: &Step) -> Digest {
        let made = step.created_at.as_nanosecond();
        let daemon = self.daemon.unwrap_or_default();
        let record = step.record.as_str();
        Digest::of(format!("result {daemon} {made} {record}").as_bytes())
    }

    /// Of whichever daemon: it is not asked which one it is for builds that
    /// have nothing of ours.
    fn of_name(&self, name: &StepName) -> Digest {
        Digest::of(format!("name {}", text(name)).as_bytes())
    }
}
