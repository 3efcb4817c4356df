//! Whose the pins of uploads are, until exports name them.
//!
//! Several exports of a process may have uploaded the same blob, of one project
//! or of several: what one of them lets go of is kept for the others. A pin that
//! is let go of while the blob is uploaded anew is never that upload's, since
//! that has another holder.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::catalog::PinHolder;
use crate::digest::Digest;
use crate::place::ProjectId;

/// Blobs that are remembered; the pins of others end by themselves.
const MAX_BLOBS: usize = 100_000;

/// The uploads of one process that wait for their exports.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Holds what is uploaded from now on.
    holder: PinHolder,
    waiting: HashMap<Digest, Waiting>,
}

/// A blob that is pinned by `holder`, and how many uploads of it wait, by
/// project.
#[derive(Debug)]
struct Waiting {
    holder: PinHolder,
    uploads: BTreeMap<ProjectId, usize>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            holder: PinHolder::random(),
            waiting: HashMap::new(),
        }
    }
}

impl Uploads {
    /// One of that blob begins to wait; gives who is to pin it.
    pub(super) fn begin(&self, project: &ProjectId, digest: Digest) -> PinHolder {
        let mut state = self.state();
        if state.waiting.len() >= MAX_BLOBS && !state.waiting.contains_key(&digest) {
            *state = State::default();
        }
        let holder = state.holder;
        let waiting = state.waiting.entry(digest).or_insert_with(|| Waiting {
            holder,
            uploads: BTreeMap::new(),
        });
        *waiting.uploads.entry(project.clone()).or_default() += 1;
        waiting.holder
    }

    /// One upload of each of those blobs waits no more, as far as the project
    /// has any; gives what nobody waits for by now, by who pinned it.
    pub(super) fn end(
        &self,
        project: &ProjectId,
        blobs: &[Digest],
    ) -> Vec<(PinHolder, Vec<Digest>)> {
        let mut state = self.state();
        let mut free: HashMap<PinHolder, Vec<Digest>> = HashMap::new();
        for digest in blobs {
            let Some(waiting) = state.waiting.get_mut(digest) else {
                continue;
            };
            if let Some(count) = waiting.uploads.get_mut(project) {
                *count -= 1;
                if *count == 0 {
                    waiting.uploads.remove(project);
                }
            }
            if waiting.uploads.is_empty() {
                free.entry(waiting.holder).or_default().push(*digest);
                state.waiting.remove(digest);
            }
        }
        if !free.is_empty() {
            state.holder = PinHolder::random();
        }
        free.into_iter().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_export_lets_go_of_is_kept_for_the_others() {
        let uploads = Uploads::default();
        let [p, q]: [ProjectId; 2] = ["p", "q"].map(|name| name.parse().unwrap());
        let [a, b] = [b"a", b"b"].map(|content| Digest::of(content));
        let holder = uploads.begin(&p, a);
        for project in [&p, &q] {
            assert_eq!(uploads.begin(project, a), holder, "one pin for all");
        }
        assert_eq!(uploads.begin(&p, b), holder);
        assert_eq!(uploads.end(&p, &[a, b]), [(holder, vec![b])]);
        assert_eq!(uploads.end(&q, &[a, b]), []);
        let other = uploads.begin(&p, b);
        assert_ne!(other, holder, "letting go may still be under way");
        assert_eq!(uploads.end(&p, &[a]), [(holder, vec![a])]);
        assert_eq!(uploads.end(&p, &[a, b]), [(other, vec![b])]);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let uploads = Uploads::default();
        let project: ProjectId = "p".parse().unwrap();
        for number in 0..=MAX_BLOBS {
            uploads.begin(&project, Digest::of(&number.to_be_bytes()));
        }
        assert_eq!(uploads.state().waiting.len(), 1);
    }
}
