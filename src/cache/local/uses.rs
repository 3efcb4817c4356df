//! What was of use to builds, noted in the catalog now and then: readers that
//! never export keep what they read, too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::LocalCache;
use crate::access::RefPattern;
use crate::cache::CacheError;
use crate::catalog::{Saving, Uses};
use crate::digest::Digest;

/// How long what was noted of a blob is not noted again.
const HOUR: Duration = Duration::from_secs(3600);
/// Blobs that are remembered or wait to be noted; of more, none is.
const MAX_BLOBS: usize = 100_000;
/// Refs that wait to be noted.
const MAX_REFS: usize = 10_000;

/// What was of use and is not noted yet.
#[derive(Debug, Default)]
pub(super) struct Used(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    uses: Uses,
    noted: HashMap<Digest, Instant>,
}

impl Used {
    /// A blob was read.
    pub(super) fn read(&self, digest: &Digest) {
        let mut waiting = self.waiting();
        let lately = waiting.noted.get(digest);
        if lately.is_none_or(|noted| noted.elapsed() >= HOUR)
            && waiting.uses.blobs.len() < MAX_BLOBS
        {
            waiting.uses.blobs.insert(*digest);
        }
    }

    /// A build had hits. What of it is not known: most likely of its own ref, or
    /// of a default branch, which are those that match `keep`.
    pub(super) fn hit(&self, saving: &Saving, keep: &[RefPattern]) {
        if saving.cached == 0 {
            return;
        }
        let refs = keep.iter().filter_map(|pattern| pattern.exact());
        let mut waiting = self.waiting();
        for git_ref in refs.chain([saving.git_ref.clone()]) {
            if waiting.uses.refs.len() < MAX_REFS {
                let place = (saving.project.clone(), git_ref);
                waiting.uses.refs.insert(place);
            }
        }
    }

    fn take(&self) -> Uses {
        let mut waiting = self.waiting();
        let uses = std::mem::take(&mut waiting.uses);
        if waiting.noted.len() + uses.blobs.len() > MAX_BLOBS {
            waiting.noted.retain(|_, noted| noted.elapsed() < HOUR);
        }
        if waiting.noted.len() + uses.blobs.len() <= MAX_BLOBS {
            let now = Instant::now();
            let blobs = uses.blobs.iter();
            waiting.noted.extend(blobs.map(|digest| (*digest, now)));
        }
        uses
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalCache {
    /// Notes what was of use since the last call. What can't be noted now is
    /// not noted.
    pub async fn note_uses(&self) -> Result<(), CacheError> {
        let uses = self.used.take();
        if uses.is_empty() {
            return Ok(());
        }
        self.ready().await?;
        let opened = self.opener.opened().await?;
        if opened.catalog.refusal().is_some() {
            return Ok(());
        }
        Ok(opened.catalog.note_use(&uses, Timestamp::now()).await?)
    }
}
