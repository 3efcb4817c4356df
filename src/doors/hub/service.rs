//! The methods of `layerd.v1.Cache`: read the message, ask the engine, write
//! the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::Door;
use super::call::{malformed, refused, unauthenticated};
use super::reading::read;
use super::screen::taken;
use super::writing::write;
use crate::cache::guard::Guard;
use crate::cache::wire::{self, CacheService, Malformed, v1};
use crate::cache::{Document, Flush, LookedUp, Publication, Saving};
use crate::catalog::LeaseId;
use crate::place::Place;
use crate::step::Step;

/// The largest config that an export may have, in bytes.
const MAX_CONFIG: u64 = 64 << 20;
/// How long an export may wait for the memory that it takes.
const ROOM: Duration = Duration::from_secs(45);
/// How long a client may take over the config of an export, once it has that.
const PUBLISHING: Duration = Duration::from_secs(30);
/// How long it may say nothing meanwhile: it holds memory.
const SILENCE: Duration = Duration::from_secs(10);

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One for all clients.
pub struct Service(pub Arc<Door>);

impl Service {
    /// Does one call whose answer is one message.
    async fn unary<M, T, F>(
        &self,
        request: Request<M>,
        work: impl FnOnce(Guard, M) -> F + Send,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let (_, extensions, message) = request.into_parts();
        let (call, guard) = taken(&extensions)?;
        let work = work(guard, message).instrument(call.span().clone());
        let answer = work.await;
        call.answer(answer)
    }
}

#[tonic::async_trait]
impl CacheService for Service {
    type LookUpStream = Answers<v1::LookUpResponse>;
    type ReadBlobStream = Answers<v1::ReadBlobResponse>;
    type WriteBlobStream = Answers<v1::WriteBlobResponse>;

    async fn look_up(
        &self,
        request: Request<v1::LookUpRequest>,
    ) -> Result<Response<Self::LookUpStream>, Status> {
        self.unary(request, |guard, message| async move {
            let (wants, limits) = wire::question(message).map_err(malformed)?;
            if let Some(first) = wants.first() {
                tracing::Span::current().record("project", first.place.project.as_str());
            }
            // Before anything is named that it keeps.
            let lease = guard.take_lease().await;
            let found = guard.look_up(wants, &limits).await.map_err(refused)?;
            let lease = lease.map_or(0, |lease| lease.0);
            let parts = match found {
                LookedUp::Import(import) => wire::import_parts(Some(&import), lease),
                LookedUp::Nothing(flushed) => wire::nothing(flushed.as_ref()),
            };
            Ok(stream::iter(parts.into_iter().map(Ok)).boxed() as Answers<_>)
        })
        .await
    }

    async fn find_missing(
        &self,
        request: Request<v1::FindMissingRequest>,
    ) -> Result<Response<v1::FindMissingResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let place = place_of(&message.project, &message.git_ref).map_err(malformed)?;
            let digests = wire::digests(&message.digests).map_err(malformed)?;
            if digests.len() > wire::MAX_DIGESTS {
                return Err(Status::invalid_argument(format!(
                    "more than {} digests",
                    wire::MAX_DIGESTS
                )));
            }
            let held = guard.held(&place, &digests).await.map_err(refused)?;
            let sizes = held.into_iter();
            let sizes = sizes.map(|size| size.map_or(0, |size| size.saturating_add(1)));
            Ok(v1::FindMissingResponse {
                sizes: sizes.collect(),
            })
        })
        .await
    }

    async fn read_blob(
        &self,
        request: Request<v1::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        let (_, extensions, message) = request.into_parts();
        let (call, guard) = taken(&extensions)?;
        read(call, guard, message).await
    }

    async fn write_blob(
        &self,
        request: Request<Streaming<v1::WriteBlobRequest>>,
    ) -> Result<Response<Self::WriteBlobStream>, Status> {
        let (_, extensions, messages) = request.into_parts();
        let (call, guard) = taken(&extensions)?;
        Ok(Response::new(write(&self.0, call, guard, messages)))
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let room = Arc::clone(&self.0.exports);
        self.unary(request, |mut guard, messages| async move {
            let (export, _room) = publication(messages, room).await?;
            tracing::Span::current().record("project", export.place.project.as_str());
            guard.still_granted().await.map_err(unauthenticated)?;
            let published = guard.publish(export).await.map_err(refused)?;
            Ok(v1::PublishResponse {
                export: published.id.map_or(0, |id| id.0),
                records: published.records as u64,
                layers: published.layers as u64,
                bytes: published.bytes,
                steps: published.steps.iter().map(v1::Step::from).collect(),
            })
        })
        .await
    }

    async fn writable(
        &self,
        request: Request<v1::WritableRequest>,
    ) -> Result<Response<v1::WritableResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let place = Place::try_from(message.place).map_err(malformed)?;
            guard.writable(&place).await.map_err(refused)?;
            Ok(v1::WritableResponse {})
        })
        .await
    }

    async fn steps(
        &self,
        request: Request<v1::StepsRequest>,
    ) -> Result<Response<v1::StepsResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let project = wire::project(&message.project).map_err(malformed)?;
            let results = wire::results(message.results).map_err(malformed)?;
            let steps = guard.steps(&project, &results).await.map_err(refused)?;
            Ok(v1::StepsResponse {
                steps: steps.iter().map(v1::Step::from).collect(),
            })
        })
        .await
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let saving = Saving::try_from(message).map_err(malformed)?;
            guard.report(&saving).await.map_err(refused)?;
            Ok(v1::ReportResponse {})
        })
        .await
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        self.unary(request, |guard, _| async move {
            let lease = guard.take_lease().await.map_or(0, |lease| lease.0);
            Ok(v1::TakeLeaseResponse { lease })
        })
        .await
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let renewed = guard.renew_lease(LeaseId(message.lease)).await;
            let renewed = renewed.map_err(refused)?;
            Ok(v1::RenewLeaseResponse { renewed })
        })
        .await
    }

    async fn suspect(
        &self,
        request: Request<v1::SuspectRequest>,
    ) -> Result<Response<v1::SuspectResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let projects = wire::projects(&message.projects).map_err(malformed)?;
            let digest = wire::digest(&message.digest).map_err(malformed)?;
            let withdrawn = guard.suspect(&projects, &digest).await.map_err(refused)?;
            Ok(v1::SuspectResponse { withdrawn })
        })
        .await
    }

    async fn flush(
        &self,
        request: Request<v1::FlushRequest>,
    ) -> Result<Response<v1::FlushResponse>, Status> {
        self.unary(request, |guard, message| async move {
            let flush = Flush::try_from(message).map_err(malformed)?;
            tracing::Span::current().record("project", flush.project.as_str());
            let exports = guard.flush(&flush).await.map_err(refused)?;
            tracing::info!(
                exports,
                ?flush,
                by = guard.grant().actor().name(),
                "flushed"
            );
            Ok(v1::FlushResponse { exports })
        })
        .await
    }
}

