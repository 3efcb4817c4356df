//! An export to a hub, whole or not at all.

use std::time::Duration;

use futures::stream;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, Streaming};

use super::failure::Failure;
use super::hub::{Call, Caller};
use super::metrics::Method;
use super::pauses::Pauses;
use super::upload::{self, Subject};
use super::{RemoteCache, holding, strange};
use crate::blobs::BlobStore as _;
use crate::cache::wire::{self, PublishedReader, v1};
use crate::cache::{CacheError, Publication, Published};
use crate::digest::Digest;

/// How long a hub may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it has at least, where little of the patience is left.
const LEAST: Duration = Duration::from_secs(5);

/// Publishes, and tries again while the hub can't be asked for less than
/// `patience`, and is not gone altogether. An export that arrived although no
/// answer came back is there twice then, and the hub drops the one that says
/// nothing more.
pub(super) async fn publish(
    caller: &Caller,
    export: &Publication,
    patience: Duration,
) -> Result<Published, CacheError> {
    let mut pauses = Pauses::begin();
    let since = Instant::now();
    loop {
        // Whoever does not try again can wait.
        let limit = match patience {
            Duration::ZERO => LIMIT,
            _ => LIMIT.min(patience.saturating_sub(since.elapsed()).max(LEAST)),
        };
        match attempt(caller, export, limit).await {
            Ok(published) => return published,
            Err(Failure::Unreachable(why) | Failure::Busy(why, _))
                if since.elapsed() < patience && !caller.hub().is_gone() =>
            {
                tracing::debug!(why, "an export is sent again");
                sleep(pauses.next()).await;
            }
            Err(failure) => return Err(failure.cache_error(None)),
        }
    }
}

async fn attempt(
    caller: &Caller,
    export: &Publication,
    limit: Duration,
) -> Result<Result<Published, CacheError>, Failure> {
    let call = Call::within(Method::Publish, limit);
    let messages = wire::publication_parts(export);
    caller
        .call(call, messages, |client, request| async move {
            let mut client = client.send_compressed(tonic::codec::CompressionEncoding::Zstd);
            let (metadata, extensions, messages) = request.into_parts();
            let messages = stream::iter(messages);
            let request = tonic::Request::from_parts(metadata, extensions, messages);
            published(client.publish(request).await?.into_inner()).await
        })
        .await
}

/// Reads an answer to its end.
async fn published(
    mut answers: Streaming<v1::PublishResponse>,
) -> Result<Result<Published, CacheError>, Status> {
    let mut reader = PublishedReader::default();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => reader.take(answer).map_err(strange)?,
            Ok(None) => return reader.finish().map(Ok).map_err(strange),
            Err(status) if status.code() == Code::FailedPrecondition => {
                return match reader.missing() {
                    missing if missing.is_empty() => Err(status),
                    missing => Ok(Err(CacheError::Missing(missing))),
                };
            }
            Err(status) => return Err(status),
        }
    }
}

impl RemoteCache {
    /// Uploads what this host has and the hub misses, as far as the export may
    /// name it: written by its build, or named by an import of its project.
    pub(super) async fn supply(
        &self,
        export: &Publication,
        missing: &[Digest],
    ) -> Result<(), CacheError> {
        for digest in missing {
            let routes = self.routes(digest);
            let known = holding::known(&routes, &export.place.project, digest).is_some();
            let disk = self.near.tier.disk();
            let size = disk.size(digest).await?;
            let (true, Some(size)) = (known || export.uploaded.contains(digest), size) else {
                return Err(CacheError::Missing(missing.to_vec()));
            };
            let patience = (std::time::Instant::now(), self.patience);
            let _pin = self.near.tier.pin(digest).await;
            let subject = Subject {
                place: export.place.clone(),
                name: digest.to_string(),
                digest: Some(*digest),
            };
            upload::from_disk(&self.caller, disk, &subject, (digest, size), patience).await?;
        }
        Ok(())
    }
}
