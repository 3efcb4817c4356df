//! Bytes, in: Azure's block blobs, as far as clients of the second version use
//! them, at addresses that this hub has signed.
//!
//! | request | what |
//! |---|---|
//! | `PUT` | Put Blob: all of it |
//! | `PUT …&comp=block&blockid=ID` | Put Block: a part, in any order |
//! | `PUT …&comp=blocklist` | Put Block List: which parts, in order |
//!
//! Source: learn.microsoft.com/rest/api/storageservices. Clients want exactly
//! 201. What was refused leaves nothing; what is sent again replaces what was
//! there.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use http::request::Parts;

use super::address::single;
use super::block_list::{self, is_id};
use super::bodies::{Coming, document};
use super::call::{Call, Shared, Told};
use super::failure::{Dialect, Failure, Kind};
use super::metrics::Operation;
use crate::cache::entries::{MAX_ENTRY, Piece, UploadId};

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");

/// Takes what comes to an address.
pub async fn put(
    State(door): State<Shared>,
    Path(what): Path<String>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let comp = single(&query, "comp");
    let operation = match &comp {
        Ok(Some(comp)) if comp == "blocklist" => Operation::Arrange,
        _ => Operation::Upload,
    };
    let call = Call::new(&door.metrics, operation, Dialect::Azure);
    call.answer(async {
        let (parts, body) = request.into_parts();
        let slot = door.slot(&what, &query).await;
        if operation == Operation::Arrange {
            let (slot, _) = slot?;
            let client = door.client_of(&slot, &parts);
            let most = block_list::MAX_BODY;
            let coming = Coming::new(body, &door.metrics);
            let list = document(&door.messages, &client, coming, most).await?;
            let names = block_list::parse(&list)?;
            door.arrange(&slot, &names).await?;
            return Ok(created());
        }
        let mut coming = Coming::new(body, &door.metrics);
        let taken = async {
            let (slot, pass) = slot?;
            let length = length(&parts.headers)?;
            let block = block(comp?.as_deref(), &query, &parts)?;
            let client = door.client_of(&slot, &parts);
            let piece = block.as_deref().map_or(Piece::Whole, Piece::Block);
            let upload = UploadId(slot.id);
            door.put((&client, pass), upload, piece, length, &mut coming)
                .await
        };
        let taken = taken.await;
        if taken.is_err() {
            coming.drain().await;
        }
        taken.map(|()| created())
    })
    .await
}

/// The id of the block that a request brings; none where it brings all.
fn block(comp: Option<&str>, query: &str, parts: &Parts) -> Result<Option<String>, Failure> {
    match comp {
        None => match parts.headers.get(BLOB_TYPE) {
            Some(kind) if kind != "BlockBlob" => {
                Err(Failure::invalid("only blobs of blocks are taken here"))
            }
            _ => Ok(None),
        },
        Some("block") => {
            let id = single(query, "blockid")?.filter(|id| is_id(id));
            let id = id.ok_or_else(|| Failure::invalid("blockid is missing, or is no base64"))?;
            Ok(Some(id))
        }
        Some(_) => Err(Failure::invalid(
            "of blobs, only blocks and lists of them are taken here",
        )),
    }
}

/// What a request says that it brings.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    match length {
        None => Err(Failure::invalid("Content-Length is no number")),
        Some(length) if length > MAX_ENTRY => {
            let text = format!("an entry has at most {MAX_ENTRY} bytes");
            Err(Failure::new(Kind::TooLarge, text))
        }
        some => Ok(some),
    }
}

fn created() -> Told {
    Told::ok(StatusCode::CREATED.into_response())
}
