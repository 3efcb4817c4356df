//! What was of use to builds, noted in the catalog now and then: readers that
//! never export keep what they read, too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::LocalCache;
use crate::access::RefPattern;
use crate::cache::CacheError;
use crate::catalog::{Saving, Uses};
use crate::digest::Digest;
use crate::place::ProjectId;

/// How long what was noted of a blob is not noted again.
const HOUR: Duration = Duration::from_secs(3600);
/// Blobs that are remembered or wait to be noted; of more, none is.
const MAX_BLOBS: usize = 100_000;
/// Refs that wait to be noted.
const MAX_REFS: usize = 10_000;

/// What was of use and is not noted yet.
#[derive(Debug, Default)]
pub(super) struct Used {
    waiting: Mutex<Waiting>,
    /// Whoever reads for a project says so.
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    uses: Uses,
    /// Blobs in those.
    blobs: usize,
    noted: HashMap<(Option<ProjectId>, Digest), Instant>,
}

impl Used {
    /// A blob was read, who knows for which project.
    pub(super) fn read(&self, digest: &Digest) {
        if !self.told.load(Ordering::Relaxed) {
            self.read_for(None, digest);
        }
    }

    fn read_for(&self, project: Option<&ProjectId>, digest: &Digest) {
        let mut waiting = self.waiting();
        let of = (project.cloned(), *digest);
        let lately = waiting.noted.get(&of);
        if lately.is_none_or(|noted| noted.elapsed() >= HOUR) && waiting.blobs < MAX_BLOBS {
            let blobs = waiting.uses.blobs.entry(of.0).or_default();
            let new = blobs.insert(*digest);
            waiting.blobs += usize::from(new);
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
        let blobs = std::mem::take(&mut waiting.blobs);
        if waiting.noted.len() + blobs > MAX_BLOBS {
            waiting.noted.retain(|_, noted| noted.elapsed() < HOUR);
        }
        if waiting.noted.len() + blobs <= MAX_BLOBS {
            let now = Instant::now();
            for (project, blobs) in &uses.blobs {
                let blobs = blobs.iter().map(|digest| (project.clone(), *digest));
                waiting.noted.extend(blobs.map(|of| (of, now)));
            }
        }
        uses
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalCache {
    /// Whoever reads for a project says so from now on, with
    /// [`read_for`](Self::read_for): what is read besides is no use of anybody.
    pub fn is_told_of_reads(&self) {
        self.used.told.store(true, Ordering::Relaxed);
    }

    /// A blob is read for that project.
    pub fn read_for(&self, project: &ProjectId, digest: &Digest) {
        self.used.read_for(Some(project), digest);
    }

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
        let now = opened.catalog.now().await?;
        Ok(opened.catalog.note_use(&uses, now).await?)
    }
}
