//! Clients, from their connection to its end.
//!
//! Windows are small until a client has shown that its bytes are taken in, and
//! then as large as its network needs: what nobody reads yet is kept in memory.
//! What a client may send unasked is bounded for each connection, connections
//! are counted, and an address has a share of them. A connection that asks for
//! nothing is told to end; so is one whose client does not read its answers.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::first_word::{Spoken, first_word};
use super::flow::Flow;
use super::metrics::Metrics;
use super::pages::furnished;
use super::peers::{Guest, Peers};
use super::reception::Reception;
use super::traffic::Traffic;
use super::{Closing, Config};
use crate::telemetry::Seldom;
use crate::tls::Acceptor;

/// The largest frame.
const MAX_FRAME: u32 = 1 << 20;
/// What is kept for a client that does not read, for each stream, in bytes.
const SEND_BUFFER: usize = 512 << 10;
/// Calls that one connection may have open; a client waits with more. A sidecar
/// has 16 uploads of its outbox, and what its builds read and ask.
const MAX_CALLS: u32 = 128;
/// Bytes of the headers of one call. A token has 16 KiB; one that has more is to
/// be refused by who knows what a token is, since HTTP/2 tells nobody.
const MAX_HEADER_LIST: u32 = 128 << 10;
/// Clients that were hung up on for what they did.
static FAULTY: Seldom = Seldom::new(Duration::from_secs(10));
/// How often it is told that no more connections are accepted.
const FULL: Duration = Duration::from_secs(60);
/// How often a client is asked whether it is still there, and how long it may
/// take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long calls may go on after the door was told to close.
const DRAIN: Duration = Duration::from_secs(30);
/// How long before that the last ones are told to take no more calls.
const LAST_CALL: Duration = Duration::from_secs(5);
/// Who makes no call for so long while the door closes is in the middle of
/// nothing.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a connection may be open without a call.
const IDLE: Duration = Duration::from_secs(600);
/// How long a client of HTTP/1 may take over the head of a request, the time
/// before its first byte included: an idle connection is closed then.
const HEAD: Duration = Duration::from_secs(30);
/// What is read ahead of such a client, and the largest head, in bytes.
const HEAD_BUFFER: usize = 128 << 10;

/// Serves until `closing` says so, and what runs by then has ended.
pub async fn serve<G>(config: Config<G>, closing: Closing)
where
    G: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    G: Clone + Send + 'static,
    G::Future: Send + 'static,
{
    let tasks = config.tasks;
    let pages = furnished(config.pages, config.metrics.clone());
    let mut seats = Seats::new(config.max_connections);
    let peers = Peers::new(config.max_of_address);
    loop {
        let accepted = tokio::select! {
            accepted = next(&config.listener, &mut seats) => accepted,
            () = closing.drain.cancelled() => break,
        };
        match accepted {
            Ok((stream, seat)) => {
                let Some(guest) = peers.admit(&stream) else {
                    continue;
                };
                let reception = Reception {
                    calls: config.calls.clone(),
                    pages: pages.clone(),
                    peer: guest.address(),
                };
                let connection = Connection {
                    reception,
                    metrics: config.metrics.clone(),
                    drain: closing.drain.clone(),
                    _seat: seat,
                    _guest: guest,
                };
                tasks.spawn(connection.run(stream, config.tls.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(config.listener);
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        () = closing.hang_up.cancelled() => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("calls that still run are cut off"),
    }
}

/// The connections that there may be.
struct Seats {
    free: Arc<Semaphore>,
    count: usize,
    told: Option<Instant>,
}

impl Seats {
    fn new(count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(count)),
            count,
            told: None,
        }
    }

    async fn take(&mut self) -> io::Result<OwnedSemaphorePermit> {
        let lately = |at: Instant| at.elapsed() < FULL;
        if self.free.available_permits() == 0 && !self.told.is_some_and(lately) {
            self.told = Some(Instant::now());
            tracing::warn!(
                connections = self.count,
                "no more connections are accepted until others end: see --max-connections"
            );
        }
        let seat = Arc::clone(&self.free).acquire_owned().await;
        seat.map_err(io::Error::other)
    }
}

async fn next(
    listener: &tokio::net::TcpListener,
    seats: &mut Seats,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let seat = seats.take().await?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, seat))
}

