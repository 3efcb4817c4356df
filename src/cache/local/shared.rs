//! What a [`Guard`](crate::cache::guard::Guard) asks of the engine on behalf of
//! clients that are elsewhere: who holds a blob, and leases that are kept by
//! their number.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::LocalCache;
use crate::access::RefPattern;
use crate::blobs::Location;
use crate::cache::{Cache as _, CacheError};
use crate::catalog::{Catalog, CatalogError, LeaseId};
use crate::digest::{Digest, Hasher, RecordDigest};
use crate::place::{GitRef, Place, ProjectId};
use crate::step::Step;

/// How long a lease lasts that nobody renews.
const TTL: Duration = Duration::from_secs(180);
/// How long one is given to more clients. Each has the rest of [`TTL`] to renew
/// it for the first time.
const YOUNG: Duration = Duration::from_secs(30);
/// How long taking one may hold a look-up up.
const LIMIT: Duration = Duration::from_millis(500);
/// The smallest blob that is worth a way of its own, in bytes.
const LOCATED: u64 = 1 << 20;
/// Blobs that are hashed at a time because somebody found them wrong.
const DOUBTED: usize = 2;
static DOUBTING: Semaphore = Semaphore::const_new(DOUBTED);

/// Leases that are counted.
const MAX_COUNTED: usize = 100_000;

/// The leases that were handed out here.
#[derive(Debug, Default)]
pub(super) struct HandedOut(Mutex<Handed>);

#[derive(Debug, Default)]
struct Handed {
    /// For each project the one that was taken last, when, and by which number
    /// its clients know it.
    latest: HashMap<Option<ProjectId>, (Instant, LeaseId)>,
    /// When each was taken, or last renewed here.
    renewed: HashMap<LeaseId, Instant>,
}

impl Handed {
    fn note(&mut self, lease: LeaseId) {
        let now = Instant::now();
        self.renewed
            .retain(|_, at| now.saturating_duration_since(*at) < TTL);
        if self.renewed.len() < MAX_COUNTED {
            self.renewed.insert(lease, now);
        }
    }
}

