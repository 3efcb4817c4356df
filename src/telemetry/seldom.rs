//! What may happen by the thousand and is told once in a while, with how often
//! it did.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts, and says when to tell.
#[derive(Debug)]
pub struct Seldom {
    pause: Duration,
    untold: Mutex<Untold>,
}

#[derive(Debug)]
struct Untold {
    told: Option<Instant>,
    /// Since then.
    count: u64,
}

impl Seldom {
    /// Told at once, and then not again for so long.
    pub const fn new(pause: Duration) -> Self {
        Self {
            pause,
            untold: Mutex::new(Untold {
                told: None,
                count: 0,
            }),
        }
    }

    /// It happened once more; gives how often it did since it was told last,
    /// where it is to be told now.
    pub fn count(&self) -> Option<u64> {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        let lately = |told: Instant| told.elapsed() < self.pause;
        if untold.told.is_some_and(lately) {
            return None;
        }
        untold.told = Some(Instant::now());
        Some(std::mem::take(&mut untold.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_with_the_next_that_is() {
        let mut seldom = Seldom::new(Duration::from_secs(3600));
        let counted = [(); 4].map(|()| seldom.count());
        assert_eq!(counted, [Some(1), None, None, None]);
        seldom.pause = Duration::ZERO;
        assert_eq!(seldom.count(), Some(4));
        assert_eq!(seldom.count(), Some(1));
    }
}
