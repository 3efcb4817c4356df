//! An export, on its way in.
//!
//! It is put together in memory before the engine sees it. So many bytes of
//! exports come in at a time, the others wait.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tonic::{Response, Status, Streaming};
use tracing::Instrument as _;

use super::call::{Call, about, malformed, unauthenticated, unread};
use super::service::{Answers, kept};
use crate::access::{Client, Share, Shares};
use crate::cache::guard::Guard;
use crate::cache::wire::{PublicationReader, missing_parts, published_parts, status_of, v1};
use crate::cache::{CacheError, Publication};

/// How long an export may wait for the memory that it takes, before its client
/// is told to try again.
const ROOM: Duration = Duration::from_secs(5);
/// How long a client may take over the parts of an export, once it has that.
const PUBLISHING: Duration = Duration::from_secs(30);
/// How long it may say nothing meanwhile: it holds memory.
const SILENCE: Duration = Duration::from_secs(10);

/// Takes an export in, and answers once it is in the log, or why it is not.
pub async fn publish(
    room: &Shares,
    mut call: Call,
    mut guard: Guard,
    messages: Streaming<v1::PublishRequest>,
) -> Result<Response<Answers<v1::PublishResponse>>, Status> {
    let (span, client) = (call.span().clone(), call.client().clone());
    let publishing = async {
        let (export, room) = publication(messages, &client, room).await?;
        about(&guard, &export.place.project);
        guard.still_granted().await.map_err(unauthenticated)?;
        Ok((guard.publish(export).await, room))
    };
    match publishing.instrument(span).await {
        Ok((Ok(published), room)) => {
            let parts = published_parts(&published).into_iter().map(Ok);
            let parts = stream::iter(parts).boxed() as Answers<_>;
            // The answer takes no more than the export did, and must not be
            // refused now.
            kept(call.answer(Ok((parts, Some(room)))))
        }
        Ok((Err(error), _)) => {
            let status = call.ended(status_of(&error));
            match error {
                CacheError::Missing(missing) => {
                    let parts: Vec<_> = missing_parts(&missing).map(Ok).collect();
                    let parts = stream::iter(parts).chain(stream::iter([Err(status)]));
                    Ok(Response::new(parts.boxed()))
                }
                _ => Err(status),
            }
        }
        Err(status) => Err(call.ended(status)),
    }
}

/// The next message of an export.
async fn next(
    messages: &mut Streaming<v1::PublishRequest>,
) -> Result<Option<v1::PublishRequest>, Status> {
    let message = tokio::time::timeout(SILENCE, messages.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("nothing came for too long"))?;
    message.map_err(unread)
}

/// An export, put together of its messages, and the `room` that it takes.
async fn publication(
    mut messages: Streaming<v1::PublishRequest>,
    client: &Client,
    room: &Shares,
) -> Result<(Publication, Share), Status> {
    let first = next(&mut messages).await?;
    let mut export = PublicationReader::begin(first).map_err(malformed)?;
    let kib = usize::try_from(export.memory() >> 10).unwrap_or(usize::MAX);
    let room = room.take_within(ROOM, client, kib, "exports").await?;
    let rest = async {
        while let Some(message) = next(&mut messages).await? {
            export.take(message).map_err(malformed)?;
        }
        export.finish().map_err(malformed)
    };
    let export = tokio::time::timeout(PUBLISHING, rest).await;
    let late = |_| Status::deadline_exceeded("the export did not come to its end");
    Ok((export.map_err(late)??, room))
}
