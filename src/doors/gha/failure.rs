//! Why there is no answer, in the shape that each kind of client reads.
//!
//! | who asks | shape |
//! |---|---|
//! | the second version | twirp's, `{"code", "msg"}` (twitchtv.github.io/twirp/docs/spec_v7.html) |
//! | the first version | `{"message", "typeKey", …}`, by which go-actions-cache knows what is there already |
//! | Azure's clients | `x-ms-error-code`, and the same in the body |
//!
//! Clients try again for minutes after 408, 429 and what begins with a 5: only
//! what may pass has these.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use super::address::{BadAddress, Twice};
use super::block_list::InvalidList;
use super::metrics::Outcome;
use crate::access::{Denied, NoRoom};
use crate::blobs::BlobError;
use crate::cache::CacheError;
use crate::cache::entries::EntryError;
use crate::catalog::CatalogError;

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// Who is to read an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Clients of the second version.
    Twirp,
    /// Clients of the first.
    First,
    /// Azure's, and whoever downloads.
    Azure,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not as it should be.
    Invalid,
    /// It is larger than what is taken.
    TooLarge,
    /// There is no token that counts.
    Unauthenticated,
    /// The token, or the address, does not grant it.
    Denied,
    /// The key is taken.
    Exists,
    /// There is no such thing, or not any more.
    Missing,
    /// It is not asked for like that.
    Method,
    /// It has no such part.
    Range,
    /// It is not what it was before.
    Changed,
    /// There is no room, by a quota or on a disk.
    Full,
    /// The body came too slowly, or not to its end.
    Slow,
    /// Too much at once.
    Busy,
    /// What is needed for it can't be reached now.
    Unavailable,
    /// The hub's own fault.
    Failed,
}

impl Kind {
    /// The status, and its names for twirp and for Azure.
    fn told(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, "invalid_argument", "InvalidInput"),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_argument",
                "RequestBodyTooLarge",
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "NoAuthenticationInformation",
            ),
            Self::Denied => (
                StatusCode::FORBIDDEN,
                "permission_denied",
                "AuthenticationFailed",
            ),
            Self::Exists => (StatusCode::CONFLICT, "already_exists", "BlobAlreadyExists"),
            Self::Missing => (StatusCode::NOT_FOUND, "not_found", "BlobNotFound"),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "bad_route",
                "UnsupportedHttpVerb",
            ),
            Self::Range => (
                StatusCode::RANGE_NOT_SATISFIABLE,
                "out_of_range",
                "InvalidRange",
            ),
            Self::Changed => (
                StatusCode::PRECONDITION_FAILED,
                "failed_precondition",
                "ConditionNotMet",
            ),
            // Room may come back, and sooner than in the minutes that clients
            // would spend on it.
            Self::Full => (StatusCode::BAD_REQUEST, "out_of_range", "QuotaExceeded"),
            Self::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "deadline_exceeded",
                "OperationTimedOut",
            ),
            Self::Busy => (
                StatusCode::TOO_MANY_REQUESTS,
                "resource_exhausted",
                "ServerBusy",
            ),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "ServerBusy"),
            Self::Failed => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "InternalError",
            ),
        }
    }

    /// What the first version calls it.
    fn type_key(self) -> &'static str {
        match self {
            Self::Exists => "ArtifactCacheItemAlreadyExistsException",
            Self::Missing => "ArtifactCacheItemNotFoundException",
            Self::Unauthenticated | Self::Denied => "AccessDeniedException",
            Self::Full => "ArtifactCacheQuotaExceededException",
            Self::Failed | Self::Unavailable | Self::Busy => "ServiceException",
            _ => "InvalidRequestException",
        }
    }

    /// What it counts as.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Invalid | Self::TooLarge | Self::Method | Self::Range | Self::Changed => {
                Outcome::Invalid
            }
            Self::Unauthenticated => Outcome::Unauthenticated,
            Self::Denied => Outcome::Denied,
            Self::Exists => Outcome::Exists,
            Self::Missing => Outcome::NotFound,
            Self::Full | Self::Busy => Outcome::Exhausted,
            Self::Slow => Outcome::Cancelled,
            Self::Unavailable | Self::Failed => Outcome::Failed,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind it is.
    pub kind: Kind,
    /// A sentence for people.
    pub message: String,
}

impl Failure {
    /// Of a kind, and why.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The client's mistake.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// The same, as what begins with `prefix` where it is a refusal: clients
    /// look for that.
    pub fn refusing(mut self, prefix: &str) -> Self {
        if self.kind == Kind::Denied {
            self.message.insert_str(0, prefix);
        }
        self
    }

    /// As an answer to those.
    pub fn answer(&self, dialect: Dialect) -> Response {
        let (mut status, _, azure) = self.kind.told();
        if dialect == Dialect::Azure && self.kind == Kind::Busy {
            // As Azure says it: its client for JavaScript gives up on 429.
            status = StatusCode::SERVICE_UNAVAILABLE;
        }
        let body = self.body(dialect);
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if dialect == Dialect::Azure {
            headers.insert(ERROR_CODE, HeaderValue::from_static(azure));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.kind, Kind::Busy | Kind::Unavailable) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }

