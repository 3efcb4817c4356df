//! The door for those who have no token yet: `POST /v1/token` takes a CI's
//! identity token and gives one of ours for it (RFC 8693, with the errors of RFC
//! 6749, 5.2).
//!
//! | field | what |
//! |---|---|
//! | `grant_type` | `urn:ietf:params:oauth:grant-type:token-exchange` |
//! | `subject_token` | the identity token |
//! | `subject_token_type` | `urn:ietf:params:oauth:token-type:id_token`, or `…:jwt` |
//! | `requested_token_type` | may be left out, or `…:access_token` or `…:jwt` |
//! | `audience` | may be left out, or `layerd` |
//! | `scope` | may be left out, or `read`, `write` or both: no more than that is granted |

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, PRAGMA, RETRY_AFTER};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::identity::{Exchange, Exchanged, Rejected, Wanted};

/// The longest body, in bytes.
const MAX_BODY: usize = 64 << 10;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The fields that are read; others may be there (RFC 6749, 3.2).
const FIELDS: [&str; 8] = [
    "grant_type",
    "subject_token",
    "subject_token_type",
    "requested_token_type",
    "actor_token",
    "resource",
    "audience",
    "scope",
];

/// What is asked: the names and meanings of RFC 8693, 2.1.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes a form that is read field by field")]
struct TokenRequest {
    /// `urn:ietf:params:oauth:grant-type:token-exchange`
    grant_type: String,
    /// The identity token.
    subject_token: String,
    /// `urn:ietf:params:oauth:token-type:id_token` or `…:jwt`
    subject_token_type: String,
    /// `urn:ietf:params:oauth:token-type:access_token` or `…:jwt`, where it is
    /// not left out.
    requested_token_type: Option<String>,
    /// `layerd`, where it is not left out.
    audience: Option<String>,
    /// `read`, `write` or both: no more than that is granted.
    scope: Option<String>,
}

/// A token of layerd (RFC 8693, 2.2.1).
#[derive(Serialize, ToSchema)]
struct TokenAnswer {
    /// It.
    access_token: String,
    /// `urn:ietf:params:oauth:token-type:access_token`
    issued_token_type: &'static str,
    /// `Bearer`
    token_type: &'static str,
    /// For how many seconds it is good.
    expires_in: u64,
    /// What it grants: `read`, `write` or both.
    scope: String,
}

/// Why there is none (RFC 6749, 5.2).
#[derive(Serialize, ToSchema)]
struct TokenError {
    /// A short name, for programs.
    error: &'static str,
    /// A sentence, for people.
    error_description: String,
}

fn routes() -> OpenApiRouter<Arc<Exchange>> {
    OpenApiRouter::new().routes(routes!(answer))
}

/// What the OpenAPI document of a hub says of it.
pub fn described() -> OpenApi {
    routes().into_openapi()
}

/// The pages of this door.
pub fn router(exchange: Arc<Exchange>) -> Router {
    let (routes, _) = routes().split_for_parts();
    routes
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(exchange)
}

/// What is said instead of a token.
struct Error {
    status: StatusCode,
    code: &'static str,
    description: String,
}

impl Error {
    fn of(code: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            description: description.into(),
        }
    }

    fn request(description: impl Into<String>) -> Self {
        Self::of("invalid_request", description)
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        let (status, code) = match &rejected {
            Rejected::Busy => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            Rejected::Unavailable(..) => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
            }
            Rejected::TooLong | Rejected::Malformed(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            Rejected::Scope(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
            _ => (StatusCode::BAD_REQUEST, "invalid_grant"),
        };
        Self {
            status,
            code,
            description: rejected.to_string(),
        }
    }
}

