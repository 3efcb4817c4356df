//! When an address is not asked any more: after failures in a row, for a while
//! that grows, and then by one probe at a time.

use std::time::{Duration, Instant};

/// Failures in a row that open a breaker.
const FAILURES: u32 = 3;
/// How long it is open at first, and at most.
const OPEN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];

/// What is known of one address. A plain value: time comes in.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// How often it was opened since the last success.
    opened: u32,
    until: Option<Instant>,
    probing: bool,
    why: String,
}

/// What a call was let through as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// One of many.
    Call,
    /// The one that finds out whether others may.
    Probe,
}

/// What became of a state by an event, where that is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The first failure after successes.
    Failing,
    /// It is not asked now.
    Opened(Duration),
    /// It answers again.
    Recovered,
}

impl Breaker {
    /// Lets a call through, or says for how long not and why.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admitted, (Duration, &str)> {
        match self.until {
            None => Ok(Admitted::Call),
            Some(until) if now < until => Err((until - now, &self.why)),
            Some(_) if self.probing => Err((OPEN[0], &self.why)),
            Some(_) => {
                self.probing = true;
                Ok(Admitted::Probe)
            }
        }
    }

    /// A call was answered.
    pub(super) fn succeeded(&mut self) -> Option<Change> {
        let failed = self.failures > 0;
        *self = Self::default();
        failed.then_some(Change::Recovered)
    }

    /// A call was not answered.
    pub(super) fn failed(&mut self, now: Instant, admitted: Admitted, why: &str) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        self.released(admitted);
        why.clone_into(&mut self.why);
        if self.failures < FAILURES {
            return (self.failures == 1).then_some(Change::Failing);
        }
        if self.until.is_some() && admitted != Admitted::Probe {
            // Of a call that was under way when it opened.
            return None;
        }
        let [first, longest] = OPEN;
        let pause = first.saturating_mul(2u32.saturating_pow(self.opened));
        let pause = pause.min(longest);
        self.opened = self.opened.saturating_add(1);
        self.until = Some(now + pause);
        (self.opened == 1).then_some(Change::Opened(pause))
    }

    /// A call was given up before it was known how it ends.
    pub(super) fn released(&mut self, admitted: Admitted) {
        if admitted == Admitted::Probe {
            self.probing = false;
        }
    }

    /// Why it is not asked, where it is not.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.until.map(|_| self.why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        assert_eq!(
            breaker.failed(now, Admitted::Call, "refused"),
            Some(Change::Failing)
        );
        assert_eq!(breaker.failed(now, Admitted::Call, "refused"), None);
        assert!(breaker.admit(now).is_ok());
        assert_eq!(
            breaker.failed(now, Admitted::Call, "refused"),
            Some(Change::Opened(OPEN[0]))
        );
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_says_why() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now), Err((OPEN[0], "refused")));
        assert_eq!(breaker.trouble(), Some("refused"));
        let mut other = Breaker::default();
        for _ in 0..10 {
            other.failed(now, Admitted::Call, "refused");
            other.failed(now, Admitted::Call, "refused");
            assert_eq!(other.succeeded(), Some(Change::Recovered));
        }
        assert!(other.admit(now).is_ok());
    }

    #[test]
    fn one_probe_at_a_time_is_let_through_and_a_success_closes_it() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += OPEN[0];
        assert!(breaker.admit(now).is_ok());
        // Calls that were under way when it opened end as they end.
        breaker.released(Admitted::Call);
        assert_eq!(breaker.failed(now, Admitted::Call, "refused"), None);
        assert!(breaker.admit(now).is_err(), "a probe is under way");
        breaker.released(Admitted::Probe);
        assert_eq!(breaker.admit(now), Ok(Admitted::Probe));
        assert_eq!(breaker.succeeded(), Some(Change::Recovered));
        assert!(breaker.admit(now).is_ok() && breaker.admit(now).is_ok());
    }

    #[test]
    fn the_pause_grows_to_a_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = OPEN[0];
        for _ in 0..10 {
            now += pause;
            assert_eq!(breaker.admit(now), Ok(Admitted::Probe));
            let told = breaker.failed(now, Admitted::Probe, "refused");
            assert_eq!(told, None, "told once");
            pause = (pause * 2).min(OPEN[1]);
            assert_eq!(breaker.admit(now), Err((pause, "refused")));
        }
        assert_eq!(pause, OPEN[1]);
    }
}
