//! The door for runners that have no sidecar: the protocol of the GitHub Actions
//! cache, in both of its versions, as BuildKit's `type=gha` and `actions/cache`
//! speak it.
//!
//! What a key begins with says what it is. BuildKit's layers become blobs of the
//! project, and its indexes exports of it, so that every other door has them and
//! this one serves what others wrote. All else is an entry: bytes by a key that
//! never changes. The engine knows the difference, and this door does not.
//!
//! A token is asked for where somebody reserves, ends or looks up; bytes go to
//! and come from addresses that were signed for one upload, or for one thing
//! that is there.
//!
//! | file | what |
//! |---|---|
//! | `first`, `second` | the two versions |
//! | `uploads`, `downloads` | bytes, in and out |
//! | `desk`, `reading` | what all of them ask of the engine: to bring, and to get |
//! | `call` | one request: who, what for, how it ended |
//! | `messages`, `bodies`, `range`, `block_list` | what is sent, taken apart |
//! | `address`, `base` | what clients are told to go to |
//! | `away` | whether they are sent on to a bucket |
//! | `failure` | what they are told instead |

mod address;
mod away;
mod base;
mod block_list;
mod bodies;
mod call;
mod desk;
mod downloads;
mod failure;
mod first;
mod messages;
mod metrics;
mod places;
mod range;
mod reading;
mod second;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, patch, post, put};
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

use self::address::Signer;
use self::away::Away;
pub use self::base::{Base, PublicUrl};
use self::bodies::Coming;
use self::call::Asking;
use self::failure::{Dialect, Failure, Kind};
pub use self::metrics::Metrics;
use crate::access::{Access, Shares};
use crate::cache::entries::Entries;
use crate::cache::guard::Guarded;
use crate::telemetry;

/// Requests whose document is on its way, in units of 64 KiB, and how many of
/// them one client has: the longest list of blocks has to fit.
const MESSAGES: [usize; 2] = [512, 256];
/// Memory for indexes that are worked on, in KiB, and how much of it one client
/// has: the largest has to fit.
const INDEXES: [usize; 2] = [96 << 10, 72 << 10];
/// Indexes that are put together, or are on their way out, at a time.
const UNIONS: usize = 16;
/// What is downloaded at a time: what a client does not read takes about a MiB.
const READS: usize = 128;

/// What is taken of a body that nobody wants, in bytes, and for how long.
const MAX_UNWANTED: usize = 64 << 10;
const UNWANTED: Duration = Duration::from_secs(2);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const VERSION: HeaderName = HeaderName::from_static("x-ms-version");

/// What the door needs.
pub struct Config {
    /// Who may what.
    pub access: Arc<Access>,
    /// The engine, for those with a token.
    pub cache: Guarded,
    /// The engine, for those with an address.
    pub entries: Entries,
    /// Where clients reach it.
    pub base: Base,
    /// Whether they are sent to a bucket for what is there.
    pub redirect: bool,
    /// Places for uploads.
    pub uploads: Shares,
    /// Where uploads end, though their client may go away meanwhile.
    pub tasks: TaskTracker,
    /// What is counted.
    pub metrics: Metrics,
}

/// What all requests share.
struct Door {
    access: Arc<Access>,
    cache: Guarded,
    entries: Entries,
    base: Base,
    redirect: bool,
    away: Away,
    signer: OnceCell<Signer>,
    uploads: Shares,
    messages: Shares,
    indexes: Shares,
    reads: Shares,
    unions: Shares,
    tasks: TaskTracker,
    metrics: Metrics,
}

impl Door {
    /// What the addresses for whoever sent this begin with.
    fn base_of(&self, parts: &Parts) -> Result<String, Failure> {
        let base = self.base.of(&parts.uri, &parts.headers);
        base.ok_or_else(|| Failure::invalid("the request does not say for which host it is"))
    }

    /// What a runner says in JSON.
    async fn json<T: DeserializeOwned>(
        &self,
        asking: &Asking,
        parts: &Parts,
        body: Body,
    ) -> Result<T, Failure> {
        let coming = Coming::new(body, &self.metrics);
        bodies::json(&self.messages, &asking.client, &parts.headers, coming).await
    }
}

/// The pages of this door.
pub fn router(config: Config) -> Router {
    let door = Arc::new(Door {
        access: config.access,
        cache: config.cache,
        entries: config.entries,
        base: config.base,
        redirect: config.redirect,
        away: Away::default(),
        signer: OnceCell::new(),
        uploads: config.uploads,
        messages: Shares::new(MESSAGES[0], MESSAGES[1]),
        indexes: Shares::new(INDEXES[0], INDEXES[1]),
        reads: Shares::halved(READS),
        unions: Shares::halved(UNIONS),
        tasks: config.tasks,
        metrics: config.metrics,
    });
    let first = Router::new()
        .route("/cache", get(first::find))
        .route("/caches", post(first::reserve))
        .route("/caches/{id}", patch(first::chunk).post(first::commit))
        .fallback(async |request: Request| missing(request, Dialect::First).await)
        .method_not_allowed_fallback(async |request: Request| {
            not_like_that(request, Dialect::First).await
        });
    let second = Router::new()
        .route("/CreateCacheEntry", post(second::create))
        .route("/FinalizeCacheEntryUpload", post(second::finalize))
        .route("/GetCacheEntryDownloadURL", post(second::find))
        .fallback(async |request: Request| missing(request, Dialect::Twirp).await)
        .method_not_allowed_fallback(async |request: Request| {
            not_like_that(request, Dialect::Twirp).await
        });
    Router::new()
        .nest(first::PATH, first)
        .nest(second::PATH, second)
        .route("/gha/up/{what}", put(uploads::put))
        .route("/gha/down/{what}", get(downloads::get).head(downloads::get))
        .method_not_allowed_fallback(async |request: Request| {
            not_like_that(request, Dialect::Azure).await
        })
        // Bodies are bounded where they are read.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(mark))
        .with_state(door)
}

async fn missing(request: Request, dialect: Dialect) -> Response {
    taken_in(request).await;
    Failure::new(Kind::Missing, "there is nothing here").answer(dialect)
}

async fn not_like_that(request: Request, dialect: Dialect) -> Response {
    taken_in(request).await;
    Failure::new(Kind::Method, "that method is not for this").answer(dialect)
}

/// Takes a small body that nobody wants: a client of HTTP/2 may take its stream
/// for broken that is answered while it sends.
async fn taken_in(request: Request) {
    let body = axum::body::to_bytes(request.into_body(), MAX_UNWANTED);
    let _ = tokio::time::timeout(UNWANTED, body).await;
}

/// What every answer has: Azure's client for Go takes it for granted that there
/// is a number.
async fn mark(request: Request, next: Next) -> Response {
    let id = telemetry::request_id(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(VERSION, HeaderValue::from_static("2025-05-05"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let cached = headers.entry(CACHE_CONTROL);
    cached.or_insert(HeaderValue::from_static("no-store"));
    response
}