impl LocalCache {
    /// The sizes in bytes of those blobs that the project may name, and that
    /// are there.
    pub async fn held(
        &self,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<Option<u64>>, CacheError> {
        let opened = self.opener.opened().await?;
        let held = opened.catalog.held(project, digests).await?;
        let found = opened.blobs.sizes(&held).await?;
        let sizes: HashMap<Digest, Option<u64>> = held.into_iter().zip(found).collect();
        let size = |digest| sizes.get(digest).copied().flatten();
        Ok(digests.iter().map(size).collect())
    }

    /// Those of the blobs that an export of the project names, or that were
    /// uploaded for one; of refs that `readable` matches, where that is given.
    pub async fn visible(
        &self,
        project: &ProjectId,
        readable: Option<&[RefPattern]>,
        digests: &[Digest],
    ) -> Result<HashSet<Digest>, CacheError> {
        let catalog = &self.opener.opened().await?.catalog;
        let visible = match readable {
            None => catalog.held(project, digests).await?,
            Some(readable) => {
                let refs = matching(catalog.as_ref(), project, readable).await?;
                catalog.visible(project, &refs, digests).await?
            }
        };
        Ok(visible.into_iter().collect())
    }

    /// The steps that made those results, as far as exports of such refs have
    /// kept them.
    pub async fn steps_of(
        &self,
        project: &ProjectId,
        readable: Option<&[RefPattern]>,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError> {
        let opened = self.opener.opened().await?;
        Ok(kept_steps(opened.catalog.as_ref(), project, readable, results).await?)
    }

    /// A blob was uploaded for an export to `place`, which may name it for so
    /// long.
    pub async fn possess(
        &self,
        place: &Place,
        digest: Digest,
        size: u64,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        place.check_new()?;
        let opened = self.opener.opened_for_writing().await?;
        let blobs = [(digest, size)];
        let possessed = opened
            .catalog
            .possess(&place.project, &place.git_ref, &blobs, ttl);
        Ok(possessed.await?)
    }

    /// Where a blob can be read without this process, if it is large.
    pub async fn locate(
        &self,
        digest: &Digest,
        ttl: Duration,
    ) -> Result<Option<Location>, CacheError> {
        let size = self.blobs.sizes(&[*digest]).await?.pop().flatten();
        if size.is_none_or(|size| size < LOCATED) {
            return Ok(None);
        }
        Ok(self.blobs.locate(digest, ttl).await?)
    }

    /// Hashes a blob that somebody found wrong, whatever is believed of it;
    /// true where it is withdrawn. Few are looked at a time, and the others are
    /// left to those who ask again.
    pub async fn doubt(&self, digest: &Digest) -> Result<bool, CacheError> {
        let Ok(_turn) = DOUBTING.try_acquire() else {
            return Ok(false);
        };
        self.verified.forget(digest);
        match self.verify(digest).await {
            Ok(()) => Ok(false),
            Err(error) if error.is_final() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A lease that clients of that project keep by its number, or none where
    /// the catalog gives none now: then nothing is taken out of the log either,
    /// or by somebody who can't know.
    pub async fn hand_out_lease(&self, project: Option<&ProjectId>) -> Option<LeaseId> {
        let project = project.cloned();
        let latest = self.handed().latest.get(&project).copied();
        if let Some((_, number)) = latest.filter(|(taken, _)| taken.elapsed() < YOUNG) {
            return Some(number);
        }
        let number = LeaseId::random();
        let lease = kept_as(project.as_ref(), number);
        let taken = tokio::time::timeout(LIMIT, async {
            let opened = self.opener.opened_for_writing().await?;
            Ok::<_, CacheError>(opened.catalog.take_lease_as(lease, TTL).await?)
        });
        match taken.await {
            Ok(Ok(())) => {
                let mut handed = self.handed();
                handed
                    .latest
                    .retain(|_, (taken, _)| taken.elapsed() < YOUNG);
                handed.latest.insert(project, (Instant::now(), number));
                handed.note(lease);
                Some(number)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "no lease could be taken");
                None
            }
            Err(_) => {
                tracing::warn!("the catalog gave no lease in time");
                None
            }
        }
    }

    /// Has such a lease last from now on; false where it has ended, or no client
    /// of that project was given that number.
    pub async fn renew_lease(
        &self,
        project: Option<&ProjectId>,
        number: LeaseId,
    ) -> Result<bool, CacheError> {
        let lease = kept_as(project, number);
        let opened = self.opener.opened().await?;
        let renewed = opened.catalog.renew_lease(lease, TTL).await?;
        if renewed {
            self.handed().note(lease);
        }
        Ok(renewed)
    }

    /// How many of them last, as far as this process knows.
    pub fn leases_handed_out(&self) -> usize {
        let (handed, now) = (self.handed(), Instant::now());
        let lasts = |at: &&Instant| now.saturating_duration_since(**at) < TTL;
        handed.renewed.values().filter(lasts).count()
    }

    fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The steps of results that exports have kept; of refs that `readable` matches,
/// where that is given.
pub(super) async fn kept_steps(
    catalog: &dyn Catalog,
    project: &ProjectId,
    readable: Option<&[RefPattern]>,
    results: &[(RecordDigest, Timestamp)],
) -> Result<Vec<Step>, CatalogError> {
    match readable {
        None => catalog.steps(project, None, results).await,
        Some(readable) => {
            let refs = matching(catalog, project, readable).await?;
            catalog.steps(project, Some(&refs), results).await
        }
    }
}

/// The refs of the project that one of these matches; the catalog is asked for
/// them only where they can't be told from the patterns.
async fn matching(
    catalog: &dyn Catalog,
    project: &ProjectId,
    patterns: &[RefPattern],
) -> Result<Vec<GitRef>, CatalogError> {
    if let Some(exact) = patterns.iter().map(RefPattern::exact).collect() {
        return Ok(exact);
    }
    let mut refs = catalog.holding_refs(project).await?;
    refs.retain(|git_ref| patterns.iter().any(|pattern| pattern.matches(git_ref)));
    Ok(refs)
}

/// How the catalog knows the lease that clients of a project know by `number`:
/// a number that only that project's clients come to, so that nobody else's
/// number means anything to them.
fn kept_as(project: Option<&ProjectId>, number: LeaseId) -> LeaseId {
    let mut hasher = Hasher::default();
    hasher.update(&number.0.to_be_bytes());
    hasher.update(project.map_or(b"*".as_slice(), |project| project.as_str().as_bytes()));
    let digest = hasher.finish();
    let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    LeaseId((i64::from_be_bytes(first) & i64::MAX).max(1))
}
