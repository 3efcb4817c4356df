//! Blobs that nothing names leave the store, a few at a time.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::{phase, still_ours};
use crate::cache::CacheError;
use crate::cache::local::open::Opened;
use crate::catalog::{CONDEMNED, Ownership};
use crate::digest::Digest;

/// Blobs that are condemned at a time.
pub(super) const BATCH: u32 = 256;
/// And removed at a time.
const AT_ONCE: usize = 8;
/// Until when, of the time that they are condemned, a removal begins; and how
/// long one may take. The rest is for requests that arrive late.
const WINDOW: Duration = Duration::from_secs(10);
const REMOVAL: Duration = Duration::from_secs(5);
/// The longest pause between batches; it is as long as the batch took.
const PAUSE: Duration = Duration::from_secs(1);
/// Candidates that are looked at to say what would go.
const SHOWN: u32 = 100_000;

/// Blobs, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// How many.
    pub blobs: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// What a sweep would remove now, or have a closer look at.
pub(super) async fn due(opened: &Opened) -> Result<Swept, CacheError> {
    let due = opened.catalog.candidates(SHOWN).await?;
    let mut sum = Swept::default();
    for some in due.chunks(BATCH as usize) {
        let sizes = opened.blobs.sizes(some).await?;
        sum.add(sizes.into_iter().flatten());
    }
    Ok(sum)
}

/// Removes what is due. What could not be removed is condemned for a while, and
/// so no candidate: the others have their turn. Where nothing at all can be
/// removed, the next sweep tries again.
pub(super) async fn sweep(opened: &Opened, right: &Ownership) -> Result<Swept, CacheError> {
    let mut swept = Swept::default();
    loop {
        still_ours(right)?;
        let began = Instant::now();
        let due = opened.catalog.candidates(BATCH).await?;
        if due.is_empty() {
            return Ok(swept);
        }
        let (some, whole) = remove(opened, &due).await?;
        swept += some;
        if !whole && some.blobs == 0 {
            return Ok(swept);
        }
        sleep(began.elapsed().min(PAUSE)).await;
    }
}

/// Removes those that nothing names; whether all of them could be.
pub(super) async fn remove(opened: &Opened, blobs: &[Digest]) -> Result<(Swept, bool), CacheError> {
    // Before the catalog is asked: its time counts.
    let began = Instant::now();
    let condemned = opened.catalog.condemn(blobs, CONDEMNED).await?;
    if condemned.is_empty() {
        return Ok((Swept::default(), true));
    }
    phase("condemned");
    let all = condemned.len();
    let removals = condemned.into_iter().map(|digest| async move {
        let size = opened.blobs.size(&digest).await.ok()?;
        if began.elapsed() > WINDOW {
            return None;
        }
        match timeout(REMOVAL, opened.blobs.remove(&digest)).await {
            Ok(Ok(())) => {
                phase("removing");
                Some((digest, size))
            }
            Ok(Err(error)) => {
                tracing::warn!(blob = %digest, %error, "a blob that nothing names could not be removed");
                None
            }
            Err(_) => {
                tracing::warn!(blob = %digest, "removing a blob that nothing names takes too long");
                None
            }
        }
    });
    let removed: Vec<Option<(Digest, Option<u64>)>> = stream::iter(removals)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let removed: Vec<_> = removed.into_iter().flatten().collect();
    phase("removed");
    let gone: Vec<Digest> = removed.iter().map(|(digest, _)| *digest).collect();
    opened.catalog.acquit(&gone).await?;
    phase("acquitted");
    let mut swept = Swept::default();
    swept.add(removed.iter().filter_map(|(_, size)| *size));
    Ok((swept, gone.len() == all))
}

impl AddAssign for Swept {
    fn add_assign(&mut self, more: Self) {
        self.blobs += more.blobs;
        self.bytes += more.bytes;
    }
}

impl Swept {
    pub(super) fn add(&mut self, sizes: impl IntoIterator<Item = u64>) {
        for size in sizes {
            self.blobs += 1;
            self.bytes += size;
        }
    }
}
