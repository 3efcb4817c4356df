//! The BuildKit door: the Control API that buildx connects to, in front of one
//! buildkitd.
//!
//! Every call of a client is passed on to buildkitd as HTTP/2, except the few
//! that a shared cache needs looked into:
//!
//! | call | why |
//! |---|---|
//! | `Control/Solve`, `LLBBridge/Solve` | `gha-compatible` entries are rewritten: `solve`, `plan`, `rewrite`; what a failed build leaves is exported: `rescue` |
//! | `LLBBridge/Return` | a failed build is held until that is done: `rescue` |
//! | `Control/Session` | a Content service is added to the session: `session`, `content` |
//! | `Control/Status` | the user is told how the cache did: `status` |
//! | `Control/ListenBuildHistory` | the user's own entries are shown: `history` |
//!
//! Messages that are changed are spliced, never re-encoded (`splice`), so that
//! what a newer BuildKit adds survives. A fault of the cache leaves entries out
//! and never fails a build; wire facts are those of BuildKit v0.32.2.

mod attributes;
mod build;
mod cache_id;
mod content;
mod daemon;
mod ending;
mod forward;
mod grpc;
mod history;
mod listen;
mod metrics;
mod names;
mod plan;
mod proto;
mod pull;
mod rescue;
mod rewrite;
mod saved;
mod scrub;
mod served;
mod session;
mod solve;
mod splice;
mod status;
mod stores;
mod timeline;
mod tunnel;
mod upstream;
mod vertices;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::attributes::Defaults;
use self::build::Builds;
use self::daemon::Daemon;
use self::forward::{answer, forward};
use self::grpc::{Body, MAX_MESSAGE, MessageBudget};
use self::history::LeftOut;
pub use self::listen::Listener;
use self::listen::{Accepted, Stream};
pub use self::metrics::Metrics;
use self::pull::Pull;
pub use self::pull::{ImportCarrier, PullListener};
use self::rescue::Rescues;
use self::saved::Known;
use self::served::ServedImports;
use self::session::Sessions;
use self::stores::Stores;
pub use self::upstream::Upstream;
use self::upstream::{CONNECTION_WINDOW, Link, MAX_HEADER_LIST, STREAM_WINDOW};
use crate::cache::backends::Backends;

/// What all looked-into messages of all clients may hold at a time.
const MESSAGE_BUDGET: usize = 4 * MAX_MESSAGE;
/// Calls that one client connection may have open.
const MAX_CALLS: u32 = 1000;
/// How often a client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long it may take to answer: one that was suspended comes back.
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(900);
/// How often stores that nobody can ask for any more are ended.
const SWEEP: Duration = Duration::from_secs(10);
/// How long builds may go on after the door was told to close.
const DRAIN: Duration = Duration::from_secs(60);
/// How long connections may take to end once nothing runs on them.
const HANG_UP: Duration = Duration::from_secs(2);

/// What one door needs.
pub struct Config {
    /// Where buildkitd is.
    pub upstream: Upstream,
    /// The caches that builds can have.
    pub caches: Arc<Backends>,
    /// What stands where a user's entry says nothing.
    pub defaults: Defaults,
    /// Who exports: this host's name.
    pub builder: String,
    /// How imports travel.
    pub carrier: ImportCarrier,
    /// Where they are pulled from, unless they travel over sessions alone.
    pub pull: Option<PullListener>,
    /// Records of ordinary weight that an import may have.
    pub max_graph_records: u64,
    /// How long a read by pull that fails is tried again.
    pub blob_patience: Duration,
    /// How long the error of a failed build may be held back for the export of
    /// what succeeded; zero: not at all.
    pub failed_export_timeout: Duration,
    /// What is counted.
    pub metrics: Metrics,
}

/// How a door is told to end: gently, or at once.
#[derive(Clone, Default)]
pub struct Closing {
    /// Take no more clients; let what runs end, for a while.
    pub drain: CancellationToken,
    /// Hang up on everybody, whatever runs. Counts only once the door drains.
    pub hang_up: CancellationToken,
}

/// What every call can reach.
struct Door {
    upstream: Arc<Upstream>,
    caches: Arc<Backends>,
    defaults: Defaults,
    builder: String,
    sessions: Arc<Sessions>,
    builds: Builds,
    stores: Arc<Stores>,
    imports: ServedImports,
    pull: Option<Arc<Pull>>,
    max_graph_records: u64,
    left_out: LeftOut,
    rescues: Rescues,
    daemon: Arc<Daemon>,
    known: Known,
    metrics: Metrics,
    budget: MessageBudget,
    /// Calls, sessions and progress streams: what is waited for at the end.
    tasks: TaskTracker,
    connections: TaskTracker,
    /// Nothing that is waited for runs any more: connections are to end.
    over: CancellationToken,
    hang_up: CancellationToken,
}

