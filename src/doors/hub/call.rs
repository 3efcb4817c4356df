//! One call: who makes it, what it is for, how long it took and how it ended.

use std::time::Instant;

use http::HeaderMap;
use jiff::Timestamp;
use tonic::{Code, Status};
use tracing::Span;

use super::Door;
use super::metrics::{Method, Metrics, Outcome};
use crate::cache::CacheError;
use crate::cache::guard::Guard;
use crate::cache::wire::{Malformed, status_of};
use crate::telemetry;

/// A call that runs. It counts when it is dropped: as cancelled, unless it was
/// told how it ended.
pub struct Call {
    method: Method,
    began: Instant,
    outcome: Outcome,
    metrics: Metrics,
    span: Span,
}

impl Call {
    /// A call with these headers, and what its client may do; an error is its
    /// answer.
    pub fn begin(
        door: &Door,
        method: Method,
        headers: &HeaderMap,
    ) -> Result<(Self, Guard), Status> {
        let span = tracing::info_span!(
            "call",
            method = method.name(),
            request = telemetry::request_id(headers),
            project = tracing::field::Empty,
        );
        telemetry::continued(&span, headers);
        let mut call = Self {
            method,
            began: Instant::now(),
            outcome: Outcome::Cancelled,
            metrics: door.metrics.clone(),
            span,
        };
        call.metrics.began();
        let token = match bearer(headers) {
            Ok(token) => token,
            Err(status) => return Err(call.ended(status)),
        };
        match door.access.grant(token, Timestamp::now()) {
            Ok(grant) => Ok((call, door.cache.to(grant))),
            Err(denied) => {
                tracing::info!(parent: &call.span, reason = denied.reason(), "a call without a valid token");
                Err(call.ended(Status::unauthenticated(denied.to_string())))
            }
        }
    }

    /// What is done for it happens in here.
    pub fn span(&self) -> &Span {
        &self.span
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

/// The token of `authorization: Bearer TOKEN`, where there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    const SCHEME: &str = "bearer ";
    let Some(value) = headers.get("authorization") else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then_some(token.trim())
    });
    match token {
        Some(token) => Ok(Some(token)),
        None => Err(Status::unauthenticated(
            "the authorization header is not `Bearer TOKEN`",
        )),
    }
}

/// The engine's errors as answers.
pub fn refused(error: CacheError) -> Status {
    status_of(&error)
}

/// A message that can't be read.
pub fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}
