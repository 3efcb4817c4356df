//! One request: who makes it, what it is for, and how it ended.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use serde_json::Value;
use tracing::{Instrument as _, Span};

use super::Door;
use super::failure::{Dialect, Failure, Kind};
use super::metrics::{Metrics, Operation, Outcome};
use crate::access::{Client, Denied, Runner, bearer};
use crate::cache::guard::Guard;
use crate::telemetry;

/// An answer, and what it counts as.
pub struct Told {
    /// How the request ended.
    pub outcome: Outcome,
    /// What is said.
    pub response: Response,
}

impl Told {
    /// That all is well.
    pub fn ok(response: Response) -> Self {
        Self {
            outcome: Outcome::Ok,
            response,
        }
    }

    /// The same, in JSON.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        let kind = HeaderValue::from_static("application/json");
        Self::ok((status, [(CONTENT_TYPE, kind)], body.to_string()).into_response())
    }

    /// The same, and it counts as that.
    pub fn counted_as(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }
}

/// A request that is answered. It counts when it is dropped: as cancelled,
/// unless it was told how it ended.
pub struct Call {
    operation: Operation,
    dialect: Dialect,
    outcome: Outcome,
    metrics: Metrics,
    span: Span,
}

impl Call {
    /// For a client of that dialect. What it is about is recorded in the span
    /// as it becomes known: [`about`].
    pub fn new(metrics: &Metrics, operation: Operation, dialect: Dialect) -> Self {
        let span = tracing::info_span!(
            "gha",
            operation = operation.name(),
            project = tracing::field::Empty,
            "ref" = tracing::field::Empty,
            key = tracing::field::Empty,
            subject = tracing::field::Empty,
        );
        Self {
            operation,
            dialect,
            outcome: Outcome::Cancelled,
            metrics: metrics.clone(),
            span,
        }
    }

    /// Answers with what `work` comes to.
    pub async fn answer(mut self, work: impl Future<Output = Result<Told, Failure>>) -> Response {
        match work.instrument(self.span.clone()).await {
            Ok(Told { outcome, response }) => {
                self.outcome = outcome;
                let outcome = outcome.name();
                tracing::debug!(parent: &self.span, outcome, "a runner's request was answered");
                response
            }
            Err(failure) => {
                self.outcome = failure.kind.outcome();
                let why = failure.message.as_str();
                match failure.kind {
                    Kind::Failed | Kind::Unavailable => {
                        tracing::warn!(parent: &self.span, why, "a runner's request failed");
                    }
                    Kind::Missing | Kind::Exists => {
                        tracing::debug!(parent: &self.span, why, "a runner's request was refused");
                    }
                    _ => tracing::info!(parent: &self.span, why, "a runner's request was refused"),
                }
                failure.answer(self.dialect)
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.ended(self.operation, self.outcome);
    }
}

/// Says in the log what the request is about.
pub fn about(field: &str, value: &str) {
    Span::current().record(field, value);
}

/// A runner that asks.
pub struct Asking {
    /// What it may.
    pub runner: Runner,
    /// The engine, as far as that goes.
    pub guard: Guard,
    /// Whose share it takes.
    pub client: Client,
}

/// Who makes a request with a token, or with none.
pub async fn asking(door: &Door, parts: &Parts) -> Result<Asking, Failure> {
    let peer: Option<SocketAddr> = parts.extensions.get().copied();
    let token = token(&parts.headers)?;
    let runner = Runner::new(&door.access, token).await;
    let runner = runner.inspect_err(|denied| {
        tracing::info!(reason = denied.reason(), "a runner without a valid token");
    })?;
    about("project", runner.project.as_str());
    let grant = runner.pass.grant();
    if !grant.subject().is_empty() {
        about("subject", grant.subject());
    }
    let id = telemetry::request_id(&parts.headers);
    Ok(Asking {
        client: Client::of(grant, peer),
        guard: door.cache.to(runner.pass.clone(), peer, &id),
        runner,
    })
}

fn token(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        // As actions/cache sends it where a runner, such as act, has no token.
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"bearer") => {
            Ok(None)
        }
        (Some(one), None) => {
            let token = bearer(one).ok_or(Denied::Malformed("its header"))?;
            Ok(Some(token))
        }
        (Some(_), Some(_)) => Err(Failure::invalid("one token is enough")),
    }
}

/// The door, for whom a closure moves it along.
pub type Shared = Arc<Door>;
