//! What a front counts.

use std::sync::atomic::AtomicU64;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::metrics::{Label as _, label};

/// How requests are counted that are for no route.
pub(super) const NO_ROUTE: &str = "none";

label! {
    /// How a request ended.
    Outcome as "outcome" {
        /// Well.
        Ok = "ok",
        /// What was asked for is not there, or not any more.
        NotFound = "not_found",
        /// The client's mistake.
        Invalid = "invalid",
        /// Without a valid token.
        Unauthenticated = "unauthenticated",
        /// With a token that does not grant it.
        Denied = "denied",
        /// Too much at once.
        Exhausted = "exhausted",
        /// The hub's own fault, or its backends'.
        Failed = "failed",
        /// The client went away before it had an answer.
        Cancelled = "cancelled",
    }
}

impl Outcome {
    /// What a status stands for.
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::NotFound,
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::Denied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::Exhausted,
            status if status.is_client_error() => Self::Invalid,
            status if status.is_server_error() => Self::Failed,
            _ => Self::Ok,
        }
    }
}

/// A route and an outcome.
type Ended = Vec<(&'static str, String)>;

/// The metrics of a front; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Family<Ended, Counter<u64, AtomicU64>>,
    connections: Gauge,
    faulty: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "layerd_http_requests",
            "Requests that are no calls of gRPC, by the route that they were for",
            metrics.requests.clone(),
        );
        registry.register(
            "layerd_hub_connections",
            "Connections of clients",
            metrics.connections.clone(),
        );
        registry.register(
            "layerd_hub_faulty_connections",
            "Connections that were closed for what their client did on them",
            metrics.faulty.clone(),
        );
        for outcome in Outcome::ALL {
            drop(metrics.requests.get_or_create(&ended(NO_ROUTE, *outcome)));
        }
        metrics
    }

    /// Counts a request. Routes are patterns, of which there are few.
    pub(super) fn ended(&self, route: &str, outcome: Outcome) {
        self.requests.get_or_create(&ended(route, outcome)).inc();
    }

    /// Counts a connection that was closed for what its client did.
    pub(super) fn faulty(&self) {
        self.faulty.inc();
    }

    /// A connection, until what this gives is dropped.
    pub(super) fn connected(&self) -> Counted {
        self.connections.inc();
        Counted(self.connections.clone())
    }
}

fn ended(route: &str, outcome: Outcome) -> Ended {
    vec![
        ("route", route.to_owned()),
        (Outcome::NAME, outcome.value().to_owned()),
    ]
}

/// One more in a gauge, until it is dropped.
pub(super) struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
