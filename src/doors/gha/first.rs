//! The first version: `_apis/artifactcache`, which takes bytes in chunks.
//!
//! Source: what `@actions/cache` and go-actions-cache send
//! (`packages/cache/src/internal/cacheHttpClient.ts`, `cache.go`). Chunks come
//! several at a time, in any order, and without their length but for the range.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http::request::Parts;
use serde_json::json;

use super::away::Returns;
use super::bodies::Coming;
use super::call::{Call, Shared, Told, asking};
use super::desk::WRITE_DENIED;
use super::failure::{Dialect, Failure, Kind};
use super::messages::{Commit, Reserve, look_up_of};
use super::metrics::{Operation, Outcome};
use super::range::{Span, of_chunk};
use crate::cache::entries::{EntryError, MAX_ENTRY, UploadId, Which};

/// Where it is.
pub const PATH: &str = "/_apis/artifactcache";

/// Looks keys up: 204 where none has anything.
pub async fn find(State(door): State<Shared>, request: Request) -> Response {
    let call = Call::new(&door.metrics, Operation::Find, Dialect::First);
    call.answer(async {
        let (parts, _) = request.into_parts();
        let asking = asking(&door, &parts).await?;
        let look_up = look_up_of(parts.uri.query().unwrap_or_default())?;
        let base = door.base_of(&parts)?;
        let found = door.find(&asking, &base, &look_up, Returns::Never).await?;
        let Some(hit) = found else {
            let nothing = Told::ok(StatusCode::NO_CONTENT.into_response());
            return Ok(nothing.counted_as(Outcome::Miss));
        };
        let body = json!({
            "cacheKey": hit.key,
            "cacheVersion": look_up.version,
            "scope": hit.scope,
            "creationTime": hit.created,
            "archiveLocation": hit.address,
        });
        Ok(Told::json(StatusCode::OK, &body))
    })
    .await
}

/// Reserves a key.
pub async fn reserve(State(door): State<Shared>, request: Request) -> Response {
    let call = Call::new(&door.metrics, Operation::Reserve, Dialect::First);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let asking = asking(&door, &parts).await?;
        let reserve: Reserve = door.json(&asking, &parts, body).await?;
        if reserve.size.is_some_and(|size| size > MAX_ENTRY) {
            // Not 413: to the client this status alone means the size.
            let text = format!("an entry has at most {MAX_ENTRY} bytes");
            return Err(Failure::invalid(text));
        }
        let slot = door.reserve(&asking, reserve.name()?).await;
        let slot = slot.map_err(|failure| failure.refusing(WRITE_DENIED))?;
        let body = json!({ "cacheId": slot.id });
        Ok(Told::json(StatusCode::CREATED, &body))
    })
    .await
}

/// Takes a chunk.
pub async fn chunk(
    State(door): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let call = Call::new(&door.metrics, Operation::Upload, Dialect::First);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let mut coming = Coming::new(body, &door.metrics);
        let taken = async {
            let asking = asking(&door, &parts).await?;
            let id = upload(&id)?;
            let span = span(&parts)?;
            door.put_chunk(&asking, id, span, &mut coming).await
        };
        let taken = taken.await;
        if taken.is_err() {
            coming.drain().await;
        }
        taken.map(|()| Told::ok(StatusCode::NO_CONTENT.into_response()))
    })
    .await
}

/// Ends an upload.
pub async fn commit(
    State(door): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let call = Call::new(&door.metrics, Operation::Finalize, Dialect::First);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let asking = asking(&door, &parts).await?;
        let id = upload(&id)?;
        let commit: Commit = door.json(&asking, &parts, body).await?;
        door.finalize(asking, Which::Upload(id), commit.size)
            .await?;
        Ok(Told::ok(StatusCode::NO_CONTENT.into_response()))
    })
    .await
}

fn upload(id: &str) -> Result<UploadId, Failure> {
    let digits = id.bytes().all(|byte| byte.is_ascii_digit());
    let id = digits.then(|| id.parse().ok()).flatten();
    id.ok_or_else(|| EntryError::NoUpload.into())
}

fn span(parts: &Parts) -> Result<Span, Failure> {
    let range = parts.headers.get(CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .and_then(of_chunk);
    let span = range
        .ok_or_else(|| Failure::invalid("Content-Range has to be there, and like `bytes 0-9/*`"))?;
    match span.start.checked_add(span.length) {
        Some(end) if end <= MAX_ENTRY => Ok(span),
        _ => {
            let text = format!("an entry has at most {MAX_ENTRY} bytes");
            Err(Failure::new(Kind::TooLarge, text))
        }
    }
}
