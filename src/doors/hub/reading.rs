//! A blob, on its way out.
//!
//! So many blobs go out at a time, since one that is not read stays in memory.
//! Whoever finds no place waits a little, and is told to try again: sooner than
//! a sidecar takes the hub for dead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tonic::{Response, Status};
use tracing::Instrument as _;

use super::Door;
use super::call::{Call, Kept, malformed, refused, unauthenticated};
use super::pieces::uncopied;
use super::service::Answers;
use crate::access::{Client, Share};
use crate::blobs::{BlobError, BlobStream};
use crate::cache::CacheError;
use crate::cache::guard::Guard;
use crate::cache::wire::{self, PIECE, v1};

/// How long a call may wait for a place.
const PLACE: Duration = Duration::from_secs(5);

/// Answers a call for a blob: with its bytes, or with where they are.
pub async fn read(
    door: &Door,
    mut call: Call,
    guard: Guard,
    request: v1::ReadBlobRequest,
) -> Result<Response<Answers<v1::ReadBlobResponse>>, Status> {
    let span = call.span().clone();
    let beginning = begin(door, call.client(), &guard, request);
    match beginning.instrument(span).await {
        Ok(Begun::At(url)) => {
            let answer = v1::ReadBlobResponse {
                url,
                ..Default::default()
            };
            call.answer(Ok(stream::iter([Ok(answer)]).boxed() as Answers<_>))
        }
        Ok(Begun::Reading(reading, place)) => {
            let compressed = reading.is_compressed();
            let pieces = reading.pieces(call, guard);
            let mut response = match compressed {
                true => uncopied(pieces),
                false => Response::new(pieces),
            };
            response.extensions_mut().insert(Arc::new(place) as Kept);
            Ok(response)
        }
        Err(status) => Err(call.ended(status)),
    }
}

enum Begun {
    At(String),
    Reading(Reading, Share),
}

async fn begin(
    door: &Door,
    client: &Client,
    guard: &Guard,
    request: v1::ReadBlobRequest,
) -> Result<Begun, Status> {
    let projects = wire::projects(&request.projects).map_err(malformed)?;
    let digest = wire::digest(&request.digest).map_err(malformed)?;
    if request.takes_url
        && let Some(location) = guard.locate(&projects, &digest).await.map_err(refused)?
    {
        return Ok(Begun::At(location.as_str().to_owned()));
    }
    let place = door.reads.take_within(PLACE, client, 1, "reads").await?;
    let length = match request.length {
        0 => u64::MAX,
        length => length,
    };
    let bytes = guard.read(&projects, &digest, request.offset, length).await;
    let mut bytes = bytes.map_err(refused)?;
    let first = bytes.next().await.transpose().map_err(told)?;
    // A stream that has ended is not asked again.
    let bytes = match first {
        Some(_) => bytes,
        None => stream::empty().boxed(),
    };
    let reading = Reading {
        first: first.unwrap_or_default(),
        from_start: request.offset == 0,
        bytes,
    };
    Ok(Begun::Reading(reading, place))
}

/// A blob whose first bytes are there.
struct Reading {
    first: Bytes,
    from_start: bool,
    bytes: BlobStream,
}

impl Reading {
    /// Whether compressing it once more would be in vain. Of a part nothing is
    /// known, and most blobs are compressed.
    fn is_compressed(&self) -> bool {
        !self.from_start || wire::is_compressed(&self.first)
    }

    /// As long as the client's token counts.
    fn pieces(self, call: Call, guard: Guard) -> Answers<v1::ReadBlobResponse> {
        let bytes = stream::iter([Ok(self.first)]).chain(self.bytes);
        let pieces = bytes.flat_map(|chunk| match chunk {
            Ok(chunk) => {
                let starts = (0..chunk.len()).step_by(PIECE);
                let cut = starts.map(move |at| {
                    let bytes = chunk.slice(at..chunk.len().min(at + PIECE));
                    let crc32c = wire::checksum(&bytes);
                    Ok(v1::ReadBlobResponse {
                        bytes,
                        crc32c,
                        url: String::new(),
                    })
                });
                stream::iter(cut).left_stream()
            }
            Err(error) => stream::iter([Err(told(error))]).right_stream(),
        });
        let state = (Box::pin(pieces), guard, Some(call));
        stream::unfold(state, |(mut pieces, mut guard, mut call)| async move {
            // A call that has ended has nothing more to say.
            call.as_ref()?;
            let piece = match guard.still_granted().await {
                Ok(()) => pieces.next().await,
                Err(denied) => Some(Err(unauthenticated(denied))),
            };
            match piece {
                Some(Ok(piece)) => Some((Ok(piece), (pieces, guard, call))),
                Some(Err(status)) => {
                    let status = match call.take() {
                        Some(mut call) => call.ended(status),
                        None => status,
                    };
                    Some((Err(status), (pieces, guard, None)))
                }
                None => {
                    if let Some(call) = call.take() {
                        call.done();
                    }
                    None
                }
            }
        })
        .boxed()
    }
}

fn told(error: BlobError) -> Status {
    refused(CacheError::from(error))
}
