//! The session in the middle.
//!
//! Inside `Control/Session` runs an HTTP/2 connection in which the client
//! (buildx) is the server and buildkitd the client. It is ended here and opened
//! anew towards the client, so that one service can be added: the Content
//! service, for store ids of ours. Every other call, health checks included,
//! is passed on as it comes.
//!
//! ```text
//! buildkitd ── HTTP/2 ──▶ here ── HTTP/2 ──▶ client
//!                          └─ Content, store id of ours ──▶ stores
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt as _, join};
use tokio::sync::{Notify, watch};
use tonic::Status;

use super::Door;
use super::content;
use super::forward::{answer, untouched};
use super::grpc::{self, Body, BoxError, broken, is_trailers_only, refuse};
use super::tunnel::{Ending, TunnelReader, TunnelWriter};
use super::upstream::{CONNECTION_WINDOW, Link, MAX_HEADER_LIST, STREAM_WINDOW, handshake};

/// `SolveRequest.Session` of the builds that use this session.
const UUID: HeaderName = HeaderName::from_static("x-docker-expose-session-uuid");
/// Once per method that the client's end offers.
const METHOD: HeaderName = HeaderName::from_static("x-docker-expose-session-grpc-method");
/// Messages under way in each direction; small, since each may hold 256 KiB.
const UNDER_WAY: usize = 4;

/// What a client may say before it is called, in bytes: its settings.
const MAX_GREETING: usize = 64 << 10;

/// The sessions that are open now, so that a build can tell whether its own is.
pub struct Sessions {
    open: Mutex<HashMap<String, usize>>,
    opened: Notify,
    count: Gauge,
}

impl Sessions {
    /// None yet; `count` will say how many there are.
    pub fn new(count: Gauge) -> Self {
        Self {
            open: Mutex::default(),
            opened: Notify::new(),
            count,
        }
    }

    /// Whether this session is open, or opens within `patience`: a client may
    /// send Solve first.
    pub async fn is_live(&self, id: &str, patience: Duration) -> bool {
        let opens = async {
            loop {
                let opened = self.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                if self.lock().contains_key(id) {
                    return;
                }
                opened.await;
            }
        };
        !id.is_empty() && tokio::time::timeout(patience, opens).await.is_ok()
    }

    fn enter(self: &Arc<Self>, id: String) -> OpenSession {
        *self.lock().entry(id.clone()).or_default() += 1;
        self.count.inc();
        self.opened.notify_waiters();
        OpenSession {
            sessions: self.clone(),
            id,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a session as open until it is dropped.
struct OpenSession {
    sessions: Arc<Sessions>,
    id: String,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.sessions.count.dec();
        let mut open = self.sessions.lock();
        if let Some(count) = open.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.id);
            }
        }
    }
}

