//! The second version: twirp's `github.actions.results.api.v1.CacheService`,
//! which gives addresses, and takes and gives no bytes itself.
//!
//! Source: the messages that `@actions/cache` and go-actions-cache exchange
//! (`packages/cache/src/generated/results/api/v1/cache.ts`, `cache_v2.go`).

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::away::Returns;
use super::call::{Call, Shared, Told, asking};
use super::desk::WRITE_DENIED;
use super::failure::{Dialect, Failure};
use super::messages::{Create, Finalize, Find};
use super::metrics::{Operation, Outcome};
use crate::cache::entries::Which;

/// Where its methods are.
pub const PATH: &str = "/twirp/github.actions.results.api.v1.CacheService";

/// Asks for an address that a new key's bytes can be sent to.
pub async fn create(State(door): State<Shared>, request: Request) -> Response {
    let call = Call::new(&door.metrics, Operation::Reserve, Dialect::Twirp);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let asking = asking(&door, &parts).await?;
        let create: Create = door.json(&asking, &parts, body).await?;
        let base = door.base_of(&parts)?;
        let slot = door.reserve(&asking, create.name()?).await;
        let slot = slot.map_err(|failure| failure.refusing(WRITE_DENIED))?;
        let address = door.upload_address(&base, &slot).await?;
        let body = json!({ "ok": true, "signed_upload_url": address });
        Ok(Told::json(StatusCode::OK, &body))
    })
    .await
}

/// Ends an upload.
pub async fn finalize(State(door): State<Shared>, request: Request) -> Response {
    let call = Call::new(&door.metrics, Operation::Finalize, Dialect::Twirp);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let asking = asking(&door, &parts).await?;
        let ending: Finalize = door.json(&asking, &parts, body).await?;
        let which = Which::Named(ending.name()?);
        let id = door.finalize(asking, which, ending.size).await?;
        let body = json!({ "ok": true, "entry_id": id.to_string() });
        Ok(Told::json(StatusCode::OK, &body))
    })
    .await
}

/// Asks for an address that what a key has can be read from.
pub async fn find(State(door): State<Shared>, request: Request) -> Response {
    let call = Call::new(&door.metrics, Operation::Find, Dialect::Twirp);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let asking = asking(&door, &parts).await?;
        let find: Find = door.json(&asking, &parts, body).await?;
        let base = door.base_of(&parts)?;
        let look_up = find.look_up()?;
        let found = door.find(&asking, &base, &look_up, Returns::Often).await?;
        let Some(hit) = found else {
            let told = Told::json(StatusCode::OK, &json!({ "ok": false }));
            return Ok(told.counted_as(Outcome::Miss));
        };
        let body = json!({
            "ok": true,
            "signed_download_url": hit.address,
            "matched_key": hit.key,
        });
        Ok::<_, Failure>(Told::json(StatusCode::OK, &body))
    })
    .await
}
