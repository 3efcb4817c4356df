//! An export to a hub, whole or not at all.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::time::{Instant, sleep};

use super::hub::{Call, Caller, Failure};
use super::metrics::Method;
use super::upload::{self, Subject};
use super::{RemoteCache, holding};
use crate::blobs::BlobStore as _;
use crate::cache::wire::v1::publish_request::{Export, Part};
use crate::cache::wire::{self, PIECE, v1};
use crate::cache::{CacheError, Publication, Published};
use crate::catalog::ExportId;
use crate::digest::Digest;

/// How long a hub may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The first pause after a failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Publishes, and tries again while the hub can't be asked for less than
/// `patience`. An export that arrived although no answer came back is there
/// twice then, and the hub drops the one that says nothing more.
pub(super) async fn publish(
    caller: &Caller,
    export: &Publication,
    patience: Duration,
) -> Result<Published, CacheError> {
    let [mut pause, longest] = PAUSES;
    let since = Instant::now();
    loop {
        match attempt(caller, export).await {
            Ok(published) => return published,
            Err(Failure::Unreachable(why)) if since.elapsed() < patience => {
                tracing::debug!(why, "an export is sent again");
                sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(longest);
            }
            Err(failure) => return Err(failure.cache_error(None)),
        }
    }
}

async fn attempt(
    caller: &Caller,
    export: &Publication,
) -> Result<Result<Published, CacheError>, Failure> {
    let config = &export.config.bytes;
    let head = v1::PublishRequest {
        part: Some(Part::Export(Export {
            place: Some((&export.place).into()),
            builder: export.builder.clone(),
            manifest: export.manifest.bytes.clone(),
            steps: export.steps.iter().map(v1::Step::from).collect(),
            config_bytes: config.len() as u64,
        })),
    };
    let messages: Vec<_> = std::iter::once(head).chain(pieces(config)).collect();
    let call = Call::within(Method::Publish, LIMIT);
    let answer = caller
        .call(call, messages, |client, request| async move {
            let mut client = client.send_compressed(tonic::codec::CompressionEncoding::Zstd);
            let (metadata, extensions, messages) = request.into_parts();
            let messages = stream::iter(messages);
            let request = tonic::Request::from_parts(metadata, extensions, messages);
            client.publish(request).await
        })
        .await?;
    Ok(published(answer.into_inner()))
}

fn pieces(config: &Bytes) -> impl Iterator<Item = v1::PublishRequest> {
    let starts = (0..config.len()).step_by(PIECE);
    starts.map(|at| v1::PublishRequest {
        part: Some(Part::Config(config.slice(at..config.len().min(at + PIECE)))),
    })
}

fn published(answer: v1::PublishResponse) -> Result<Published, CacheError> {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let steps = wire::steps(answer.steps)
        .map_err(|why| CacheError::Unavailable(format!("the hub's answer: {why}")))?;
    Ok(Published {
        id: Some(ExportId(answer.export)),
        records: count(answer.records),
        layers: count(answer.layers),
        bytes: answer.bytes,
        steps,
    })
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
            let _pin = self.near.tier.pin(digest).await;
            let subject = Subject {
                place: export.place.clone(),
                name: digest.to_string(),
                digest: Some(*digest),
            };
            upload::from_disk(&self.caller, disk, &subject, (digest, size), self.patience).await?;
        }
        Ok(())
    }
}
