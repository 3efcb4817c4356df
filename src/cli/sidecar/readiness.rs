//! What makes a sidecar ready, and the one time that its data directory is
//! made: a disk that is lost later must not be taken for an empty cache.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::LocalCache;
use crate::cache::remote::Hub;
use crate::doors::buildkit::{Closing, Upstream};
use crate::doors::operator::Check;

/// How long the start waits for the data directory.
const PATIENCE: Duration = Duration::from_secs(2);

/// Creates or opens the data directory. Where that fails, builds run all the
/// same, and try again.
pub async fn begin(cache: &LocalCache) {
    match tokio::time::timeout(PATIENCE, cache.open()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(_) => tracing::warn!(
            "the data directory could not be opened within {} s",
            PATIENCE.as_secs()
        ),
    }
}

/// What has to work for a build to come through with its cache.
pub fn checks(
    upstream: &Upstream,
    cache: Option<&Arc<LocalCache>>,
    closing: &Closing,
) -> Vec<Check> {
    let (upstream, cache) = (upstream.clone(), cache.cloned());
    let drain = closing.drain.clone();
    let mut checks = vec![
        Check {
            what: "sidecar",
            look: Box::new(move || {
                let ends = drain.is_cancelled();
                let ready = if ends {
                    Err("it takes no more clients".to_owned())
                } else {
                    Ok(())
                };
                Box::pin(std::future::ready(ready))
            }),
        },
        Check {
            what: "buildkitd",
            look: Box::new(move || {
                let upstream = upstream.clone();
                Box::pin(async move {
                    let answered = upstream.reachable().await;
                    answered.map_err(|status| status.message().to_owned())
                })
            }),
        },
    ];
    checks.extend(cache.map(|cache| Check {
        what: "store",
        look: Box::new(move || {
            let cache = cache.clone();
            Box::pin(async move { cache.ready().await.map_err(|error| error.to_string()) })
        }),
    }));
    checks
}

/// What costs hits alone where it does not work.
pub fn notes(hub: Option<&Arc<Hub>>) -> Vec<Check> {
    let note = hub.cloned().map(|hub| Check {
        what: "builds run without their cache",
        look: Box::new(move || {
            let hub = hub.clone();
            Box::pin(async move { hub.reachable().await })
        }),
    });
    note.into_iter().collect()
}