    fn body(&self, dialect: Dialect) -> Value {
        let (_, twirp, azure) = self.kind.told();
        match dialect {
            Dialect::Twirp => json!({ "code": twirp, "msg": self.message }),
            Dialect::First => json!({
                "$id": "1",
                "message": self.message,
                "typeName": self.kind.type_key(),
                "typeKey": self.kind.type_key(),
                "errorCode": 0,
                "eventId": 3000,
            }),
            Dialect::Azure => json!({ "error": { "code": azure, "message": self.message } }),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let message = match denied {
            Denied::NoToken => "a token is needed here: `Authorization: Bearer …`".to_owned(),
            other => other.to_string(),
        };
        Self::new(Kind::Unauthenticated, message)
    }
}

impl From<NoRoom> for Failure {
    fn from(refused: NoRoom) -> Self {
        let kind = match refused {
            NoRoom::Closing => Kind::Unavailable,
            NoRoom::TooMany(_) => Kind::Busy,
        };
        Self::new(kind, refused.to_string())
    }
}

impl From<BadAddress> for Failure {
    fn from(bad: BadAddress) -> Self {
        Self::new(Kind::Denied, bad.to_string())
    }
}

impl From<Twice> for Failure {
    fn from(twice: Twice) -> Self {
        Self::invalid(twice.to_string())
    }
}

impl From<InvalidList> for Failure {
    fn from(invalid: InvalidList) -> Self {
        Self::invalid(invalid.to_string())
    }
}

impl From<EntryError> for Failure {
    fn from(error: EntryError) -> Self {
        let kind = match error {
            EntryError::Cache(error) => return error.into(),
            EntryError::NoUpload => Kind::Missing,
            EntryError::Closed | EntryError::Exists => Kind::Exists,
            EntryError::TooLarge => Kind::TooLarge,
            EntryError::Body(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                return match inner {
                    Some(no_room @ NoRoom::TooMany(_)) => no_room.clone().into(),
                    _ => Self::new(Kind::Slow, EntryError::Body(error).to_string()),
                };
            }
            _ => Kind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

/// What is wrong inside is for the log: it may tell of others.
impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        let kind = match &error {
            CacheError::Denied(_) => Kind::Denied,
            CacheError::Unauthenticated(_) => Kind::Unauthenticated,
            CacheError::Refused(_)
            | CacheError::Flushed(_)
            | CacheError::Graph(_)
            | CacheError::Missing(_) => Kind::Invalid,
            CacheError::Blob(BlobError::NotFound(_)) | CacheError::Lost(_) => Kind::Missing,
            CacheError::Blob(BlobError::WrongDigest { .. } | BlobError::WrongSize { .. }) => {
                Kind::Invalid
            }
            CacheError::Exhausted(_)
            | CacheError::Blob(BlobError::Full(_) | BlobError::Refused(_))
            | CacheError::Catalog(CatalogError::Full(_)) => Kind::Full,
            CacheError::Unavailable(_)
            | CacheError::Foreign(_)
            | CacheError::Blob(_)
            | CacheError::Catalog(_) => {
                tracing::warn!(%error, "the cache failed a runner");
                let text = "the hub can't do that now: its log says why";
                return Self::new(Kind::Unavailable, text);
            }
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, dialect: Dialect) -> (u16, Value) {
        let failure = Failure::new(kind, "why");
        let status = failure.answer(dialect).status().as_u16();
        (status, failure.body(dialect))
    }

    #[test]
    fn what_is_there_already_is_told_as_each_client_looks_for_it() {
        let (status, body) = told(Kind::Exists, Dialect::Twirp);
        assert_eq!(status, 409);
        assert_eq!(body, json!({"code": "already_exists", "msg": "why"}));
        let (status, body) = told(Kind::Exists, Dialect::First);
        assert_eq!(status, 409);
        assert_eq!(body["typeKey"], "ArtifactCacheItemAlreadyExistsException");
        assert_eq!(body["message"], "why");
    }

    #[test]
    fn a_refusal_begins_as_clients_expect_and_other_errors_do_not() {
        let denied = Failure::new(Kind::Denied, "no").refusing("cache write denied: ");
        assert_eq!(denied.message, "cache write denied: no");
        let missing = Failure::new(Kind::Missing, "no").refusing("cache write denied: ");
        assert_eq!(missing.message, "no");
    }

    #[test]
    fn azures_clients_are_told_to_come_again_as_azure_tells_them() {
        let busy = Failure::new(Kind::Busy, "why");
        let status = |dialect| busy.answer(dialect).status().as_u16();
        assert_eq!(status(Dialect::Azure), 503);
        assert_eq!((status(Dialect::Twirp), status(Dialect::First)), (429, 429));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let again = |status: u16| matches!(status, 408 | 429) || status >= 500;
        for (kind, passing) in [
            (Kind::Invalid, false),
            (Kind::TooLarge, false),
            (Kind::Unauthenticated, false),
            (Kind::Denied, false),
            (Kind::Exists, false),
            (Kind::Missing, false),
            (Kind::Method, false),
            (Kind::Range, false),
            (Kind::Changed, false),
            (Kind::Full, false),
            (Kind::Slow, true),
            (Kind::Busy, true),
            (Kind::Unavailable, true),
            (Kind::Failed, true),
        ] {
            for dialect in [Dialect::Twirp, Dialect::First, Dialect::Azure] {
                let answer = Failure::new(kind, "why").answer(dialect);
                assert_eq!(again(answer.status().as_u16()), passing, "{kind:?}");
                assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
            }
        }
        let unauthenticated = Failure::from(Denied::NoToken).answer(Dialect::Twirp);
        assert_eq!(unauthenticated.headers()[WWW_AUTHENTICATE], "Bearer");
    }
}