/// A place of which the scope does not matter.
pub fn place_of(project: &str, git_ref: &str) -> Result<Place, Malformed> {
    Ok(Place {
        project: wire::project(project)?,
        git_ref: wire::git_ref(git_ref)?,
        ..Place::default()
    })
}

/// The next message of an export.
async fn next(
    messages: &mut Streaming<v1::PublishRequest>,
) -> Result<Option<v1::PublishRequest>, Status> {
    let message = tokio::time::timeout(SILENCE, messages.message()).await;
    message.map_err(|_| Status::deadline_exceeded("nothing came for too long"))?
}

/// An export, put together of its messages, and the `room` that it takes.
async fn publication(
    mut messages: Streaming<v1::PublishRequest>,
    room: Arc<Semaphore>,
) -> Result<(Publication, OwnedSemaphorePermit), Status> {
    use v1::publish_request::Part;
    let first = next(&mut messages).await?.and_then(|message| message.part);
    let Some(Part::Export(export)) = first else {
        return Err(Status::invalid_argument("an export begins with what it is"));
    };
    if export.config_bytes > MAX_CONFIG {
        return Err(Status::invalid_argument(format!(
            "a config of {} bytes: at most {MAX_CONFIG}",
            export.config_bytes
        )));
    }
    let place = Place::try_from(export.place).map_err(malformed)?;
    if place.scope.is_any() {
        return Err(Status::invalid_argument("an export needs one scope"));
    }
    let steps: Vec<Step> = wire::steps(export.steps).map_err(malformed)?;
    let size = export.config_bytes + export.manifest.len() as u64;
    let kib = u32::try_from(size >> 10).unwrap_or(u32::MAX).max(1);
    let room = tokio::time::timeout(ROOM, room.acquire_many_owned(kib)).await;
    let room = room.map_err(|_| Status::unavailable("too many exports at once: try again"))?;
    let room = room.map_err(|_| Status::unavailable("the hub is closing"))?;
    let config = tokio::time::timeout(PUBLISHING, config(messages, export.config_bytes)).await;
    let config =
        config.map_err(|_| Status::deadline_exceeded("the export did not come to its end"))??;
    let publication = Publication {
        place,
        builder: wire::short("builder", export.builder).map_err(malformed)?,
        manifest: Document::new(export.manifest),
        config: Document::new(config),
        uploaded: Default::default(),
        steps,
    };
    Ok((publication, room))
}

/// The config of an export, of so many bytes.
async fn config(
    mut messages: Streaming<v1::PublishRequest>,
    announced: u64,
) -> Result<Bytes, Status> {
    use v1::publish_request::Part;
    let mut config = BytesMut::new();
    while let Some(message) = next(&mut messages).await? {
        let Some(Part::Config(bytes)) = message.part else {
            continue;
        };
        if (config.len() + bytes.len()) as u64 > announced {
            return Err(Status::invalid_argument("a config longer than announced"));
        }
        config.extend_from_slice(&bytes);
    }
    if config.len() as u64 != announced {
        return Err(Status::invalid_argument("a config that breaks off"));
    }
    Ok(config.freeze())
}
