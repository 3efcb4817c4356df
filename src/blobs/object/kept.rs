//! Uploads without a writer: those that wait to be resumed, and those that the
//! bucket has yet to be told to forget.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::ObjectOptions;
use super::bucket::Bucket;
use super::parts::Parts;
use super::upload::Upload;
use crate::digest::Digest;

/// How often it is looked for uploads that nobody came back for.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The uploads of this process, by the hash of their name.
pub(super) struct Kept {
    state: Mutex<State>,
    condemned: Notify,
    /// Held while the bucket is told: who comes next finds all told.
    clearing: tokio::sync::Mutex<()>,
    resumable_for: Duration,
    resumable: usize,
}

#[derive(Default)]
struct State {
    /// Names that a writer has.
    taken: HashSet<Digest>,
    waiting: HashMap<Digest, (Upload, Instant)>,
    condemned: Vec<Parts>,
}

/// What a writer gets of a name.
pub(super) enum Claim {
    /// Another writer has it.
    Taken,
    /// It is the writer's, and so is what was left of it.
    Mine(Option<Box<Upload>>),
}

// An upload that is dropped condemns its parts, and that takes the lock: none
// may be dropped under it.
impl Kept {
    pub(super) fn new(options: &ObjectOptions) -> Self {
        Self {
            state: Mutex::default(),
            condemned: Notify::new(),
            clearing: tokio::sync::Mutex::default(),
            resumable_for: options.resumable_for,
            resumable: options.resumable,
        }
    }

    pub(super) fn claim(&self, name: Digest, expected: Option<Digest>) -> Claim {
        let left = {
            let mut state = self.state();
            if !state.taken.insert(name) {
                return Claim::Taken;
            }
            state.waiting.remove(&name)
        };
        let left = left.and_then(|(mut upload, _)| upload.resume(expected).then_some(upload));
        Claim::Mine(left.map(Box::new))
    }

    /// A writer has gone; what it leaves can be resumed.
    pub(super) fn release(&self, name: Digest, left: Upload) {
        let _dropped = {
            let mut state = self.state();
            state.taken.remove(&name);
            if left.is_worth_keeping() {
                state.waiting.insert(name, (left, Instant::now()));
                if state.waiting.len() > self.resumable {
                    let oldest = state.waiting.iter().min_by_key(|(_, (_, since))| *since);
                    let oldest = oldest.map(|(name, _)| *name);
                    oldest
                        .and_then(|name| state.waiting.remove(&name))
                        .map(|(upload, _)| upload)
                } else {
                    None
                }
            } else {
                Some(left)
            }
        };
    }

    /// Frees the memory of those that wait.
    pub(super) fn give_up_buffers(&self) {
        let _dropped: Vec<_> = {
            let mut state = self.state();
            let waiting = state
                .waiting
                .extract_if(|_, (upload, _)| !upload.give_up_buffer());
            waiting.collect()
        };
    }

    /// The bucket will be told to forget these.
    pub(super) fn condemn(&self, parts: Parts) {
        self.state().condemned.push(parts);
        self.condemned.notify_one();
    }

    /// Clears away what nobody came back for, for ever.
    pub(super) async fn clear_away(&self, bucket: &Bucket) {
        loop {
            // Whether something was condemned or the time is over, it is looked.
            let _ = tokio::time::timeout(LOOK_EVERY, self.condemned.notified()).await;
            self.clear(bucket, self.resumable_for).await;
        }
    }

    #[cfg(test)]
    pub(super) fn look_now(&self) {
        self.condemned.notify_one();
    }

    pub(super) async fn abort_all(&self, bucket: &Bucket) {
        self.clear(bucket, Duration::ZERO).await;
    }

    async fn clear(&self, bucket: &Bucket, age: Duration) {
        let _alone = self.clearing.lock().await;
        let forgotten: Vec<_> = {
            let mut state = self.state();
            let old = |_: &Digest, (_, since): &mut (Upload, Instant)| since.elapsed() >= age;
            state.waiting.extract_if(old).collect()
        };
        drop(forgotten);
        let condemned = std::mem::take(&mut self.state().condemned);
        for parts in condemned {
            parts.abort(bucket).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
