//! A failed build's cache is kept.
//!
//! BuildKit exports nothing when a step fails, which is when the next attempt
//! needs it most. So while the client still waits for the error, and its
//! session is open, a second Solve is sent: of the same graph cut to the steps
//! that succeeded ([`cut`]), in the same session, with the same imports and
//! rights, no exporter, and the exports to layerd of the first. All of it is in
//! buildkitd's own cache, so nothing runs; where something would, it is given
//! up ([`guard`]). Only the client's files are looked at anew, for changes
//! ([`anew`]). What the first Solve said passes on as it came, afterwards.
//!
//! It is never done for a build that was canceled, and takes a bounded time.
//! It is not possible where no definition passes here (a client that names a
//! frontend in `Control.Solve`), and for steps that BuildKit renames (a source
//! policy that converts their sources).

mod anew;
mod cut;
mod definitions;
mod guard;
mod request;
mod standby;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Request, Response, Uri, header};
use hyper::body::Incoming;
use prost::Message as _;
use tokio_util::sync::DropGuard;
use tonic::{Code, Status};

use self::cut::Cut;
use self::definitions::Room;
pub use self::standby::{Reading, Standby, overhear};
use super::Door;
use super::build::Build;
use super::grpc::{self, Messages, is_trailers_only};
use super::plan::Exports;
use super::proto::control;
use super::rewrite::{Entry, SolveRequest};
use super::upstream::Link;

/// How long the progress of a build may take to come in once it has failed.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// What of a first Solve is kept for the second, in bytes.
const MAX_TEMPLATE: usize = 1 << 20;

/// What all failed builds share.
pub struct Rescues {
    timeout: Duration,
    room: Room,
}

impl Rescues {
    /// Exports may take `timeout`; where that is zero there are none.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            room: Room::default(),
        }
    }
}

/// What a build that exports has ready in case that it fails.
pub struct Rescue {
    headers: HeaderMap,
    solve: Uri,
    template: Vec<u8>,
    session: String,
    imports: Vec<Entry>,
    _armed: DropGuard,
}

impl Rescue {
    /// Gets ready for the failure of the build that asked for `wanted` with
    /// `message`; its call began with `head`.
    pub fn prepare(
        door: &Door,
        build: &Build,
        head: &Parts,
        message: &[u8],
        wanted: &SolveRequest,
        exports: &Exports,
    ) -> Option<Self> {
        if door.rescues.timeout.is_zero() || exports.entries().is_empty() {
            return None;
        }
        let template = request::template(message).ok()?;
        if template.len() > MAX_TEMPLATE {
            return None;
        }
        let armed = build.standby.arm(&door.rescues.room);
        if let Some(definition) = request::definition(message) {
            build.standby.remember(&definition);
        }
        let mut headers = head.headers.clone();
        headers.remove(header::CONTENT_LENGTH);
        headers.remove("grpc-timeout");
        Some(Self {
            headers,
            solve: head.uri.clone(),
            template,
            session: wanted.session.clone(),
            imports: wanted.imports.clone(),
            _armed: armed,
        })
    }

