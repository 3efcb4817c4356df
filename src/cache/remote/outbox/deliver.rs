//! Brings waiting exports to the hub, one after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokio::time::Instant;

use super::super::upload::{self, Subject};
use super::super::{holding, publish};
use super::{Inner, Waiting};
use crate::cache::CacheError;
use crate::place::Place;

/// Blobs that are uploaded at a time.
const PARALLEL: usize = 4;
/// How long one upload may fail before its export waits for another turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause of a place after its first failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// How often it is looked whether another process has left something.
const ADOPTION: Duration = Duration::from_secs(30);
/// For how long a refusal is taken for one that may pass: a token may be
/// renewed.
const REFUSED: Duration = Duration::from_secs(24 * 3600);

/// When a place is tried again.
struct Pause {
    until: Instant,
    next: Duration,
}

/// Runs until it is dropped.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut pauses: HashMap<Place, Pause> = HashMap::new();
    let mut count = inner.count.subscribe();
    let mut adoption = tokio::time::interval(ADOPTION);
    adoption.tick().await;
    loop {
        count.mark_unchanged();
        let Some(waiting) = next(&inner, &pauses) else {
            let wake = pauses.values().map(|pause| pause.until).min();
            let wake = async {
                match wake {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = count.changed() => {}
                () = wake => {}
                _ = adoption.tick() => inner.adopt().await,
            }
            continue;
        };
        let place = waiting.entry.export.place.clone();
        match deliver(&inner, &waiting).await {
            Ok(()) => {
                pauses.remove(&place);
                tracing::info!(%place, "an export has reached the hub");
                finish(&inner, &waiting).await;
            }
            Err(error) => {
                inner.metrics.outbox_failed();
                if is_hopeless(&error, &waiting) {
                    tracing::error!(%place, %error, "an export is given up");
                    finish(&inner, &waiting).await;
                    pauses.remove(&place);
                    continue;
                }
                let [first, longest] = PAUSES;
                let pause = pauses.get(&place).map_or(first, |pause| pause.next);
                if pause == first {
                    tracing::warn!(%place, %error, "an export waits for the hub");
                }
                let until = Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
                let next = (pause * 2).min(longest);
                pauses.insert(place, Pause { until, next });
            }
        }
    }
}

/// The oldest export of a place that is not paused, none of whose place comes
/// before it.
fn next(inner: &Inner, pauses: &HashMap<Place, Pause>) -> Option<Arc<Waiting>> {
    let now = Instant::now();
    let waiting = inner.waiting();
    let mut turns = waiting.values().filter(|waiting| {
        let pause = pauses.get(&waiting.entry.export.place);
        pause.is_none_or(|pause| pause.until <= now)
    });
    turns.next().cloned()
}

async fn deliver(inner: &Inner, waiting: &Waiting) -> Result<(), CacheError> {
    let (entry, caller) = (&waiting.entry, &waiting.caller);
    let place = &entry.export.place;
    let missing = holding::missing(caller, place, &entry.blobs).await?;
    let uploads = missing.into_iter().filter_map(|digest| {
        // Others were held when the build was told so.
        let size = *entry.blobs.get(&digest)?;
        entry
            .export
            .uploaded
            .contains(&digest)
            .then_some((digest, size))
    });
    stream::iter(uploads)
        .map(|(digest, size)| async move {
            let subject = Subject {
                place: place.clone(),
                name: digest.to_string(),
                digest: Some(digest),
            };
            let disk = inner.near.tier.disk();
            upload::from_disk(caller, disk, &subject, (&digest, size), PATIENCE).await
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    publish::publish(caller, &entry.export, Duration::ZERO)
        .await
        .map(drop)
}

async fn finish(inner: &Inner, waiting: &Waiting) {
    if let Err(error) = inner.shelf.remove(&waiting.entry).await {
        tracing::warn!(%error, "an export that is done stays in the outbox");
    }
    inner.drop_out(&waiting.entry.name);
}

/// Whether no later attempt would be another.
fn is_hopeless(error: &CacheError, waiting: &Waiting) -> bool {
    match error {
        CacheError::Graph(_) | CacheError::Refused(_) => true,
        CacheError::Denied(_) | CacheError::Missing(_) => {
            let age = Timestamp::now().duration_since(waiting.entry.written_at);
            Duration::try_from(age).unwrap_or_default() > REFUSED
        }
        error => error.is_final(),
    }
}
