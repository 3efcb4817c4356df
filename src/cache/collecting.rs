//! Collection in the background of a process that serves builds.

mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::metrics::{Eviction, Metrics};
use super::retention::Limits;
use super::{CacheError, Collected, LocalCache};

/// How often it is collected though nothing was published here.
const EVERY: Duration = Duration::from_secs(300);
/// How long after an export it is not collected again, at least.
const REST: Duration = Duration::from_secs(10);
/// The same, in lengths of the last collection.
const REST_SHARE: u32 = 20;
/// How often reads are noted.
const NOTED: Duration = Duration::from_secs(60);
/// How often the whole store is looked at.
const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// What is collected, and by which limits.
#[derive(Clone)]
pub struct Collecting {
    /// The cache.
    pub cache: Arc<LocalCache>,
    /// What may be kept of it.
    pub limits: Limits,
}

impl Collecting {
    /// Collects, for ever: now, when something was published here, and every
    /// few minutes.
    pub async fn collect(&self) {
        let grown = self.cache.grown();
        let mut looked: Option<Instant> = None;
        loop {
            let began = Instant::now();
            match self.collect_once().await {
                Ok(Some(collected)) if collected.swept.blobs > 0 => {
                    let swept = collected.swept;
                    tracing::info!(
                        blobs = swept.blobs,
                        bytes = swept.bytes,
                        "blobs that nothing names are gone"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what is to go could not be collected"),
            }
            tokio::time::sleep(REST.max(began.elapsed() * REST_SHARE)).await;
            // The first look waits a day, too: a process that is new has left
            // nothing yet.
            let last = *looked.get_or_insert(began);
            if last.elapsed() >= WHOLE {
                looked = Some(Instant::now());
                match self.cache.nominate_orphans().await {
                    Ok(orphans) => tracing::info!(?orphans, "the whole store was looked at"),
                    Err(error) => tracing::warn!(%error, "the store was not looked at"),
                }
            }
            // Whether it grew or the time is over, it is looked again.
            let _ = tokio::time::timeout(EVERY, grown.notified()).await;
        }
    }

    /// A data directory that is lost is not made anew.
    async fn collect_once(&self) -> Result<Option<Collected>, CacheError> {
        self.cache.ready().await?;
        self.cache.collect(&self.limits).await
    }

    /// Notes what builds read, for ever.
    pub async fn note_uses(&self) {
        loop {
            tokio::time::sleep(NOTED).await;
            if let Err(error) = self.cache.note_uses().await {
                tracing::debug!(%error, "what was read lately is not noted");
            }
        }
    }
}
