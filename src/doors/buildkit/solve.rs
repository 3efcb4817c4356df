//! `Control.Solve` and the gateway's `Solve`: where a build says which caches
//! it wants, and gets what stock BuildKit understands instead.
//!
//! Exports become `type=local` with a destination that only our end of the
//! session knows; all imports together become one entry: `type=s3` by pull, or
//! `type=local` over the session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tracing::Instrument as _;

use super::Door;
use super::build::{Build, Stage};
use super::ending::Solving;
use super::forward::untouched;
use super::grpc::{self, Body, Message, Messages, is_trailers_only};
use super::plan::{self, Exports};
use super::rescue::{self, Rescue};
use super::rewrite::{self, Entry, SolveRequest};
use super::scrub::scrubbed_answer;
use super::splice::Malformed;
use super::upstream::Link;
use crate::telemetry::continued;

/// How long a build waits for its own session: clients open both at once.
const SESSION_PATIENCE: Duration = Duration::from_secs(2);
/// How long a gateway call waits for its build's Solve to be planned.
const SOLVE_PATIENCE: Duration = Duration::from_secs(5);
/// The build id in the metadata of a gateway call.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// Answers `Control.Solve`.
pub async fn solve(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let message = Messages::new(body, door.budget.clone()).only().await?;
    let wanted = SolveRequest::parse(&message.bytes).map_err(malformed)?;
    if wanted.internal {
        return run(door, link, head, message, wanted).await;
    }
    let solving = Solving::begin(&door.metrics.solves);
    Ok(solving.watch(run(door, link, head, message, wanted).await))
}

/// One build, from its plan to its answer.
async fn run(
    door: &Arc<Door>,
    link: &Link,
    head: Parts,
    message: Message,
    wanted: SolveRequest,
) -> Result<Response<Body>, Status> {
    let build = door.builds.join(&wanted.id);
    continued(build.span(), &head.headers);
    let _running = door.stores.begin();

    let planned = plan(door, link, &build, &wanted, &message.bytes)
        .instrument(build.span().clone())
        .await;
    let Planned { exports, body } = match planned {
        Ok(planned) => planned,
        Err(status) => {
            door.builds.refuse(build, status.clone());
            return Err(status);
        }
    };
    let rescue = Rescue::prepare(door, &build, &head, &message.bytes, &wanted, &exports);
    drop(message);
    build.set_stage(Stage::Forwarded);
    let response = link.send(Request::from_parts(head, body)).await?;
    if let Some(rescue) = &rescue {
        rescue
            .attempt(door, link, &build, &exports, response.headers())
            .instrument(build.span().clone())
            .await;
    }
    let ours = wanted.exports.iter().any(Entry::is_ours);
    // The last export of the list that wrote a manifest names it, and ours
    // stand first: where the user has one too, the name is theirs.
    let theirs = wanted
        .exports
        .iter()
        .any(|entry| !entry.is_ours() && entry.kind != "inline");
    let answer = if !ours || theirs || is_trailers_only(response.headers()) {
        response.map(untouched)
    } else {
        without_our_manifest(door, response).await?
    };
    Ok(scrubbed_answer(answer, door, &build))
}

/// What buildkitd gets, and the exports that live until it has answered.
struct Planned {
    exports: Exports,
    body: Body,
}

async fn plan(
    door: &Arc<Door>,
    link: &Link,
    build: &Arc<Build>,
    wanted: &SolveRequest,
    message: &[u8],
) -> Result<Planned, Status> {
    if !wanted
        .exports
        .iter()
        .chain(&wanted.imports)
        .any(Entry::is_ours)
    {
        return Ok(Planned {
            exports: Exports::none(door),
            body: grpc::unary(message),
        });
    }
    build.account.begin(door, link);
    let live = door
        .sessions
        .is_live(&wanted.session, SESSION_PATIENCE)
        .await;
    let began = Instant::now();
    let (import, exports) = tokio::try_join!(
        plan::import(door, link, build, &wanted.imports, live),
        Exports::plan(door, build, wanted, live),
    )?;
    let _ = build.waited.set(began.elapsed());
    let import = import.as_deref().map(|import| &import.entry);
    let rewritten =
        rewrite::solve_request(message, &exports.entries(), import).map_err(malformed)?;
    Ok(Planned {
        exports,
        body: grpc::unary(&rewritten),
    })
}

