//! What is answered: pages of something, and errors of one shape.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Denied, MintError};
use crate::cache::CacheError;
use crate::catalog::CatalogError;

/// Items of one page unless more or fewer are asked for.
const ITEMS: u32 = 100;
/// The most items of one page.
const MAX_ITEMS: u32 = 1000;

/// Some of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// These.
    pub items: Vec<T>,
    /// What to give as `after` for those behind them; not there on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Of `limit` items that were asked for these came; `next` is that of the
    /// last one.
    pub(super) fn of(items: Vec<T>, limit: u32, next: impl Fn(&T) -> String) -> Self {
        let is_full = items.len() >= limit as usize;
        Self {
            next: items.last().filter(|_| is_full).map(next),
            items,
        }
    }
}

/// How many items are wanted.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Failure> {
    match asked {
        None => Ok(ITEMS),
        Some(1..=MAX_ITEMS) => Ok(asked.unwrap_or(ITEMS)),
        Some(_) => Err(Failure::request(format!("limit is 1 to {MAX_ITEMS}"))),
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// It.
    pub error: Why,
}

/// A reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// A short name, for programs.
    pub code: String,
    /// A sentence, for people.
    pub message: String,
}

/// The same inside.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn busy() -> Self {
        let text = "too many requests at a time with this token: wait for one to end";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let fault = Fault {
            error: Why {
                code: self.code.to_owned(),
                message: self.message,
            },
        };
        let mut response = (self.status, axum::Json(fault)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let message = match denied {
            Denied::NoToken => {
                "an admin token is needed here: `Authorization: Bearer …`".to_owned()
            }
            other => other.to_string(),
        };
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }
}

/// What is wrong inside is for the log: it may tell of others.
impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        tracing::warn!(%error, "the catalog failed an administrator");
        match error {
            CatalogError::Busy(_)
            | CatalogError::ReadOnly(_)
            | CatalogError::Full(_)
            | CatalogError::Unavailable { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the hub's catalog can't do that now: see its log, and try again",
            ),
            _ => Self::inside(),
        }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        tracing::warn!(%error, "the cache failed an administrator");
        Self::inside()
    }
}

impl From<MintError> for Failure {
    fn from(error: MintError) -> Self {
        match error {
            MintError::NoKey => Self::conflict(
                "the hub has no private key, so that it can't sign: mint with `layerd token mint --token-key-file`",
            ),
            error => Self::request(error.to_string()),
        }
    }
}

impl Failure {
    fn inside() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            "that failed: the hub's log says why",
        )
    }
}