    /// Exports what succeeded of a build whose Solve was answered with
    /// `answer`, if that says that it failed; tells the user how that went.
    pub async fn attempt(
        &self,
        door: &Door,
        link: &Link,
        build: &Arc<Build>,
        exports: &Exports,
        answer: &HeaderMap,
    ) {
        if !has_failed(answer) || exports.untried().is_empty() {
            return;
        }
        let limit = door.rescues.timeout;
        let outcome = tokio::time::timeout(limit, self.export(door, link, build, exports)).await;
        let why = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => format!(
                "it took longer than {} s (--failed-export-timeout)",
                limit.as_secs_f32()
            ),
        };
        build.warn(format!("cache of the failed build not exported: {why}"));
    }

    async fn export(
        &self,
        door: &Door,
        link: &Link,
        build: &Arc<Build>,
        exports: &Exports,
    ) -> Result<(), String> {
        // A client that does not read its progress keeps us from reading it;
        // what came is then what counts.
        let _ = tokio::time::timeout(READ_LIMIT, build.standby.read()).await;
        let succeeded = build.succeeded();
        if succeeded.is_empty() {
            return Ok(());
        }
        let id = format!("layerd-{}", hex::encode(rand::random::<[u8; 16]>()));
        let Some(cut) = build.standby.cut(&succeeded, &id) else {
            return Err(why_not_cut(build));
        };
        if !door.sessions.is_live(&self.session, Duration::ZERO).await {
            return Err("its session has ended".to_owned());
        }
        build.tell(format!(
            "the build failed; exporting the cache of {}, for at most {} s",
            match cut.steps {
                1 => "the step that did not".to_owned(),
                steps => format!("the {steps} steps that did not"),
            },
            door.rescues.timeout.as_secs_f32()
        ));
        let mut entries = exports.untried();
        if cut.ends > 1 {
            // BuildKit exports no more than its one result in that mode, which
            // is our merge.
            let mode = ("mode".to_owned(), "max".to_owned());
            entries
                .iter_mut()
                .for_each(|entry| entry.attributes.extend([mode.clone()]));
        }
        build.end_progress();
        self.solve(door, link, build, &id, &cut, &entries).await?;
        if exports.untried().len() == entries.len() {
            return Err("buildkitd found nothing to export".to_owned());
        }
        Ok(())
    }

    /// Sends the second Solve, and reads how it ended.
    async fn solve(
        &self,
        door: &Door,
        link: &Link,
        build: &Build,
        id: &str,
        cut: &Cut,
        exports: &[Entry],
    ) -> Result<(), String> {
        let imports = self.imports(build);
        let message = request::solve(&self.template, id, &cut.definition, exports, &imports);
        let solving = async {
            let response = link.send(self.call(&self.solve, &message)).await?;
            status_of(door, response).await
        };
        tokio::select! {
            solved = solving => solved.map_err(|status| {
                tracing::warn!(parent: build.span(), %status, "buildkitd refused");
                let said = status.message().lines().next().unwrap_or_default();
                exports.iter().fold(said.to_owned(), |said, export| {
                    match export.attributes.get("dest") {
                        Some(id) => said.replace(id.as_str(), "layerd"),
                        None => said,
                    }
                })
            }),
            name = self.rerun(door, link, id, build.standby.latest()) => {
                Err(format!(
                    "{name} would run again: its result is gone, or files that it reads have changed"
                ))
            }
        }
    }

    /// Resolves with the name of a step that the build `id` runs, later than
    /// `since`.
    async fn rerun(&self, door: &Door, link: &Link, id: &str, since: i64) -> String {
        let uri = Uri::from_static("http://localhost/moby.buildkit.v1.Control/Status");
        let request = control::StatusRequest {
            r#ref: id.to_owned(),
        };
        let call = self.call(&uri, &request.encode_to_vec());
        if let Ok(response) = link.send(call).await {
            let progress = Messages::new(response.into_body(), door.budget.clone());
            if let Some(name) = guard::ran(progress, since).await {
                return name;
            }
        }
        std::future::pending().await
    }

    /// What the first Solve imports, as buildkitd got it.
    fn imports(&self, build: &Build) -> Vec<Entry> {
        let served = build.import.get().and_then(Option::as_deref);
        let served = served.map(|import| import.entry.clone());
        let foreign = self.imports.iter().filter(|entry| !entry.is_ours());
        served.into_iter().chain(foreign.cloned()).collect()
    }

    fn call(&self, uri: &Uri, message: &[u8]) -> Request<grpc::Body> {
        let mut request = Request::new(grpc::unary(message));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Whether a gateway's `Return` hands an error in, whose build has failed.
pub fn returns_error(message: &[u8]) -> bool {
    #[derive(Clone, PartialEq, prost::Message)]
    struct ReturnRequest {
        #[prost(bytes = "bytes", optional, tag = "2")]
        error: Option<bytes::Bytes>,
    }
    ReturnRequest::decode(message).is_ok_and(|request| request.error.is_some())
}

/// Whether an answer says that a build failed, and not by the client's wish.
fn has_failed(answer: &HeaderMap) -> bool {
    answer.get(Status::GRPC_STATUS).is_some_and(|code| {
        !matches!(
            Code::from_bytes(code.as_bytes()),
            Code::Ok | Code::Cancelled
        )
    })
}

/// Why nothing of a build can be exported in which steps succeeded.
fn why_not_cut(build: &Build) -> String {
    let why = match build.standby.has_definitions() {
        (_, true) => "its definition is too large to be kept",
        (true, _) => {
            "none of the steps that succeeded is in its definition under the same name; a source policy may have changed them"
        }
        (false, _) => {
            "its definition did not pass here, since its client names the frontend in Control.Solve"
        }
    };
    why.to_owned()
}

async fn status_of(door: &Door, response: Response<Incoming>) -> Result<(), Status> {
    let (head, body) = response.into_parts();
    if is_trailers_only(&head.headers) {
        return status_in(&head.headers);
    }
    let mut messages = Messages::new(body, door.budget.clone());
    while messages.next().await?.is_some() {}
    status_in(&messages.trailers().unwrap_or_default())
}

fn status_in(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() == Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::unknown("buildkitd gave no status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::buildkit::grpc::status_trailers;
    use crate::doors::buildkit::splice::put_field;

    #[test]
    fn a_build_has_failed_unless_it_is_done_or_was_canceled() {
        assert!(has_failed(&status_trailers(&Status::unknown(
            "exit code: 7"
        ))));
        assert!(!has_failed(&status_trailers(&Status::ok(""))));
        assert!(!has_failed(&status_trailers(&Status::cancelled(
            "canceled"
        ))));
        assert!(!has_failed(&HeaderMap::new()));
    }

    #[test]
    fn a_return_with_an_error_is_told_from_one_with_a_result() {
        for (number, is_error) in [(1, false), (2, true)] {
            let mut message = Vec::new();
            put_field(&mut message, number, b"");
            assert_eq!(returns_error(&message), is_error);
        }
        assert!(!returns_error(b"\xff"));
    }
}