/// One client.
struct Connection<G> {
    reception: Reception<G>,
    metrics: Metrics,
    drain: CancellationToken,
    _seat: OwnedSemaphorePermit,
    _guest: Guest,
}

impl<G> Connection<G>
where
    G: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    G: Clone + Send + 'static,
    G::Future: Send + 'static,
{
    async fn run(self, stream: TcpStream, tls: Option<Acceptor>) {
        let peer = self.reception.peer;
        // Small answers must not wait for large ones to fill a packet.
        let _ = stream.set_nodelay(true);
        let metrics = self.metrics.clone();
        let _open = metrics.connected();
        let ended = match tls {
            None => self.converse(stream).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.converse(stream).await,
                Err(error) => {
                    tracing::info!(%peer, %error, "a client was turned away: no agreement on TLS");
                    return;
                }
            },
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a client broke off");
            if let Some(fault) = fault(&*error) {
                metrics.faulty();
                if let Some(connections) = FAULTY.count() {
                    tracing::info!(%peer, connections, %fault, "a client was hung up on: it broke the rules of HTTP/2, or sent larger headers than any token needs");
                }
            }
        }
    }

    async fn converse<S>(self, mut stream: S) -> Result<(), Box<dyn Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (spoken, heard) = first_word(&mut stream).await?;
        let (reading, writing) = tokio::io::split(stream);
        let stream = tokio::io::join(io::Cursor::new(heard).chain(reading), writing);
        let (stream, drain) = (TokioIo::new(stream), self.drain);
        match spoken {
            Spoken::Http1 => {
                let served = over_http1().serve_connection(stream, self.reception);
                let mut served = pin!(served);
                let flow = Flow::new();
                let serving = flow.writing(async {
                    tokio::select! {
                        ended = served.as_mut() => return ended,
                        () = drain.cancelled() => served.as_mut().graceful_shutdown(),
                    }
                    served.await
                });
                tokio::select! {
                    ended = serving => ended?,
                    () = flow.stalled() => return Err("it does not read its answer".into()),
                }
            }
            Spoken::Http2 => {
                let traffic = Traffic::new();
                let served = over_http2(&traffic).serve_connection(stream, self.reception);
                let mut served = pin!(served);
                let serving = async {
                    tokio::select! {
                        ended = served.as_mut() => return ended,
                        () = traffic.quiet(IDLE) => {}
                        () = drained(&traffic, &drain) => {}
                    }
                    served.as_mut().graceful_shutdown();
                    served.await
                };
                tokio::select! {
                    ended = serving => ended?,
                    () = traffic.stuck() => return Err("it does not read its answers".into()),
                }
            }
        }
        Ok(())
    }
}

/// What a client did on its connection that it was closed for.
fn fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a h2::Error> {
    let said: &h2::Error = error.source()?.downcast_ref()?;
    let faulty = |why| why != h2::Reason::NO_ERROR;
    (said.is_library() && said.reason().is_some_and(faulty)).then_some(said)
}

fn over_http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BUFFER);
    builder
}

fn over_http2(traffic: &Traffic) -> http2::Builder<Traffic> {
    let mut builder = http2::Builder::new(traffic.clone());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_CALLS)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}

/// Resolves when a connection is to take no more calls, since the door closes.
/// Until then one that is in use may go on, so that an export which has begun
/// comes to its end.
async fn drained(traffic: &Traffic, drain: &CancellationToken) {
    drain.cancelled().await;
    // Its end is the same to all who still call then.
    let _ = tokio::time::timeout(DRAIN - LAST_CALL, traffic.quiet(PAUSE)).await;
}
