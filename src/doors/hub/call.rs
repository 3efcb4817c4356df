//! One call: who makes it, what it is for, how long it took and how it ended.

use std::any::Any;
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use tonic::{Code, Status};
use tracing::Span;

use super::Door;
use super::metrics::{Method, Metrics, Outcome};
use crate::access::{self, Client, Denied, NoRoom, Pass, Reason, Share};
use crate::cache::CacheError;
use crate::cache::guard::Guard;
use crate::cache::wire::{MAX_MESSAGE, Malformed, busy, status_of};
use crate::place::ProjectId;
use crate::telemetry;

/// A call that runs. It counts when it is dropped: as cancelled, unless it was
/// told how it ended.
pub struct Call {
    method: Method,
    client: Client,
    began: Instant,
    outcome: Outcome,
    metrics: Metrics,
    span: Span,
}

impl Call {
    /// A call from `peer` with these headers, what its client may do, and its
    /// share of the calls that are open; an error is its answer.
    pub async fn begin(
        door: &Door,
        method: Method,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Result<(Self, Guard, Share), Status> {
        let id = telemetry::request_id(headers);
        let span = tracing::info_span!(
            "call",
            method = method.name(),
            request = id.as_str(),
            project = tracing::field::Empty,
            peer = peer.map(tracing::field::display),
            subject = tracing::field::Empty,
        );
        telemetry::continued(&span, headers);
        let mut call = Self {
            method,
            client: Client::At(peer.map(|peer| peer.ip())),
            began: Instant::now(),
            outcome: Outcome::Cancelled,
            metrics: door.metrics.clone(),
            span,
        };
        call.metrics.began();
        let Some(_arriving) = door.arrivals.try_take(&call.client) else {
            return Err(call.crowded(door));
        };
        let token = match bearer(headers) {
            Ok(token) => token,
            Err(status) => {
                door.refusals.count(Reason::Malformed);
                return Err(call.ended(status));
            }
        };
        match door.refusals.counted(Pass::new(&door.access, token).await) {
            Ok(pass) => {
                call.client = Client::of(pass.grant(), peer);
                let grant = pass.grant();
                if let Some(project) = grant.project() {
                    call.span.record("project", project.as_str());
                    call.span.record("subject", grant.subject());
                }
                let Some(open) = door.calls.try_take(&call.client) else {
                    return Err(call.crowded(door));
                };
                Ok((call, door.cache.to(pass, peer, &id), open))
            }
            Err(denied) => {
                tracing::info!(parent: &call.span, reason = denied.reason(), "a call without a valid token");
                Err(call.ended(unauthenticated(denied)))
            }
        }
    }

    /// It is one too many.
    fn crowded(&mut self, door: &Door) -> Status {
        if let Some(refused) = door.crowded.count() {
            tracing::warn!(parent: &self.span, refused, "a client has too many calls open, or all together have");
        }
        self.ended(NoRoom::TooMany("calls".to_owned()).into())
    }

    /// What is done for it happens in here.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Who makes it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// It ends well.
    pub fn done(mut self) {
        self.outcome = Outcome::Ok;
    }

    /// It ends so.
    pub fn ended(&mut self, status: Status) -> Status {
        self.outcome = Outcome::of(status.code());
        match status.code() {
            Code::Unavailable | Code::DataLoss | Code::Unknown => {
                tracing::warn!(parent: &self.span, code = ?status.code(), error = status.message(), "a call failed");
            }
            Code::PermissionDenied => {
                tracing::info!(parent: &self.span, error = status.message(), "a call was denied");
            }
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => {
                tracing::info!(parent: &self.span, code = ?status.code(), error = status.message(), "a call was refused");
            }
            code => {
                tracing::debug!(parent: &self.span, ?code, error = status.message(), "a call was refused");
            }
        }
        status
    }

    /// Answers, and ends with the answer.
    pub fn answer<T>(mut self, answer: Result<T, Status>) -> Result<tonic::Response<T>, Status> {
        match answer {
            Ok(answer) => {
                self.done();
                Ok(tonic::Response::new(answer))
            }
            Err(status) => Err(self.ended(status)),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics
            .ended(self.method, self.outcome, self.began.elapsed());
    }
}

/// Says in the logs what project a call is for, where no token does.
pub fn about(guard: &Guard, project: &ProjectId) {
    if guard.grant().project().is_none() {
        Span::current().record("project", project.as_str());
    }
}

/// The token of `authorization: Bearer TOKEN`, where there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(value) = headers.get("authorization") else {
        return Ok(None);
    };
    let unfit = || Status::unauthenticated("the authorization header is not `Bearer TOKEN`");
    access::bearer(value).map(Some).ok_or_else(unfit)
}

/// What is kept for an answer until its last byte is on the wire, by whoever
/// writes it: it is looked for in the extensions of a response.
pub type Kept = Arc<dyn Any + Send + Sync>;

impl From<NoRoom> for Status {
    fn from(refused: NoRoom) -> Self {
        match refused {
            NoRoom::Closing => Self::unavailable(refused.to_string()),
            NoRoom::TooMany(_) => busy(refused.to_string()),
        }
    }
}

/// Why a token does not count, or not any more, as an answer.
pub fn unauthenticated(denied: Denied) -> Status {
    Status::unauthenticated(denied.to_string())
}

/// The engine's errors as answers.
pub fn refused(error: CacheError) -> Status {
    status_of(&error)
}

/// A message that can't be read.
pub fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

/// What is told of a message that did not come, in the wire's words. Those that
/// can't be read are `INTERNAL` there, those that are too long `OUT_OF_RANGE`,
/// or `RESOURCE_EXHAUSTED` once they are unpacked, with a text for programmers.
pub fn unread(status: Status) -> Status {
    match status.code() {
        // What broke on its way has a source.
        Code::Internal if status.source().is_none() => {
            Status::invalid_argument(format!("the message can't be read: {}", status.message()))
        }
        Code::OutOfRange | Code::ResourceExhausted => {
            Status::out_of_range(format!("a message of more than {MAX_MESSAGE} bytes"))
        }
        Code::Internal | Code::Unknown => Status::cancelled("the client went away"),
        _ => status,
    }
}