/// Answers `Control/Session`.
pub async fn session(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (mut head, from_client) = request.into_parts();
    let id = head
        .headers
        .get(UUID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let entry = door.sessions.enter(id.clone());
    offer_content(&mut head.headers);

    let (to_buildkitd, upstream_body) = grpc::channel(UNDER_WAY);
    let response = link.send(Request::from_parts(head, upstream_body)).await?;
    if is_trailers_only(response.headers()) {
        return Ok(response.map(untouched));
    }
    let (head, from_buildkitd) = response.into_parts();
    let (to_client, downstream_body) = grpc::channel(UNDER_WAY);

    let tunnels = Tunnels {
        from_client,
        to_client,
        from_buildkitd,
        to_buildkitd,
    };
    let door = door.clone();
    door.tasks.clone().spawn(async move {
        tracing::debug!(session = id, "session opened");
        let _entry = entry;
        let outcome = tunnels.run(&door).await;
        tracing::debug!(
            session = id,
            error = outcome.err().map(|e| e.to_string()),
            "session ended"
        );
    });
    Ok(Response::from_parts(head, downstream_body))
}

/// Adds the Content service to what the client's end says that it offers.
fn offer_content(headers: &mut HeaderMap<HeaderValue>) {
    for method in content::METHODS {
        let offered = headers
            .get_all(METHOD)
            .iter()
            .any(|value| value.as_bytes() == method.as_bytes());
        if !offered {
            headers.append(METHOD, HeaderValue::from_static(method));
        }
    }
}

/// The four half-streams of a session.
struct Tunnels {
    from_client: Incoming,
    to_client: grpc::Sender,
    from_buildkitd: Incoming,
    to_buildkitd: grpc::Sender,
}

impl Tunnels {
    /// Serves buildkitd from the client until either of them ends the session,
    /// and tells the client how it ended.
    async fn run(self, door: &Arc<Door>) -> Result<(), BoxError> {
        let (client_reader, client_ending) = TunnelReader::new(self.from_client);
        let (buildkitd_reader, ending) = TunnelReader::new(self.from_buildkitd);
        let client_writer = TunnelWriter::new(self.to_client.clone(), client_ending);
        let buildkitd_writer = TunnelWriter::new(self.to_buildkitd, ending.clone());
        let buildkitd_io = join(buildkitd_reader, buildkitd_writer);

        let client = Arc::new(ClientEnd::default());
        let service = service_fn(|request| inside(door.clone(), client.clone(), request));
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .serve_connection(TokioIo::new(buildkitd_io), service);
        let outcome = tokio::select! {
            served = serving => served.map_err(BoxError::from),
            ended = client.connect(client_reader, client_writer) => ended,
            () = self.to_client.closed() => Ok(()),
            () = door.over.cancelled() => Err("layerd is shutting down".into()),
        };
        finish(self.to_client, &ending, &outcome).await;
        outcome
    }
}

/// The client's end of a session: an HTTP/2 connection that is begun at the
/// first call, as buildkitd itself does. A client that hangs up at once would
/// otherwise mix up our greeting with the end.
#[derive(Default)]
struct ClientEnd {
    wanted: Notify,
    connected: watch::Sender<Option<SendRequest<Body>>>,
}

impl ClientEnd {
    /// Connects when the first call comes, and resolves when the client ends.
    async fn connect<R>(&self, mut reader: R, writer: TunnelWriter) -> Result<(), BoxError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        // A server may greet first.
        let mut greeting = Vec::with_capacity(MAX_GREETING);
        loop {
            tokio::select! {
                () = self.wanted.notified() => break,
                read = reader.read_buf(&mut greeting), if greeting.len() < MAX_GREETING => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
            }
        }
        let stream = join(Cursor::new(greeting).chain(reader), writer);
        let (client, connection) = handshake(stream).await?;
        self.connected.send_replace(Some(client));
        Ok(connection.await?)
    }

    /// The connection, as soon as it is there; the call ends with the session
    /// where it never is.
    async fn client(&self) -> Result<SendRequest<Body>, Status> {
        self.wanted.notify_one();
        let mut connected = self.connected.subscribe();
        let client = connected
            .wait_for(Option::is_some)
            .await
            .map(|client| client.clone());
        client
            .ok()
            .flatten()
            .ok_or_else(|| Status::unavailable("the session has ended"))
    }
}

/// Ends the client's stream: with buildkitd's trailers where it sent them.
async fn finish(to_client: grpc::Sender, ending: &Ending, outcome: &Result<(), BoxError>) {
    let trailers = ending.trailers().unwrap_or_else(|| {
        grpc::status_trailers(&match outcome {
            Ok(()) => Status::ok(""),
            Err(error) => broken(error.to_string()),
        })
    });
    // A client that is gone needs no trailers.
    let _ = to_client.send(Ok(Frame::trailers(trailers))).await;
}

/// One call of buildkitd on the client.
async fn inside(
    door: Arc<Door>,
    client: Arc<ClientEnd>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match content::addressed(&door.stores, &request) {
        Some(Ok(store)) => content::serve(store, request).await,
        Some(Err(status)) => refuse(&status),
        None => answer(pass(&client, request).await),
    })
}

async fn pass(client: &ClientEnd, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let mut client = client.client().await?;
    let response = client.send_request(request.map(untouched)).await;
    Ok(response.map_err(broken)?.map(untouched))
}
