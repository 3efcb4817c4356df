//! Whose turn it is: exports of a place go in their order, those of different
//! places at the same time, and one that has to wait holds up its place alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::HubAddress;
use super::Waiting;
use crate::place::Place;

/// Exports that go to the hub of this host at a time.
const AT_ONCE: usize = 4;
/// Those that go to all others together: a build can name one that is slow on
/// purpose.
const ELSEWHERE: usize = 2;
/// The pause of a lane after its first failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];

/// What is kept in order: a place of a hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) hub: BTreeSet<HubAddress>,
    pub(super) place: Place,
}

/// The lanes that can't take the next turn.
#[derive(Default)]
pub(super) struct Lanes {
    /// Whether each goes to the hub of this host.
    busy: HashMap<Lane, bool>,
    pauses: HashMap<Lane, Pause>,
}

/// When a lane is tried again.
struct Pause {
    until: Instant,
    next: Duration,
}

impl Lanes {
    /// Takes the oldest export whose turn it is, none of whose lane comes before
    /// it.
    pub(super) fn take(
        &mut self,
        waiting: &BTreeMap<String, Arc<Waiting>>,
    ) -> Option<Arc<Waiting>> {
        let now = Instant::now();
        let own = self.busy.values().filter(|is_own| **is_own).count();
        let elsewhere = self.busy.len() - own;
        let next = waiting.values().find(|waiting| {
            let lane = &waiting.entry.lane;
            let room = match waiting.destination.is_own {
                true => own < AT_ONCE,
                false => elsewhere < ELSEWHERE,
            };
            let pause = self.pauses.get(lane);
            room && !self.busy.contains_key(lane) && pause.is_none_or(|pause| pause.until <= now)
        })?;
        let lane = next.entry.lane.clone();
        self.busy.insert(lane, next.destination.is_own);
        Some(Arc::clone(next))
    }

    /// Whether an export of the lane is on its way.
    pub(super) fn is_busy(&self, lane: &Lane) -> bool {
        self.busy.contains_key(lane)
    }

    /// The next of the lane may go.
    pub(super) fn done(&mut self, lane: &Lane) {
        self.busy.remove(lane);
        self.pauses.remove(lane);
    }

    /// The same is tried again later. Gives whether it is the first failure in
    /// a row.
    pub(super) fn pause(&mut self, lane: &Lane) -> bool {
        let [first, longest] = PAUSES;
        self.busy.remove(lane);
        let before = self.pauses.get(lane).map(|pause| pause.next);
        let pause = before.unwrap_or(first);
        let until = Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
        let next = (pause * 2).min(longest);
        self.pauses.insert(lane.clone(), Pause { until, next });
        before.is_none()
    }

    /// Forgets the pauses of lanes in which nothing waits.
    pub(super) fn forget(&mut self, waiting: &BTreeMap<String, Arc<Waiting>>) {
        let lanes: HashSet<&Lane> = waiting.values().map(|one| &one.entry.lane).collect();
        self.pauses.retain(|lane, _| lanes.contains(lane));
    }

    /// Ends with the first pause that does.
    pub(super) async fn rested(&self) {
        let now = Instant::now();
        let pauses = self.pauses.values().map(|pause| pause.until);
        // One that is over waits for room, not for time.
        match pauses.filter(|until| *until > now).min() {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}
