//! Bytes, out: at addresses that this hub has signed, to whoever has one.
//!
//! Clients of Azure's kind want an ETag and a length of a HEAD, and ask for
//! parts by a header of their own; others want the exact `Content-Range` of a
//! part. What is sent is what was saved, whatever a client says that it accepts.
//! Clients wait for 5 s for the next byte once they have an answer: it begins
//! when the first ones are there.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, StreamExt as _};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_MATCH, LOCATION, RANGE,
};
use http::request::Parts;
use http::{Method, StatusCode};

use super::bodies::lasting;
use super::call::{Call, Shared, Told};
use super::failure::{Dialect, Failure, Kind};
use super::metrics::{Direction, Metrics, Operation, Outcome};
use super::range::{Span, Wanted, X_MS_RANGE, wanted};
use super::reading::Readable;
use crate::access::Pass;
use crate::blobs::BlobStream;

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
/// How long a download may wait for its turn: nothing is sent meanwhile, so that
/// no client counts.
const TURN: Duration = Duration::from_secs(60);

/// What is kept for an answer until its last byte is on the wire, by whoever
/// writes it.
type Kept = Arc<dyn Any + Send + Sync>;

/// Gives what an address is about, or tells of it.
pub async fn get(
    State(door): State<Shared>,
    Path(what): Path<String>,
    request: Request,
) -> Response {
    let call = Call::new(&door.metrics, Operation::Download, Dialect::Azure);
    call.answer(async {
        let (parts, _) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let mut readable = door.readable(&what, query, &parts).await?;
        if let Some(location) = elsewhere(&door, &parts, &readable).await? {
            return Ok(location);
        }
        let client = door.reader(&readable, &parts);
        let turn = door
            .reads
            .take_within(TURN, &client, 1, "downloads")
            .await?;
        let (span, status) = span(&parts.headers, &readable)?;
        let mut response = match parts.method {
            Method::HEAD => Response::new(Body::empty()),
            _ => {
                let bytes = door.bytes(&readable, span).await?;
                let pass = readable.pass.clone();
                Response::new(streamed(bytes, pass, door.metrics.clone()).await?)
            }
        };
        *response.status_mut() = status;
        describe(response.headers_mut(), &readable, status, span);
        let kept: Kept = Arc::new((turn, readable.room()));
        response.extensions_mut().insert(kept);
        Ok(Told::ok(response))
    })
    .await
}

/// Sends a client to a bucket, where all of it is one object there and the
/// client wants all, and comes back if it can't have it: one that asks for a
/// part, or for what is known of it, compares what it hears with what it has
/// heard here.
async fn elsewhere(
    door: &Shared,
    parts: &Parts,
    readable: &Readable,
) -> Result<Option<Told>, Failure> {
    let part = parts.headers.contains_key(RANGE) || parts.headers.contains_key(X_MS_RANGE);
    if !door.redirect || part || parts.method != Method::GET {
        return Ok(None);
    }
    let Some(location) = door.locate(readable).await? else {
        return Ok(None);
    };
    let Ok(location) = HeaderValue::from_str(location.as_str()) else {
        return Ok(None);
    };
    let peer: Option<&SocketAddr> = parts.extensions.get();
    if !door.away.sends(readable.asked, peer.map(SocketAddr::ip)) {
        return Ok(None);
    }
    let headers = [
        (LOCATION, location),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let redirected = Told::ok((StatusCode::FOUND, headers).into_response());
    Ok(Some(redirected.counted_as(Outcome::Redirected)))
}

/// What is sent, and how that is called.
fn span(headers: &HeaderMap, readable: &Readable) -> Result<(Span, StatusCode), Failure> {
    let size = readable.size;
    let changed = headers.get_all(IF_MATCH).iter().any(|tags| {
        let tags = tags.to_str().unwrap_or_default();
        tags != "*" && !tags.split(',').any(|tag| tag.trim() == readable.etag)
    });
    if changed {
        return Err(Failure::new(Kind::Changed, "it is not what it was"));
    }
    match wanted(headers, size) {
        Wanted::All => Ok((
            Span {
                start: 0,
                length: size,
            },
            StatusCode::OK,
        )),
        Wanted::Part(span) => Ok((span, StatusCode::PARTIAL_CONTENT)),
        Wanted::Nothing => {
            let text = format!("it has {size} bytes, and not those");
            Err(Failure::new(Kind::Range, text))
        }
    }
}

fn describe(headers: &mut HeaderMap, readable: &Readable, status: StatusCode, span: Span) {
    headers.insert(CONTENT_LENGTH, span.length.into());
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert(BLOB_TYPE, HeaderValue::from_static("BlockBlob"));
    if let Ok(etag) = HeaderValue::from_str(&readable.etag) {
        headers.insert(ETAG, etag);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let end = span.start + span.length - 1;
        let range = format!("bytes {}-{end}/{}", span.start, readable.size);
        if let Ok(range) = HeaderValue::from_str(&range) {
            headers.insert(CONTENT_RANGE, range);
        }
    }
}

/// A body of bytes of which the first are there.
async fn streamed(mut bytes: BlobStream, pass: Pass, metrics: Metrics) -> Result<Body, Failure> {
    let first = bytes.next().await.transpose();
    let first = first.map_err(|error| Failure::from(crate::cache::CacheError::from(error)))?;
    let rest = match first {
        Some(_) => bytes,
        // A stream that has ended is not asked again.
        None => stream::empty().boxed(),
    };
    let all = stream::iter(first.map(Ok)).chain(rest);
    let counted = lasting(all.boxed(), pass).inspect(move |bytes| match bytes {
        Ok(bytes) => metrics.passed(Direction::Down, bytes.len()),
        Err(error) => tracing::warn!(%error, "a download broke off"),
    });
    Ok(Body::from_stream(counted))
}