/// Answers `LLBBridge.Solve`, which is where a Dockerfile's imports count.
pub async fn gateway_solve(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let build = gateway_build(door, &request);
    let (head, body) = request.into_parts();
    let message = Messages::new(body, door.budget.clone()).only().await?;
    let imports = rewrite::gateway_imports(&message.bytes).map_err(malformed)?;
    if let Some(build) = &build {
        build.forwarded(SOLVE_PATIENCE).await?;
    }
    let rewritten = match &build {
        Some(build) if imports.iter().any(Entry::is_ours) => {
            let import = plan::import(door, link, build, &imports, true)
                .instrument(build.span().clone())
                .await?;
            let import = import.as_deref().map(|import| &import.entry);
            rewrite::gateway_solve_request(&message.bytes, import).map_err(malformed)?
        }
        _ => message.bytes.to_vec(),
    };
    drop(message);
    let answer = link
        .send(Request::from_parts(head, grpc::unary(&rewritten)))
        .await?;
    let Some(build) = build else {
        return Ok(answer.map(untouched));
    };
    let answer = if build.standby.is_armed() {
        answer.map(|body| rescue::overhear(build.clone(), body))
    } else {
        answer.map(untouched)
    };
    Ok(scrubbed_answer(answer, door, &build))
}

/// Answers `LLBBridge.Return`, by which a client ends its part of a build. One
/// that hands in an error gives its Solve 5 s from the answer on to fail too
/// (BuildKit: `client/solve.go`), so that comes when all has been done for it.
pub async fn gateway_return(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let build = gateway_build(door, &request);
    let Some(build) = build.filter(|build| build.standby.is_armed()) else {
        return gateway_call(door, link, request).await;
    };
    let (head, body) = request.into_parts();
    let message = Messages::new(body, door.budget.clone()).only().await?;
    let request = Request::from_parts(head, grpc::unary(&message.bytes));
    let failed = rescue::returns_error(&message.bytes);
    drop(message);
    let answer = link.send(request).await?;
    if failed {
        build.standby.settled().await;
    }
    Ok(answer.map(untouched))
}

/// Holds any other gateway call until buildkitd has its build's Solve, which is
/// being planned here; buildkitd would give up on it after three seconds.
pub async fn gateway_call(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if let Some(build) = gateway_build(door, &request) {
        build.forwarded(SOLVE_PATIENCE).await?;
    }
    Ok(link.send(request.map(untouched)).await?.map(untouched))
}

fn gateway_build<B>(door: &Door, request: &Request<B>) -> Option<Arc<Build>> {
    let id = request.headers().get(BUILD_ID)?.to_str().ok()?;
    Some(door.builds.join(id))
}

/// Drops the descriptor of our cache manifest from the answer: it names what
/// no client can read.
async fn without_our_manifest(
    door: &Door,
    response: Response<Incoming>,
) -> Result<Response<Body>, Status> {
    let (head, body) = response.into_parts();
    let mut messages = Messages::new(body, door.budget.clone());
    let Some(message) = messages.next().await? else {
        // An error that came after the headers: its trailers are all there is.
        messages.next().await?;
        return Ok(Response::from_parts(
            head,
            grpc::only_trailers(messages.trailers()),
        ));
    };
    messages.next().await?;
    let message = rewrite::without_cache_manifest(&message.bytes).map_err(malformed)?;
    Ok(Response::from_parts(
        head,
        grpc::unary_with_trailers(&message, messages.trailers()),
    ))
}

fn malformed(error: Malformed) -> Status {
    tracing::warn!(%error, "a request was refused");
    Status::invalid_argument(error.to_string())
}
