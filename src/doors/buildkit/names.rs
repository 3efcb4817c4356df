//! The names that stores have for buildkitd, and for it alone.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Names that are known, the latest: far more than builds can run at once.
const MAX_NAMES: usize = 4096;
/// What every name begins with.
pub const PREFIX: &str = "layerd-";
/// Hex digits behind that.
pub const DIGITS: usize = 32;

/// The names that were given lately. They can't be guessed, so that text which
/// holds one speaks of us, whichever build it is from.
#[derive(Default)]
pub struct Names(Mutex<VecDeque<String>>);

impl Names {
    /// A new one, that nobody can guess.
    pub fn give(&self) -> String {
        let name = format!(
            "{PREFIX}{}",
            hex::encode(rand::random::<[u8; DIGITS / 2]>())
        );
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() == MAX_NAMES {
            names.pop_front();
        }
        names.push_back(name.clone());
        name
    }

    /// Whether that is one.
    pub fn has(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().rev().any(|known| known == name)
    }
}
