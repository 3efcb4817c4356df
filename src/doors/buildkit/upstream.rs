//! The way to buildkitd: one HTTP/2 connection for each of a client's.
//!
//! A connection of its own for every client keeps windows, cancellation and
//! the end of a connection what they are without the proxy. It is opened at
//! the first call and again after it broke, so that a daemon which comes back
//! is found; while it is gone, a call ends as gRPC ends it without us.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tonic::Status;

use super::grpc::{Body, broken, unary};
use crate::config::Endpoint;
use crate::tls::Connector;

/// The flow-control window of one stream: what a fast local peer needs to stay
/// busy, and what a stalled one can make us hold.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;
/// The same for all streams of one connection together.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;
/// How long connecting may take, TLS included: grpc-go's own limit.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// gRPC puts error details into trailers; grpc-go takes lists of up to 16 MiB.
pub(super) const MAX_HEADER_LIST: u32 = 16 << 20;

/// Where buildkitd listens.
#[derive(Clone)]
pub struct Upstream {
    endpoint: Endpoint,
    tls: Option<Connector>,
    outages: Arc<AtomicU64>,
}

impl Upstream {
    /// Names buildkitd; nothing is connected yet.
    pub fn new(endpoint: Endpoint, tls: Option<Connector>) -> Self {
        Self {
            endpoint,
            tls,
            outages: Arc::default(),
        }
    }

    /// Whether buildkitd answers a call, whatever it answers; an error says
    /// why not. That somebody listens would not do: buildkitd binds its sockets
    /// before it opens its store (`cmd/buildkitd/main.go`).
    pub async fn reachable(&self) -> Result<(), Status> {
        let request = Request::post("http://buildkitd/grpc.health.v1.Health/Check")
            .version(Version::HTTP_2)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(unary(b""))
            .map_err(broken)?;
        let link = Link::new(Arc::new(self.clone()));
        link.send(request).await.map(drop)
    }

    /// Opens a connection, within the time that grpc-go gives one.
    async fn connect(&self) -> Result<SendRequest<Body>, Status> {
        tokio::time::timeout(CONNECT_LIMIT, self.dial()).await.unwrap_or_else(|_| {
            let seconds = CONNECT_LIMIT.as_secs();
            Err(Status::unavailable(format!("connection error: desc = \"transport: buildkitd at {} did not answer within {seconds} s\"", self.endpoint)))
        })
    }

    async fn dial(&self) -> Result<SendRequest<Body>, Status> {
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                connected(stream.map_err(|e| dial_error("unix", &path.display().to_string(), &e))?)
                    .await
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(|e| dial_error("tcp", address, &e))?;
                stream
                    .set_nodelay(true)
                    .map_err(|e| dial_error("tcp", address, &e))?;
                match &self.tls {
                    None => connected(stream).await,
                    Some(connector) => {
                        let host = address
                            .rsplit_once(':')
                            .map_or(&**address, |(host, _)| host);
                        let stream = connector.connect(host, stream).await;
                        connected(stream.map_err(|e| handshake_error(&e))?).await
                    }
                }
            }
        }
    }
}

/// One client's connection to buildkitd.
#[derive(Clone)]
pub struct Link {
    upstream: Arc<Upstream>,
    open: Arc<Mutex<Option<SendRequest<Body>>>>,
}

impl Link {
    /// A link that connects at its first call.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            open: Arc::default(),
        }
    }

    /// Sends one request. What comes back is buildkitd's answer, or the status
    /// that gRPC itself would give for a daemon that can't be reached.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        // One more try, on a new connection, for a request that the old one
        // had closed on before any of it was sent.
        for last_try in [false, true] {
            let mut sender = self.sender().await?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !last_try => request = unsent,
                    _ => return Err(broken(error.into_error())),
                },
            }
        }
        Err(Status::unavailable("buildkitd closes every connection"))
    }

    /// How often buildkitd could not be reached: after an outage it may be
    /// another one.
    pub fn outages(&self) -> u64 {
        self.upstream.outages.load(Ordering::Relaxed)
    }

    async fn sender(&self) -> Result<SendRequest<Body>, Status> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_mut().filter(|sender| !sender.is_closed())
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        let sender = self.upstream.connect().await.inspect_err(|_| {
            self.upstream.outages.fetch_add(1, Ordering::Relaxed);
        })?;
        *open = Some(sender.clone());
        Ok(sender)
    }
}

/// Speaks HTTP/2, as a client, over a connected stream. The connection lives
/// while its future is polled.
pub(super) async fn handshake<T>(
    stream: T,
) -> Result<
    (
        SendRequest<Body>,
        impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
    ),
    Status,
>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(broken)
}

/// The same, with the connection in a task that ends when it breaks or when
/// nobody is left to use it.
async fn connected<T>(stream: T) -> Result<SendRequest<Body>, Status>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to buildkitd ended");
        }
    });
    Ok(sender)
}

/// The words of grpc-go for a peer that can't be dialled, which is what users
/// search for.
fn dial_error(network: &str, address: &str, error: &io::Error) -> Status {
    let said = error.to_string();
    let said = said
        .split(" (os error")
        .next()
        .unwrap_or(&said)
        .to_lowercase();
    Status::unavailable(format!(
        "connection error: desc = \"transport: Error while dialing: dial {network} {address}: connect: {said}\""
    ))
}

fn handshake_error(error: &io::Error) -> Status {
    Status::unavailable(format!(
        "connection error: desc = \"transport: authentication handshake failed: {error}\""
    ))
}
