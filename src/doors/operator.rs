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

mod crowd;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use tokio::task::JoinSet;

use self::crowd::{Crowd, Member};

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
    /// These are told where they don't work, and it is ready all the same.
    pub notes: Vec<Check>,
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
        let crowd = Crowd::default();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match self.0.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, shown.clone(), crowd.enter()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a client of the metrics could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, shown: Arc<Shown>, member: Arc<Member>) {
    let service = service_fn(|request| {
        let (shown, member) = (shown.clone(), member.clone());
        async move {
            member.asked.fetch_add(1, Ordering::Relaxed);
            let answer = answer(&shown, &request).await;
            member.asked.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = served => ended,
        () = member.evicted.cancelled() => Ok(()),
    };
    if let Err(error) = ended {
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
        "/readyz" => ready(shown).await,
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

async fn ready(shown: &Shown) -> Response<Full<Bytes>> {
    let (wrong, noted) = futures::join!(failing(&shown.checks), failing(&shown.notes));
    if wrong.is_empty() {
        plain(StatusCode::OK, format!("ok\n{noted}"))
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, wrong + &noted)
    }
}

/// A line for each that does not work.
async fn failing(checks: &[Check]) -> String {
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
    looked.await.into_iter().flatten().collect()
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// More than are let in at once, and well below what one may wait for.
    const IDLERS: usize = 300;
    const DEADLINE: Duration = Duration::from_secs(IDLE.as_secs() / 2);

    #[tokio::test]
    async fn idle_connections_keep_nobody_waiting() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        let _serving = tokio::spawn(listener.serve(Shown {
            registry: Registry::default(),
            checks: Vec::new(),
            notes: Vec::new(),
        }));
        let mut idle = Vec::new();
        for _ in 0..IDLERS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answered = tokio::time::timeout(DEADLINE, async {
            let mut asking = TcpStream::connect(address).await?;
            let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            asking.write_all(request).await?;
            let mut answer = String::new();
            asking.read_to_string(&mut answer).await.map(|_| answer)
        });
        let answer = answered.await.expect("an answer in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
