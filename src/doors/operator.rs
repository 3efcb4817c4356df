//! The operator's door: metrics and health over plain HTTP, on an address of
//! its own.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text |
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200, or 503 with a line for each thing that is not ready |
//!
//! It tells nothing of what is built or for whom, and can change nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may be idle, or take to say what it wants.
const IDLE: Duration = Duration::from_secs(30);
/// How long one thing may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(2);

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// One thing that has to work for the process to be of use.
pub struct Check {
    /// What it is called in an answer.
    pub what: &'static str,
    /// Looks now; an error says why it does not work.
    pub look: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

/// What is shown.
pub struct Shown {
    /// Every metric.
    pub registry: Registry,
    /// All of these make the process ready.
    pub checks: Vec<Check>,
}

/// A bound address.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds; port 0 gives a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where it is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn serve(self, shown: Shown) {
        let shown = Arc::new(shown);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // The semaphore is never closed.
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let shown = shown.clone();
                    connections.spawn(async move {
                        converse(stream, shown).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a client of the metrics could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, shown: Arc<Shown>) {
    let service = service_fn(move |request| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(answer(&shown, &request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of the metrics broke off");
    }
}

async fn answer(shown: &Shown, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => metrics(&shown.registry),
        "/healthz" => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(&shown.checks).await,
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => {
            let mut response = Response::new(Full::from(text));
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn ready(checks: &[Check]) -> Response<Full<Bytes>> {
    let looked = join_all(checks.iter().map(|check| async {
        match tokio::time::timeout(PATIENCE, (check.look)()).await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("{}: {why}\n", check.what)),
            Err(_) => Some(format!(
                "{}: no answer within {} s\n",
                check.what,
                PATIENCE.as_secs()
            )),
        }
    }));
    let wrong: String = looked.await.into_iter().flatten().collect();
    if wrong.is_empty() {
        plain(StatusCode::OK, "ok\n".to_owned())
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, wrong)
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}
