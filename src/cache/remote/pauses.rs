//! The pauses between attempts at a hub: they grow, and hosts that failed at
//! once don't come back at once.

use std::time::Duration;

/// The first, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The next pause, before chance has shortened it.
pub(super) struct Pauses(Duration);

impl Pauses {
    /// From the first on.
    pub(super) fn begin() -> Self {
        Self(FIRST)
    }

    /// How long the next one is.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }
}