/// A token for a CI's own identity token, by the hub's rules. It needs no other
/// token; a hub without issuers answers 404.
#[utoipa::path(post, path = "/v1/token", tag = "tokens", operation_id = "exchange_token",
    security(()),
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = OK, body = TokenAnswer), (status = "default", body = TokenError)))]
async fn answer(
    State(exchange): State<Arc<Exchange>>,
    peer: Option<Extension<SocketAddr>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answered = match body {
        Ok(body) => exchanged(&exchange, peer.map(|peer| peer.0), &headers, &body).await,
        Err(rejection) => Err(Error {
            status: rejection.status(),
            ..Error::request(format!("a form of at most {MAX_BODY} bytes is expected"))
        }),
    };
    let mut response = match answered {
        Ok(granted) => Json(granted).into_response(),
        Err(error) => {
            let told = TokenError {
                error: error.code,
                error_description: plain(&error.description),
            };
            (error.status, Json(told)).into_response()
        }
    };
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// The characters that a description may have (RFC 6749, 5.2).
fn plain(text: &str) -> String {
    let shown = |letter: char| match letter {
        '"' => '\'',
        ' '..='~' if letter != '\\' => letter,
        _ => '?',
    };
    text.replace('…', "...").chars().map(shown).collect()
}

async fn exchanged(
    exchange: &Exchange,
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<TokenAnswer, Error> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    if !kind
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    {
        return Err(Error {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ..Error::request("a form is expected: application/x-www-form-urlencoded")
        });
    }
    let fields = fields(body)?;
    let field = |name: &str| fields.get(name).map(String::as_str);
    let needed =
        |name: &str| field(name).ok_or_else(|| Error::request(format!("{name} is missing")));
    if needed("grant_type")? != EXCHANGE {
        let text = format!("only {EXCHANGE} is answered here");
        return Err(Error::of("unsupported_grant_type", text));
    }
    let token = needed("subject_token")?;
    if ![ID_TOKEN, JWT].contains(&needed("subject_token_type")?) {
        let text = format!("subject_token_type has to be {ID_TOKEN} or {JWT}");
        return Err(Error::request(text));
    }
    if field("actor_token").is_some() {
        return Err(Error::request(
            "nobody can act for another here: no actor_token",
        ));
    }
    if field("requested_token_type").is_some_and(|kind| ![ACCESS_TOKEN, JWT].contains(&kind)) {
        return Err(Error::request(format!("only {ACCESS_TOKEN} is made here")));
    }
    if field("audience").is_some_and(|audience| audience != "layerd") || field("resource").is_some()
    {
        let text = "tokens are for layerd alone: leave audience and resource out";
        return Err(Error::of("invalid_target", text));
    }
    let wanted = wanted(field("scope"))?;
    let Exchanged {
        minted, granted, ..
    } = exchange.exchange(token, wanted, peer).await?;
    let scopes = [
        ("read", granted.read.is_empty()),
        ("write", granted.write.is_empty()),
    ];
    let scopes = scopes.iter().filter(|(_, empty)| !empty);
    let scopes: Vec<_> = scopes.map(|(scope, _)| *scope).collect();
    Ok(TokenAnswer {
        access_token: minted.token.expose().to_owned(),
        issued_token_type: ACCESS_TOKEN,
        token_type: "Bearer",
        expires_in: granted.lifetime.as_secs(),
        scope: scopes.join(" "),
    })
}

/// The fields of a form. One that is empty counts as left out, and none may be
/// there twice (RFC 6749, 3.2).
fn fields(body: &[u8]) -> Result<HashMap<&'static str, String>, Error> {
    let mut fields = HashMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        let Some(known) = FIELDS.into_iter().find(|known| *known == name) else {
            continue;
        };
        if !value.is_empty() && fields.insert(known, value.into_owned()).is_some() {
            return Err(Error::request(format!("{known} is there twice")));
        }
    }
    Ok(fields)
}

fn wanted(scope: Option<&str>) -> Result<Wanted, Error> {
    let Some(scope) = scope else {
        return Ok(Wanted {
            read: true,
            write: true,
        });
    };
    let scopes: Vec<_> = scope.split(' ').filter(|scope| !scope.is_empty()).collect();
    match scopes.iter().all(|scope| ["read", "write"].contains(scope)) {
        true => Ok(Wanted {
            read: scopes.contains(&"read"),
            write: scopes.contains(&"write"),
        }),
        false => Err(Error::of("invalid_scope", "a scope is read, write or both")),
    }
}
