//! Blobs that nothing names leave the store, a few at a time.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::{phase, still_ours};
use crate::cache::CacheError;
use crate::cache::local::open::Opened;
use crate::catalog::{CONDEMNED, Catalog, Ownership};
use crate::digest::Digest;

/// Blobs that are condemned at a time.
pub(super) const BATCH: u32 = 256;
/// And removed at a time.
const AT_ONCE: usize = 8;
/// Until when, of the time that they are condemned, a removal begins; and how
/// long one may take. The rest is for requests that arrive late.
const WINDOW: Duration = Duration::from_secs(10);
pub(in crate::cache) const REMOVAL: Duration = Duration::from_secs(5);
/// The longest pause between batches; it is as long as the batch took.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a blob is left that could not be removed.
const PUT_OFF: Duration = Duration::from_secs(600);
/// Batches of which nothing could be removed, one after the other, until the
/// store is left alone for now.
const FRUITLESS: u32 = 4;
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

/// Removes what is due. What could not be removed is put off, so that the others
/// have their turn, in this sweep and in later ones. Where nothing at all of
/// several batches can be removed, the next sweep goes on with the others.
pub(super) async fn sweep(opened: &Opened, right: &Ownership) -> Result<Swept, CacheError> {
    let (mut swept, mut fruitless) = (Swept::default(), 0);
    loop {
        still_ours(right)?;
        let began = Instant::now();
        let due = opened.catalog.candidates(BATCH).await?;
        if due.is_empty() {
            return Ok(swept);
        }
        let (some, whole) = remove(opened, &due).await?;
        swept += some;
        fruitless = match !whole && some.blobs == 0 {
            true => fruitless + 1,
            false => 0,
        };
        if fruitless == FRUITLESS {
            return Ok(swept);
        }
        sleep(began.elapsed().min(PAUSE)).await;
    }
}

/// What came of one removal.
enum Removal {
    /// It is gone, and had so many bytes, where it was there.
    Gone(Digest, Option<u64>),
    Failed(Digest),
    /// There was no time left for it.
    Untried,
}

/// Whether what was condemned then, by the catalog's clock, may still be removed:
/// that goes on while this machine sleeps.
pub(in crate::cache) async fn in_time(catalog: &dyn Catalog, condemned: Timestamp) -> bool {
    let now = catalog.now().await;
    now.is_ok_and(|now| {
        let since = Duration::try_from(now.duration_since(condemned));
        since.is_ok_and(|since| since <= WINDOW)
    })
}

/// Removes those that nothing names; whether all of them could be.
pub(super) async fn remove(opened: &Opened, blobs: &[Digest]) -> Result<(Swept, bool), CacheError> {
    let began = opened.catalog.now().await?;
    let condemned = opened.catalog.condemn(blobs, CONDEMNED).await?;
    if condemned.is_empty() {
        return Ok((Swept::default(), true));
    }
    phase("condemned");
    let all = condemned.len();
    let removals = condemned.into_iter().map(|digest| async move {
        let size = match opened.blobs.size(&digest).await {
            Ok(size) => size,
            Err(error) => {
                tracing::warn!(blob = %digest, %error, "a blob that nothing names could not be looked at");
                return Removal::Failed(digest);
            }
        };
        if !in_time(&*opened.catalog, began).await {
            return Removal::Untried;
        }
        match timeout(REMOVAL, opened.blobs.remove(&digest)).await {
            Ok(Ok(())) => {
                phase("removing");
                Removal::Gone(digest, size)
            }
            Ok(Err(error)) => {
                tracing::warn!(blob = %digest, %error, "a blob that nothing names could not be removed");
                Removal::Failed(digest)
            }
            Err(_) => {
                tracing::warn!(blob = %digest, "removing a blob that nothing names takes too long");
                Removal::Failed(digest)
            }
        }
    });
    let removals: Vec<Removal> = stream::iter(removals)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (mut gone, mut failed, mut swept) = (Vec::new(), Vec::new(), Swept::default());
    for removal in removals {
        match removal {
            Removal::Gone(digest, size) => {
                gone.push(digest);
                swept.add(size);
            }
            Removal::Failed(digest) => failed.push(digest),
            Removal::Untried => {}
        }
    }
    phase("removed");
    opened.catalog.acquit(&gone).await?;
    // Condemned all the same: it may yet be removed.
    if !failed.is_empty() {
        opened.catalog.postpone(&failed, PUT_OFF).await?;
    }
    phase("acquitted");
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