/// Serves clients on `listeners` until it is told to end; afterwards no
/// connection is left, to a client or to buildkitd.
pub async fn serve(config: Config, listeners: Vec<Listener>, closing: Closing) {
    let metrics = config.metrics;
    let stores = Arc::new(Stores::new(metrics.leases.clone()));
    let pull = config.pull.map(|listener| {
        (
            Arc::new(Pull::new(
                &listener,
                config.carrier == ImportCarrier::Pull,
                config.blob_patience,
            )),
            listener,
        )
    });
    let door = Arc::new(Door {
        upstream: Arc::new(config.upstream),
        caches: config.caches,
        defaults: config.defaults,
        builder: config.builder,
        sessions: Arc::new(Sessions::new(metrics.sessions.clone())),
        builds: Builds::new(metrics.vertices.clone()),
        imports: ServedImports::new(stores.clone()),
        pull: pull.as_ref().map(|(pull, _)| pull.clone()),
        max_graph_records: config.max_graph_records,
        stores,
        left_out: LeftOut::default(),
        rescues: Rescues::new(config.failed_export_timeout),
        daemon: Arc::default(),
        known: Known::default(),
        metrics,
        budget: MessageBudget::new(MESSAGE_BUDGET),
        tasks: TaskTracker::new(),
        connections: TaskTracker::new(),
        over: CancellationToken::new(),
        hang_up: closing.hang_up.clone(),
    });
    let sweeper = tokio::spawn(sweep(door.stores.clone()));
    if let Some((pull, listener)) = pull {
        let (stores, connections) = (door.stores.clone(), door.connections.clone());
        tokio::spawn(pull::serve(
            listener,
            pull.clone(),
            stores,
            connections,
            door.over.clone(),
        ));
        let link = Link::new(door.upstream.clone());
        tokio::spawn(async move { pull.learn(&link).await });
    }
    let accepting = listeners
        .into_iter()
        .map(|listener| accept(door.clone(), listener, closing.drain.clone()));
    futures::future::join_all(accepting).await;
    // A build makes new calls on its client's connection as it goes, so that
    // connections are ended only when nothing runs any more.
    door.tasks.close();
    tokio::select! {
        () = door.tasks.wait() => {}
        () = tokio::time::sleep(DRAIN) => {
            tracing::warn!("builds were still running when the time to drain was over");
        }
        () = door.hang_up.cancelled() => {}
    }
    door.over.cancel();
    door.connections.close();
    door.connections.wait().await;
    sweeper.abort();
}

async fn sweep(stores: Arc<Stores>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        stores.sweep(Instant::now());
    }
}

async fn accept(door: Arc<Door>, listener: Listener, drain: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.cancelled() => return,
        };
        match accepted {
            Ok(accepted) => {
                door.connections.spawn(connection(door.clone(), accepted));
            }
            Err(error) => {
                // Out of file descriptors, most likely: clients that are
                // connected go on, and some of them will end.
                tracing::error!(%error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One client, from handshake to hang-up.
async fn connection(door: Arc<Door>, accepted: Accepted) {
    let ready = tokio::select! {
        ready = accepted.ready() => ready,
        () = door.over.cancelled() => return,
    };
    let stream = match ready {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a client's handshake failed"),
    };
    let link = Link::new(door.upstream.clone());
    if let Err(error) = converse(door, link, stream).await {
        tracing::debug!(%error, "a client's connection broke");
    }
}

async fn converse(
    door: Arc<Door>,
    link: Link,
    stream: Box<dyn Stream>,
) -> Result<(), hyper::Error> {
    let (over, hang_up) = (door.over.clone(), door.hang_up.clone());
    let service = service_fn(move |request| call(door.clone(), link.clone(), request));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_CALLS)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .max_header_list_size(MAX_HEADER_LIST)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = over.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // A client that does not hang up is hung up on.
    tokio::select! {
        ended = connection => ended,
        () = tokio::time::sleep(HANG_UP) => Ok(()),
        () = hang_up.cancelled() => Ok(()),
    }
}

/// One call: looked into, or passed on.
async fn call(
    door: Arc<Door>,
    link: Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    const GATEWAY: &str = "/moby.buildkit.v1.frontend.LLBBridge/";
    let _under_way = door.tasks.token();
    let outcome = match request.uri().path() {
        "/moby.buildkit.v1.Control/Solve" => solve::solve(&door, &link, request).await,
        "/moby.buildkit.v1.Control/Session" => session::session(&door, &link, request).await,
        "/moby.buildkit.v1.Control/Status" => status::status(&door, &link, request).await,
        "/moby.buildkit.v1.Control/ListenBuildHistory" => {
            history::listen(&door, &link, request).await
        }
        "/moby.buildkit.v1.frontend.LLBBridge/Solve" => {
            solve::gateway_solve(&door, &link, request).await
        }
        "/moby.buildkit.v1.frontend.LLBBridge/Return" => {
            solve::gateway_return(&door, &link, request).await
        }
        path if path.starts_with(GATEWAY) => solve::gateway_call(&door, &link, request).await,
        _ => return Ok(forward(&link, request).await),
    };
    Ok(answer(outcome))
}
