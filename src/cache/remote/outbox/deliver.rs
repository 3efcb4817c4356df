//! Brings waiting exports to their hubs, several at a time.
//!
//! What a hub refuses for good is put aside at once, with what it said; what
//! may pass is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use super::super::metrics::Ended;
use super::super::upload::{self, Subject};
use super::super::{holding, publish};
use super::lanes::Lanes;
use super::{Inner, Waiting};
use crate::blobs::BlobStore as _;
use crate::cache::CacheError;
use crate::digest::Digest;

/// Blobs that are uploaded at a time for one export.
const PARALLEL: usize = 4;
/// How long one upload may fail before its export waits for another turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often what a hub misses is sent in one turn.
const ROUNDS: usize = 3;
/// How often it is looked what other processes and time have left.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until it is dropped.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut lanes = Lanes::default();
    let mut running: FuturesUnordered<BoxFuture<'static, Turn>> = FuturesUnordered::new();
    let mut changes = inner.count.subscribe();
    let mut looking = tokio::time::interval(LOOK);
    looking.tick().await;
    loop {
        changes.mark_unchanged();
        loop {
            let Some(waiting) = lanes.take(&inner.waiting()) else {
                break;
            };
            running.push(turn(Arc::clone(&inner), waiting).boxed());
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = lanes.rested() => {}
            Some((waiting, ended)) = running.next() => {
                let lane = &waiting.entry.lane;
                match ended {
                    Ok(()) => {
                        lanes.done(lane);
                        drop(waiting);
                        inner.near.tier.trim().await;
                    }
                    Err(error) => if lanes.pause(lane) {
                        tracing::warn!(place = %lane.place, %error, "an export waits for the hub");
                    },
                }
            }
            _ = looking.tick() => {
                inner.look().await;
                let old = inner.old(|waiting| !lanes.is_busy(&waiting.entry.lane));
                inner.expire(old).await;
                lanes.forget(&inner.waiting());
            }
        }
    }
}

/// An attempt, and what came of it. An error is one that may pass; all else ends
/// the export.
type Turn = (Arc<Waiting>, Result<(), CacheError>);

async fn turn(inner: Arc<Inner>, waiting: Arc<Waiting>) -> Turn {
    let place = &waiting.entry.lane.place;
    let ended = match deliver(&inner, &waiting).await {
        Ok(()) => {
            tracing::info!(%place, "an export has reached the hub");
            inner.finish(&waiting, Ended::Delivered).await;
            Ok(())
        }
        Err(CacheError::Flushed(why)) => {
            tracing::warn!(%place, why, "an export is dropped");
            inner.finish(&waiting, Ended::Flushed).await;
            Ok(())
        }
        Err(error) => {
            inner.metrics().outbox_failed();
            match is_permanent(&error) {
                true => inner.put_aside(&waiting, &error).await,
                false => Err(error),
            }
        }
    };
    (waiting, ended)
}

async fn deliver(inner: &Inner, waiting: &Waiting) -> Result<(), CacheError> {
    let (entry, caller) = (&waiting.entry, &waiting.destination.caller);
    let export = inner.shelf.load(entry).await?;
    let mut missing = holding::missing(caller, &entry.lane.place, &entry.blobs).await?;
    let mut rounds = 0;
    loop {
        send(inner, waiting, &missing).await?;
        // What the hub misses now it has lost, since it was asked or before.
        missing = match publish::publish(caller, &export, Duration::ZERO).await {
            Err(CacheError::Missing(missing)) => missing,
            published => return published.map(drop),
        };
        rounds += 1;
        if rounds == ROUNDS || !all_sendable(inner, waiting, &missing).await {
            return Err(CacheError::Missing(missing));
        }
        tracing::info!(
            place = %entry.lane.place,
            blobs = missing.len(),
            "the hub has lost blobs of an export that waits: they are sent again"
        );
    }
}

/// Whether the export may send all of these, and this host has them.
async fn all_sendable(inner: &Inner, waiting: &Waiting, blobs: &[Digest]) -> bool {
    for digest in blobs {
        if !waiting.entry.sendable.contains(digest) || !inner.near.tier.has(digest).await {
            return false;
        }
    }
    true
}

/// Sends those of the blobs that the export may send. One that it held, and that
/// is not here any more, may be at the hub all the same.
async fn send(inner: &Inner, waiting: &Waiting, blobs: &[Digest]) -> Result<(), CacheError> {
    let (entry, caller) = (&waiting.entry, &waiting.destination.caller);
    let mut sizes = Vec::new();
    for digest in blobs {
        if entry.sendable.contains(digest)
            && let Some(size) = entry.blobs.get(digest)
        {
            sizes.push((*digest, *size));
        }
    }
    stream::iter(sizes)
        .map(|(digest, size)| async move {
            let disk = inner.near.tier.disk();
            if disk.size(&digest).await?.is_none() {
                return Ok(());
            }
            let subject = Subject {
                place: entry.lane.place.clone(),
                name: digest.to_string(),
                digest: Some(digest),
            };
            let patience = (Instant::now(), PATIENCE);
            upload::from_disk(caller, disk, &subject, (&digest, size), patience).await
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

/// Whether no later attempt would be another. A token may be renewed, and room
/// made.
fn is_permanent(error: &CacheError) -> bool {
    match error {
        CacheError::Graph(_)
        | CacheError::Refused(_)
        | CacheError::Denied(_)
        | CacheError::Missing(_) => true,
        error => error.is_final(),
    }
}
