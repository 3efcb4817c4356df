//! `Control/Status`: the progress of a build, with ours in it.
//!
//! The stream goes through message by message. What buildkitd calls our import
//! and exports is renamed (the nonce means nothing to a user), and what layerd
//! has to say is put in as vertices of its own, before the stream ends.

use std::sync::Arc;

use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use prost::Message as _;
use prost_types::Timestamp;
use tonic::Status;

use super::Door;
use super::build::{Build, Notice};
use super::cache_id::IMPORTING;
use super::forward::untouched;
use super::grpc::{self, Body, Messages, is_trailers_only};
use super::proto::control;
use super::rescue::Reading;
use super::saved;
use super::scrub::Private;
use super::splice::{Edit, Malformed, splice, spliced};
use super::upstream::Link;
use crate::digest::Digest;

/// The stream of a log that is no error.
const STDOUT: i64 = 1;
/// Messages under way to the client.
const UNDER_WAY: usize = 4;

/// Answers `Control/Status`.
pub async fn status(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let message = Messages::new(body, door.budget.clone()).only().await?;
    let id = control::StatusRequest::decode(message.bytes.clone())
        .map_err(|_| Status::invalid_argument(Malformed.to_string()))?
        .r#ref;
    let build = door.builds.join(&id);
    let reading = build.standby.reading();
    let response = link
        .send(Request::from_parts(head, grpc::unary(&message.bytes)))
        .await?;
    if is_trailers_only(response.headers()) {
        return Ok(response.map(untouched));
    }
    let (head, upstream) = response.into_parts();
    let (to_client, body) = grpc::channel(UNDER_WAY);
    let messages = Messages::new(upstream, door.budget.clone());
    let relaying = Arc::clone(door);
    door.tasks.spawn(async move {
        let door = relaying;
        let ended = tokio::select! {
            ended = relay(&door, &build, messages, reading, &to_client) => ended,
            // The client learns why from its Solve.
            () = build.refused() => Err(Status::ok("")),
            () = to_client.closed() => return,
        };
        let trailers = ended.unwrap_or_else(|status| Some(grpc::status_trailers(&status)));
        if let Some(trailers) = trailers {
            // A client that is gone needs no ending.
            let _ = to_client.send(Ok(Frame::trailers(trailers))).await;
        }
    });
    Ok(Response::from_parts(head, body))
}

/// Passes messages and notices on as they come; gives the trailers.
async fn relay(
    door: &Arc<Door>,
    build: &Build,
    mut messages: Messages<Incoming>,
    reading: Reading,
    to_client: &grpc::Sender,
) -> Result<Option<http::HeaderMap>, Status> {
    let mut told = build.told();
    let mut said = say(build, 0, to_client).await;
    loop {
        let message = tokio::select! {
            message = messages.next() => message?,
            _ = told.changed() => {
                said = say(build, said, to_client).await;
                continue;
            }
        };
        said = say(build, said, to_client).await;
        let Some(message) = message else {
            drop(reading);
            said = linger(build, said, to_client).await;
            saved::settle(door, build).await;
            say(build, said, to_client).await;
            return Ok(messages.trailers());
        };
        // What can't be read is passed on for the client to complain about.
        let frame = match edited(door, build, &message.bytes) {
            Ok(Some(edited)) => grpc::frame(&edited),
            Ok(None) | Err(Malformed) => grpc::frame(&message.bytes),
        };
        drop(message);
        if to_client.send(Ok(Frame::data(frame))).await.is_err() {
            return Ok(None);
        }
    }
}

/// Sends the notices of a build that buildkitd is done with, until nobody else
/// does anything for it.
async fn linger(build: &Build, mut said: usize, to_client: &grpc::Sender) -> usize {
    let mut told = build.told();
    loop {
        said = say(build, said, to_client).await;
        tokio::select! {
            () = build.standby.settled() => break,
            _ = told.changed() => {}
        }
    }
    say(build, said, to_client).await
}

/// Sends the notices from number `from` on; gives how many there are.
async fn say(build: &Build, from: usize, to_client: &grpc::Sender) -> usize {
    let notices = build.notices(from);
    let said = from + notices.len();
    if !notices.is_empty() {
        let message = progress(&build.id, from, &notices).encode_to_vec();
        // A client that is gone is noticed by the caller.
        let _ = to_client.send(Ok(Frame::data(grpc::frame(&message)))).await;
    }
    said
}

