//! Whether a store takes an export, where it has not said so yet when the build
//! begins: a hub may be away for a moment, and the export comes at the end.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::cache::{Cache, CacheError};
use crate::place::Place;

type Answer = Result<(), Arc<CacheError>>;

/// The question; it is asked until this is dropped.
pub struct Asked {
    cache: Arc<dyn Cache>,
    answer: Shared<BoxFuture<'static, Answer>>,
    verdict: OnceCell<Result<(), Status>>,
}

impl Asked {
    /// Asks whether `cache` takes an export to `place`.
    pub fn of(cache: Arc<dyn Cache>, place: Place) -> Self {
        let asked = Arc::clone(&cache);
        let asking = tokio::spawn(async move { asked.writable(&place).await });
        let asking = AbortOnDropHandle::new(asking);
        let answer = async move {
            let cut_off = |stopped| CacheError::Unavailable(format!("it was cut off: {stopped}"));
            let answer = asking.await.map_err(cut_off);
            answer.and_then(|answer| answer).map_err(Arc::new)
        };
        Self {
            cache,
            answer: answer.boxed().shared(),
            verdict: OnceCell::new(),
        }
    }

    /// The answer, if it comes within `limit`.
    pub async fn within(&self, limit: Duration) -> Option<Answer> {
        let answer = tokio::time::timeout(limit, self.answer.clone());
        answer.await.ok()
    }

    /// The answer, or that none came within `limit`; `refuse` says once what
    /// comes of a bad one.
    pub(super) async fn settled(
        &self,
        limit: Duration,
        refuse: impl FnOnce(&CacheError) -> Status,
    ) -> Result<(), Status> {
        let verdict = self.verdict.get_or_init(|| async {
            match self.within(limit).await {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(refuse(&error)),
                None => Err(refuse(&self.late(limit))),
            }
        });
        verdict.await.clone()
    }

    fn late(&self, limit: Duration) -> CacheError {
        let after = format!("not within {} s after the build", limit.as_secs_f32());
        CacheError::Unavailable(match self.cache.trouble() {
            Some(trouble) => format!("{trouble}; {after}"),
            None => format!("the cache does not say whether it takes an export, {after}"),
        })
    }
}
