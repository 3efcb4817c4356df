//! containerd's Content service, as BuildKit calls it over a session.
//!
//! A `type=local` cache entry makes BuildKit call `Content` on the build's own
//! session, with the entry's `src` or `dest` as store id in the metadata. Ids
//! of ours are answered here: an [`ImportStore`] is read, an [`ExportStore`] is
//! written. All other ids are the user's own `type=local` and are forwarded.
//! Codes and words are containerd's (`plugins/services/content`, v2.3).

mod asked;
mod document;
mod export;
mod import;
mod layers;
mod refusal;
mod statuses;
mod write;

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost_types::Timestamp;
use tonic::{Code, Status, Streaming};
use tower_service::Service as _;
use tracing::{Instrument as _, Span};

pub use self::asked::Asked;
pub use self::export::ExportStore;
pub use self::import::ImportStore;
use self::refusal::unknown_content;
use super::grpc::Body;
use super::names::PREFIX;
use super::proto::content as api;
use super::proto::content::content_server::{Content, ContentServer};
use super::pull::PullImport;
use super::stores::Stores;
use crate::digest::Digest;

/// What a session offers when we are in it.
pub const METHODS: [&str; 9] = [
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Update",
    "/containerd.services.content.v1.Content/List",
    "/containerd.services.content.v1.Content/Delete",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/ListStatuses",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];

/// The metadata in which BuildKit names the store (`session/content`).
const STORE_ID: &str = "buildkit-attachable-store-id";
/// What BuildKit puts before the id of a `type=local` cache.
const LOCAL: &str = "local:";
/// BuildKit sends up to 1 MiB of data in a message, and takes 16 MiB.
const MAX_MESSAGE: usize = 16 << 20;

/// What a store id stands for.
pub enum Store {
    /// Something to read.
    Import(ImportStore),
    /// Something to write.
    Export(ExportStore),
    /// Something to read by pull, and not over a session.
    Pull(PullImport),
}

impl Store {
    fn export(&self) -> Result<&ExportStore, Status> {
        match self {
            Self::Export(store) => Ok(store),
            Self::Import(_) | Self::Pull(_) => Err(Status::failed_precondition(
                "this store is an import, and read-only",
            )),
        }
    }

    /// Where the log lines of a call belong: an export has one build, an
    /// import may have several.
    fn span(&self) -> Span {
        match self {
            Self::Import(_) | Self::Pull(_) => Span::none(),
            Self::Export(store) => store.span().clone(),
        }
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        match self {
            Self::Import(store) => store.size(digest),
            Self::Export(store) => store.size(digest),
            Self::Pull(_) => None,
        }
    }
}

/// The store that a call on a session names: `None` if it is not for us, an
/// error if it is for one that is gone.
pub fn addressed(
    stores: &Stores,
    request: &Request<Incoming>,
) -> Option<Result<Arc<Store>, Status>> {
    if !METHODS.contains(&request.uri().path()) {
        return None;
    }
    // BuildKit puts its newest value first.
    let id = request
        .headers()
        .get(STORE_ID)?
        .to_str()
        .ok()?
        .strip_prefix(LOCAL)?;
    if !id.starts_with(PREFIX) {
        return None;
    }
    Some(
        stores
            .get(id)
            .ok_or_else(|| Status::not_found("this cache import or export has ended")),
    )
}

/// Answers one call on a store of ours.
pub async fn serve(store: Arc<Store>, request: Request<Incoming>) -> Response<Body> {
    let span = store.span();
    let mut server = ContentServer::new(Attached(store)).max_decoding_message_size(MAX_MESSAGE);
    let Ok(response) = server.call(request).instrument(span).await;
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A store, for the length of a call.
struct Attached(Arc<Store>);

#[tonic::async_trait]
impl Content for Attached {
    async fn info(
        &self,
        request: tonic::Request<api::InfoRequest>,
    ) -> Result<tonic::Response<api::InfoResponse>, Status> {
        let digest = parse_digest(&request.get_ref().digest)?;
        let size = self
            .0
            .size(&digest)
            .ok_or_else(|| unknown_content(&digest))?;
        Ok(tonic::Response::new(api::InfoResponse {
            info: Some(info(&digest, size)),
        }))
    }

    type ReadStream = BoxStream<'static, Result<api::ReadContentResponse, Status>>;

    async fn read(
        &self,
        request: tonic::Request<api::ReadContentRequest>,
    ) -> Result<tonic::Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let digest = parse_digest(&request.digest)?;
        let size = self
            .0
            .size(&digest)
            .ok_or_else(|| unknown_content(&digest))?;
        // As containerd: a negative offset is 0, and a length that is absent
        // or goes beyond the end means all that is left.
        let offset = u64::try_from(request.offset).unwrap_or(0);
        let left = size
            .checked_sub(offset)
            .ok_or_else(|| Status::out_of_range(format!("read past object length {size} bytes")))?;
        let length = u64::try_from(request.size)
            .ok()
            .filter(|&length| length > 0 && length < left)
            .unwrap_or(left);
        let bytes = match &*self.0 {
            Store::Import(store) => store.read(&digest, offset, length).await?,
            Store::Export(store) => store.read(&digest, offset, length).await?,
            Store::Pull(_) => return Err(unknown_content(&digest)),
        };
        let mut next = offset;
        let responses = bytes.map(move |chunk| {
            let data = chunk?;
            let offset = i64::try_from(next).map_err(|_| Status::out_of_range("offset"))?;
            next += data.len() as u64;
            Ok(api::ReadContentResponse { offset, data })
        });
        Ok(tonic::Response::new(responses.boxed()))
    }

    async fn status(
        &self,
        request: tonic::Request<api::StatusRequest>,
    ) -> Result<tonic::Response<api::StatusResponse>, Status> {
        let status = self.0.export()?.statuses().get(&request.get_ref().r#ref)?;
        Ok(tonic::Response::new(api::StatusResponse {
            status: Some(status),
        }))
    }

    async fn list_statuses(
        &self,
        request: tonic::Request<api::ListStatusesRequest>,
    ) -> Result<tonic::Response<api::ListStatusesResponse>, Status> {
        let statuses = self
            .0
            .export()?
            .statuses()
            .list(&request.get_ref().filters)?;
        Ok(tonic::Response::new(api::ListStatusesResponse { statuses }))
    }

    type WriteStream = BoxStream<'static, Result<api::WriteContentResponse, Status>>;

    async fn write(
        &self,
        request: tonic::Request<Streaming<api::WriteContentRequest>>,
    ) -> Result<tonic::Response<Self::WriteStream>, Status> {
        self.0.export()?;
        Ok(tonic::Response::new(write::write(
            self.0.clone(),
            request.into_inner(),
        )))
    }

    async fn abort(
        &self,
        request: tonic::Request<api::AbortRequest>,
    ) -> Result<tonic::Response<()>, Status> {
        self.0.export()?.abort(&request.get_ref().r#ref).await?;
        Ok(tonic::Response::new(()))
    }

    async fn update(
        &self,
        _: tonic::Request<api::UpdateRequest>,
    ) -> Result<tonic::Response<api::UpdateResponse>, Status> {
        Err(not_kept("labels"))
    }

    type ListStream = BoxStream<'static, Result<api::ListContentResponse, Status>>;

    async fn list(
        &self,
        _: tonic::Request<api::ListContentRequest>,
    ) -> Result<tonic::Response<Self::ListStream>, Status> {
        Err(not_kept("a list of contents"))
    }

    async fn delete(
        &self,
        _: tonic::Request<api::DeleteContentRequest>,
    ) -> Result<tonic::Response<()>, Status> {
        Err(not_kept("a way to delete"))
    }
}

/// What BuildKit never asks of a cache store is not offered.
fn not_kept(what: &str) -> Status {
    Status::new(
        Code::Unimplemented,
        format!("a build cache store has no {what}"),
    )
}

fn info(digest: &Digest, size: u64) -> api::Info {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    api::Info {
        digest: digest.to_string(),
        size,
        ..api::Info::default()
    }
}

fn parse_digest(text: &str) -> Result<Digest, Status> {
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))
}

fn timestamp(time: std::time::SystemTime) -> Option<Timestamp> {
    Some(Timestamp::from(time))
}

#[cfg(test)]
mod tests;
