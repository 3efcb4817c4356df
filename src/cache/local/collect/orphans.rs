//! Blobs that the catalog has never heard of, or no longer has: what a crash or
//! a restored database left in the store.

use std::time::Duration;

use futures::TryStreamExt as _;
use serde::Serialize;

use super::sweep::{self, Swept};
use super::{TASK, phase, still_ours};
use crate::cache::CacheError;
use crate::cache::local::{LocalCache, bound};
use crate::digest::Digest;

/// Blobs that are looked up at a time.
const BATCH: usize = 1000;
/// How long a blob that was found in passing is left, since an older layerd
/// pins nothing.
const WAIT: Duration = Duration::from_secs(3600);

/// What was found, and what was removed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Orphans {
    /// Blobs that nothing names.
    pub found: Swept,
    /// Those of them that are gone.
    pub removed: Swept,
}

impl LocalCache {
    /// Looks at every blob of the store: what nothing names is a candidate in
    /// an hour. In a store that has nothing of what the catalog names, nothing
    /// is: most likely it is another's.
    pub async fn nominate_orphans(&self) -> Result<Orphans, CacheError> {
        self.orphans(false)
            .await?
            .ok_or_else(CacheError::collecting)
    }

    /// The same, and removes them at once; none where another process collects.
    pub async fn remove_orphans(&self) -> Result<Option<Orphans>, CacheError> {
        self.orphans(true).await
    }

    async fn orphans(&self, remove: bool) -> Result<Option<Orphans>, CacheError> {
        let opened = self.opener.opened_for_writing().await?;
        let Some(right) = opened.catalog.try_own(TASK).await? else {
            return Ok(None);
        };
        opened.bind().await?;
        opened.catalog.purge().await?;
        let mut orphans = Orphans::default();
        if !bound::has_any(&*opened.catalog, &*opened.blobs).await? {
            tracing::warn!(
                "the store has nothing of what the catalog names: what nothing names stays there"
            );
            return Ok(Some(orphans));
        }
        let mut listed = opened.blobs.list().await?.try_chunks(BATCH);
        while let Some(some) = listed.try_next().await.map_err(|error| error.1)? {
            still_ours(&right)?;
            let digests: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
            let unnamed = opened.catalog.nominate(&digests, WAIT).await?;
            let size = |digest| some.iter().find(|(listed, _)| listed == digest);
            let sizes = unnamed.iter().filter_map(size).map(|(_, size)| *size);
            orphans.found.add(sizes);
            phase("nominated");
            if remove {
                for some in unnamed.chunks(sweep::BATCH as usize) {
                    orphans.removed += sweep::remove(&opened, some).await?.0;
                }
            }
        }
        self.watch.metrics.freed(orphans.removed);
        Ok(Some(orphans))
    }
}
