//! The methods of `layerd.v1.Cache`: read the message, ask the engine, write
//! the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::Door;
use super::call::{Kept, about, malformed, refused};
use super::publishing::publish;
use super::reading::read;
use super::screen::taken;
use super::writing::write;
use crate::access::{Client, Share};
use crate::cache::guard::Guard;
use crate::cache::wire::{self, CacheService, Malformed, v1};
use crate::cache::{Flush, LookedUp, Saving};
use crate::catalog::LeaseId;
use crate::place::Place;

/// How long an answer may wait for the memory that it takes, and a look-up for
/// its turn: a sidecar has 5 s for both.
const TURN: Duration = Duration::from_secs(2);

/// Bytes of an answer that need no room: most calls are done by the time that
/// it is written.
const SMALL: usize = 4 << 10;

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
        M: Send,
        T: prost::Message,
    {
        self.unary_for(request, |_, guard, message| work(guard, message))
            .await
    }

    /// The same, where it matters who calls.
    async fn unary_for<M, T, F>(
        &self,
        request: Request<M>,
        work: impl FnOnce(Client, Guard, M) -> F + Send,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, Status>> + Send,
        M: Send,
        T: prost::Message,
    {
        let (_, extensions, message) = request.into_parts();
        let (call, guard) = taken(&extensions)?;
        let client = call.client().clone();
        let work = async {
            let answer = work(client.clone(), guard, message).await?;
            let room = self.room(&client, answer.encoded_len()).await?;
            Ok((answer, room))
        };
        let answer = work.instrument(call.span().clone()).await;
        kept(call.answer(answer))
    }

    /// Does one call whose answer comes in several messages.
    async fn streamed<M, T, F>(
        &self,
        request: Request<M>,
        work: impl FnOnce(Client, Guard, M) -> F + Send,
    ) -> Result<Response<Answers<T>>, Status>
    where
        F: Future<Output = Result<Vec<T>, Status>> + Send,
        M: Send,
        T: prost::Message + 'static,
    {
        let (_, extensions, message) = request.into_parts();
        let (call, guard) = taken(&extensions)?;
        let client = call.client().clone();
        let work = async {
            let parts = work(client.clone(), guard, message).await?;
            let bytes = parts.iter().map(prost::Message::encoded_len).sum();
            let room = self.room(&client, bytes).await?;
            let parts = stream::iter(parts.into_iter().map(Ok));
            Ok((parts.boxed() as Answers<_>, room))
        };
        let answer = work.instrument(call.span().clone()).await;
        kept(call.answer(answer))
    }

    /// Memory for an answer of so many bytes, until its client has read it.
    async fn room(&self, client: &Client, bytes: usize) -> Result<Option<Share>, Status> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let (answers, kib) = (&self.0.answers, bytes.div_ceil(1 << 10));
        let room = answers.take_within(TURN, client, kib, "answers").await?;
        Ok(Some(room))
    }
}

/// An answer, and what is kept for it.
pub(super) fn kept<T>(
    answer: Result<Response<(T, Option<Share>)>, Status>,
) -> Result<Response<T>, Status> {
    let (metadata, (answer, room), mut extensions) = answer?.into_parts();
    if let Some(room) = room {
        extensions.insert(Arc::new(room) as Kept);
    }
    Ok(Response::from_parts(metadata, answer, extensions))
}

#[tonic::async_trait]
impl CacheService for Service {
    type LookUpStream = Answers<v1::LookUpResponse>;
    type ReadBlobStream = Answers<v1::ReadBlobResponse>;
    type WriteBlobStream = Answers<v1::WriteBlobResponse>;
    type PublishStream = Answers<v1::PublishResponse>;
    type StepsStream = Answers<v1::StepsResponse>;

    async fn look_up(
        &self,
        request: Request<v1::LookUpRequest>,
    ) -> Result<Response<Self::LookUpStream>, Status> {
        self.streamed(request, |client, guard, message| async move {
            let (wants, limits) = wire::question(message).map_err(malformed)?;
            if let Some(first) = wants.first() {
                about(&guard, &first.place.project);
            }
            let look_ups = &self.0.look_ups;
            let _turn = look_ups.take_within(TURN, &client, 1, "look-ups").await?;
            // Before anything is named that it keeps.
            let lease = guard.take_lease().await;
            let found = guard.look_up(wants, &limits).await.map_err(refused)?;
            let lease = lease.map_or(0, |lease| lease.0);
            Ok(match found {
                LookedUp::Import(import) => wire::import_parts(Some(&import), lease),
                LookedUp::Nothing(flushed) => wire::nothing(flushed.as_ref()),
            })
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
        read(&self.0, call, guard, message).await
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
    ) -> Result<Response<Self::PublishStream>, Status> {
        let (_, extensions, messages) = request.into_parts();
        let (call, guard) = taken(&extensions)?;
        publish(&self.0.exports, call, guard, messages).await
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
    ) -> Result<Response<Self::StepsStream>, Status> {
        self.streamed(request, |_, guard, message| async move {
            let project = wire::project(&message.project).map_err(malformed)?;
            let results = wire::results(message.results).map_err(malformed)?;
            let steps = guard.steps(&project, &results).await.map_err(refused)?;
            let parts = wire::steps_parts(&steps).map(|steps| {
                let steps = Some(steps);
                v1::StepsResponse { steps }
            });
            Ok(parts.collect())
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
        let suspects = self.0.suspects.clone();
        self.unary_for(request, |client, guard, message| async move {
            let projects = wire::projects(&message.projects).map_err(malformed)?;
            let digest = wire::digest(&message.digest).map_err(malformed)?;
            // It is left to those who ask again.
            let Some(_turn) = suspects.try_take(&client) else {
                return Ok(v1::SuspectResponse { withdrawn: false });
            };
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
            about(&guard, &flush.project);
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
