//! The connections to an operator's door, of which there is a bounded number.
//!
//! Whoever only holds a connection open must not keep a health check waiting,
//! so idle ones go for new ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 256;

/// Everyone who is connected, the oldest first.
#[derive(Default)]
pub struct Crowd(Mutex<Vec<Arc<Member>>>);

/// One of the crowd, until it is dropped.
#[derive(Default)]
pub struct Member {
    /// Requests that are being answered.
    pub asked: AtomicUsize,
    /// It has to go.
    pub evicted: CancellationToken,
}

impl Crowd {
    /// Lets one more in, and where that is too many, sends the oldest idle one
    /// away; if none is idle, the oldest.
    pub fn enter(&self) -> Arc<Member> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The others hold their own; who is only here has left.
        crowd.retain(|member| Arc::strong_count(member) > 1);
        if crowd.len() >= MAX_CONNECTIONS {
            let idle = crowd
                .iter()
                .position(|member| member.asked.load(Ordering::Relaxed) == 0);
            crowd.remove(idle.unwrap_or(0)).evicted.cancel();
        }
        let member = Arc::new(Member::default());
        crowd.push(member.clone());
        member
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_is_bounded_and_who_is_being_answered_stays() {
        let crowd = Crowd::default();
        let asking = crowd.enter();
        asking.asked.fetch_add(1, Ordering::Relaxed);
        let others: Vec<_> = (0..10 * MAX_CONNECTIONS).map(|_| crowd.enter()).collect();
        assert!(!asking.evicted.is_cancelled());
        let staying = others
            .iter()
            .filter(|member| !member.evicted.is_cancelled());
        assert_eq!(staying.count() + 1, MAX_CONNECTIONS);
        assert!(!others.last().unwrap().evicted.is_cancelled());
        drop(others);
        let _late = crowd.enter();
        assert_eq!(crowd.0.lock().unwrap().len(), 2);
    }
}
