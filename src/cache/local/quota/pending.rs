//! Uploads that no export names yet: they count against the quota of their
//! project, for an hour.
//!
//! Every piece of every upload is held against the sum, which is one number
//! that is kept up to date. Uploads end in the order in which they were noted.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::digest::Digest;
use crate::moment::Moment;

/// How long an upload counts that no export names.
const PENDING: Duration = Duration::from_secs(3600);
/// Uploads that are remembered of a project; beyond that the oldest count no
/// more.
const MAX_UPLOADS: usize = 100_000;

/// How often what is there counts no more since one was refused beside it.
const FORGIVEN: Duration = Duration::from_secs(300);

/// The uploads of one ref of a project.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Of all of them; written where the lock is held.
    bytes: AtomicU64,
    uploads: Mutex<Uploads>,
}

#[derive(Debug, Default)]
struct Uploads {
    sizes: HashMap<Digest, (u64, Moment)>,
    /// Oldest first; one that was noted again stands there twice.
    order: VecDeque<(Moment, Digest)>,
    forgiven: Option<Moment>,
}

impl Pending {
    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes one.
    pub(super) fn add(&self, digest: Digest, size: u64, now: Moment) {
        let mut uploads = self.uploads();
        self.take(&mut uploads, &digest);
        uploads.sizes.insert(digest, (size, now));
        uploads.order.push_back((now, digest));
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.expire_of(&mut uploads, now);
    }

    /// An export names these.
    pub(super) fn named<'a>(&self, blobs: impl IntoIterator<Item = &'a Digest>) {
        let mut uploads = self.uploads();
        for digest in blobs {
            self.take(&mut uploads, digest);
        }
    }

    /// One more was refused: what came for the same export is of no use any
    /// more, and a smaller one may come next. Now and then, that is: who never
    /// exports would fill the store.
    pub(super) fn forgive(&self, now: Moment) {
        let mut uploads = self.uploads();
        if uploads.forgiven.is_none_or(|at| at + FORGIVEN <= now) {
            uploads.forgiven = Some(now);
            uploads.sizes.clear();
            uploads.order.clear();
            self.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&self, now: Moment) {
        self.expire_of(&mut self.uploads(), now);
    }

    fn expire_of(&self, uploads: &mut Uploads, now: Moment) {
        let end = now - PENDING;
        while let Some((since, digest)) = uploads.order.front().copied()
            && (since <= end || uploads.order.len() > MAX_UPLOADS)
        {
            uploads.order.pop_front();
            let latest = uploads.sizes.get(&digest).map(|(_, since)| *since);
            if latest == Some(since) {
                self.take(uploads, &digest);
            }
        }
    }

    fn take(&self, uploads: &mut Uploads, digest: &Digest) {
        if let Some((size, _)) = uploads.sizes.remove(digest) {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(number: usize) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn an_upload_counts_once_until_it_is_named_or_an_hour_is_over() {
        let (pending, now) = (Pending::default(), Moment::now());
        pending.add(blob(1), 10, now - PENDING);
        pending.expire(now);
        assert_eq!(pending.bytes(), 0, "its time is over");
        pending.add(blob(1), 10, now - PENDING / 2);
        pending.add(blob(2), 7, now);
        pending.add(blob(1), 11, now);
        assert_eq!(pending.bytes(), 18);
        pending.expire(now + PENDING / 2);
        assert_eq!(pending.bytes(), 18, "it was uploaded again");
        pending.named([&blob(1), &blob(3)]);
        assert_eq!(pending.bytes(), 7);
        pending.expire(now + PENDING);
        assert_eq!(pending.bytes(), 0);
        assert!(pending.uploads().order.is_empty());
    }

    #[test]
    fn what_was_refused_once_stands_in_nobodys_way_for_an_hour() {
        let (pending, now) = (Pending::default(), Moment::now());
        pending.add(blob(1), 10, now);
        pending.forgive(now);
        assert_eq!(pending.bytes(), 0);
        pending.add(blob(2), 7, now);
        pending.forgive(now + FORGIVEN / 2);
        assert_eq!(pending.bytes(), 7, "not at once again");
        pending.forgive(now + FORGIVEN);
        assert_eq!(pending.bytes(), 0);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (pending, now) = (Pending::default(), Moment::now());
        for number in 0..MAX_UPLOADS + 5 {
            pending.add(blob(number), 1, now);
        }
        assert_eq!(pending.bytes(), MAX_UPLOADS as u64);
        assert_eq!(pending.uploads().order.len(), MAX_UPLOADS);
    }
}