/// Notices as progress: a vertex each, done as it appears, with its details as
/// what it printed, and for a warning also what clients list once more at the
/// end.
fn progress(build: &str, from: usize, notices: &[Notice]) -> control::StatusResponse {
    let mut progress = control::StatusResponse::default();
    for (index, notice) in notices.iter().enumerate() {
        let vertex = Digest::of(format!("layerd {build} {}", from + index).as_bytes()).to_string();
        let text = format!("layerd: {}", notice.text);
        let at = Timestamp::from(notice.at);
        if notice.warning {
            progress.warnings.push(control::VertexWarning {
                vertex: vertex.clone(),
                level: 1,
                short: text.clone().into(),
                detail: Vec::new(),
            });
        }
        if !notice.details.is_empty() {
            progress.logs.push(control::VertexLog {
                vertex: vertex.clone(),
                timestamp: Some(at),
                stream: STDOUT,
                msg: (notice.details.join("\n") + "\n").into(),
            });
        }
        progress.vertexes.push(control::Vertex {
            digest: vertex,
            name: text,
            started: Some(at),
            completed: Some(at),
            ..control::Vertex::default()
        });
    }
    progress
}

/// The message with names that mean something for our import and exports, and
/// without those that don't; `None` where it stays as it is. What it says of
/// steps is noted.
fn edited(door: &Door, build: &Build, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    const VERTEXES: u32 = 1;
    const STATUSES: u32 = 2;
    const LOGS: u32 = 3;
    const WARNINGS: u32 = 4;
    let private = Private::of(door, build);
    let mut seen = Vec::new();
    let edited = spliced(message, |number, content| match number {
        VERTEXES => {
            let vertex = control::Vertex::decode(content).map_err(|_| Malformed)?;
            build.standby.see(&vertex);
            let title = title(door, build, &vertex);
            seen.push(vertex);
            vertex_texts(content, title.as_deref(), &private)
        }
        STATUSES => texts(content, &[1, 3], |text| private.gone_from(text)),
        // buildkitd puts the errors of pulls there, between what steps print.
        LOGS => texts(content, &[4], |text| private.gone_from_log(text)),
        WARNINGS => texts(content, &[3, 4], |text| private.gone_from(text)),
        _ => Ok(Edit::Keep),
    })?;
    if !seen.is_empty() {
        build.see(&seen);
    }
    Ok(edited)
}

/// A vertex under its title, if it has one, with a clean name and error.
fn vertex_texts(
    content: &[u8],
    title: Option<&str>,
    private: &Private<'_>,
) -> Result<Edit, Malformed> {
    const NAME: u32 = 3;
    const ERROR: u32 = 7;
    let Some(title) = title else {
        return texts(content, &[NAME, ERROR], |text| private.gone_from(text));
    };
    let titled = splice(content, |number, text| {
        Ok::<_, Malformed>(match number {
            NAME => Edit::Replace(title.as_bytes().to_vec()),
            ERROR => clean(text, |text| private.gone_from(text)),
            _ => Edit::Keep,
        })
    })?;
    Ok(Edit::Replace(titled))
}

/// A message whose fields of these numbers are clean.
fn texts(
    content: &[u8],
    fields: &[u32],
    cleaned: impl Fn(&str) -> Option<String>,
) -> Result<Edit, Malformed> {
    let edited = spliced(content, |number, text| {
        Ok::<_, Malformed>(if fields.contains(&number) {
            clean(text, &cleaned)
        } else {
            Edit::Keep
        })
    })?;
    Ok(edited.map_or(Edit::Keep, Edit::Replace))
}

fn clean(text: &[u8], cleaned: impl Fn(&str) -> Option<String>) -> Edit {
    let edited = std::str::from_utf8(text).ok().and_then(cleaned);
    edited.map_or(Edit::Keep, |text| Edit::Replace(text.into_bytes()))
}

fn title(door: &Door, build: &Build, vertex: &control::Vertex) -> Option<String> {
    let export = build.titles().get(&vertex.digest).cloned();
    let import = || vertex.name.strip_prefix(IMPORTING);
    export.or_else(|| import().and_then(|_| door.imports.title(&vertex.name)))
}
