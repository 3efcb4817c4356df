//! Room for what is being uploaded.
//!
//! Blocks are stored before anything is named that has them, and longer than
//! that where nobody finishes it. So they count: against `--max-bytes` all of
//! them, with what exports name, and against the quota of their project those of
//! uploads that are alive, as other uploads do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::CacheError;
use crate::cache::entries::SCOPE;
use crate::cache::local::LocalCache;
use crate::cache::local::open::Opened;
use crate::cache::local::quota::Allowance;
use crate::catalog::entries::{Unfinished, Upload};
use crate::place::Place;
use crate::units::ByteSize;

/// How long it is believed how much there is.
const BELIEVED: Duration = Duration::from_secs(5);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Uploading {
    /// Bytes that there may be; no bound unless given.
    most: Option<u64>,
    known: tokio::sync::Mutex<Option<(Instant, Arc<[Unfinished]>)>>,
}

impl LocalCache {
    /// Takes uploads as long as those that nobody has finished have at most so
    /// many bytes.
    pub fn bounding_uploads(mut self, most: Option<u64>) -> Self {
        self.entries.uploading.most = most;
        self
    }

    /// What one more piece of an upload may have; no limit where there is no
    /// quota.
    pub(super) async fn room_for_piece(
        &self,
        opened: &Opened,
        upload: &Upload,
        length: Option<u64>,
    ) -> Result<Option<Allowance>, CacheError> {
        let place = Place {
            project: upload.project.clone(),
            git_ref: upload.git_ref.clone(),
            scope: SCOPE.parse().unwrap_or_default(),
        };
        let allowance = self.allowance(opened, &place).await?;
        let most = self.entries.uploading.most;
        if allowance.is_none() && most.is_none() {
            return Ok(None);
        }
        let unfinished = self.unfinished(opened).await?;
        let all: u64 = unfinished.iter().map(|of_ref| of_ref.bytes).sum();
        let needed = all.saturating_add(length.unwrap_or(0));
        if let Some(most) = most.filter(|most| needed > *most) {
            self.watch.metrics.refused();
            return Err(CacheError::Exhausted(format!(
                "what is being uploaded would need {}, and all that the hub keeps may have {}: \
                 try again when other uploads have ended",
                ByteSize(needed),
                ByteSize(most),
            )));
        }
        let own = unfinished
            .iter()
            .find(|of| of.project == place.project && of.git_ref == place.git_ref);
        let alive = own.map_or(0, |own| own.alive);
        Ok(allowance.map(|allowance| allowance.beside(alive)))
    }

    async fn unfinished(&self, opened: &Opened) -> Result<Arc<[Unfinished]>, CacheError> {
        let mut known = self.entries.uploading.known.lock().await;
        if let Some((at, unfinished)) = &*known
            && at.elapsed() < BELIEVED
        {
            return Ok(Arc::clone(unfinished));
        }
        let now = Instant::now();
        let unfinished: Arc<[Unfinished]> = opened.catalog.unfinished().await?.into();
        *known = Some((now, Arc::clone(&unfinished)));
        Ok(unfinished)
    }
}
