//! Moments by a clock of this machine that nobody sets, and that goes on while
//! the machine sleeps.
//!
//! The time of day is for people and for what is kept on disk: it can be set.
//! [`Instant`](std::time::Instant) stands still while a machine is suspended:
//! what happened elsewhere meanwhile would seem to lie before it.

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A moment of this machine: nanoseconds since it was started, or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(now.tv_sec.saturating_mul(1_000_000_000) + now.tv_nsec)
    }

    /// The one so long ago.
    pub fn ago(ago: Duration) -> Self {
        Self::now() - ago
    }

    /// The one at that time of day; now, where that is still to come.
    pub fn at(time: Timestamp) -> Self {
        let ago = Timestamp::now().duration_since(time);
        Self::ago(ago.try_into().unwrap_or_default())
    }

    /// How long ago that is.
    pub fn elapsed(self) -> Duration {
        let elapsed = Self::now().0.saturating_sub(self.0);
        Duration::from_nanos(elapsed.try_into().unwrap_or(0))
    }

    /// What time of day it was.
    pub fn time(self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.elapsed()).unwrap_or_default();
        let time = Timestamp::now().checked_sub(elapsed);
        time.unwrap_or(Timestamp::MIN)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(by))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_goes_to_a_time_of_day_and_back() {
        let day = Duration::from_secs(24 * 3600);
        let moment = Moment::ago(day * 400);
        assert!(
            moment < Moment::now(),
            "also before the machine was started"
        );
        assert!(moment.elapsed() >= day * 400);
        let again = Moment::at(moment.time());
        let apart = again.elapsed().abs_diff(moment.elapsed());
        assert!(apart < day, "{apart:?}");
        let to_come = Moment::at(Timestamp::now() + day);
        assert!(to_come.elapsed() < day);
    }
}
