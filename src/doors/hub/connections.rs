//! Clients, from their connection to its end.
//!
//! Windows are sized so that a stream moves at the speed of a local network.
//! What a client may send unasked is bounded for each connection, connections
//! are counted, and an address has at most half of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use super::peers::{Guest, Peers};
use super::pieces::Uncopied;
use super::screen::Screen;
use super::service::Service;
use super::{Closing, Config, Door};
use crate::cache::wire::{CacheServer, MAX_MESSAGE};
use crate::tls::Acceptor;

/// What a client may send on one stream before it is taken in, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same, on all streams of one connection.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// The largest frame.
const MAX_FRAME: u32 = 1 << 20;
/// What is kept for a client that does not read, for each stream, in bytes.
const SEND_BUFFER: usize = 512 << 10;
/// Calls that one connection may have open; a client waits with more.
const MAX_CALLS: u32 = 256;
/// Bytes of the headers of one call: a token has 16 KiB.
const MAX_HEADER_LIST: u32 = 64 << 10;
/// Connections at a time; one more waits to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Those of one address; one more is closed.
pub(super) const MAX_OF_PEER: usize = 2048;
/// How often a client is asked whether it is still there, and how long it may
/// take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long calls may go on after the door was told to close.
const DRAIN: Duration = Duration::from_secs(30);
/// Calls whose message, of up to 4 MiB, is on its way; others wait.
const MESSAGES: usize = 64;
/// Memory for exports that come in, in KiB; others wait.
const EXPORTS: usize = 96 << 10;
/// How long a client may take to say the first thing: these bytes (RFC 9113,
/// 3.4).
const FIRST_WORD: Duration = Duration::from_secs(10);
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Serves until `closing` says so, and what runs by then has ended.
pub async fn serve(config: Config, closing: Closing) {
    let tasks = TaskTracker::new();
    let door = Arc::new(Door {
        access: config.access,
        cache: config.cache,
        uploads: Arc::new(Semaphore::new(config.uploads)),
        messages: Arc::new(Semaphore::new(MESSAGES)),
        exports: Arc::new(Semaphore::new(EXPORTS)),
        metrics: config.metrics,
        tasks: tasks.clone(),
    });
    let service = CacheServer::new(Service(Arc::clone(&door)))
        .max_decoding_message_size(MAX_MESSAGE)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd);
    let routes = Routes::new(Uncopied(service)).prepare();
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let peers = Peers::default();
    loop {
        let accepted = tokio::select! {
            accepted = next(&config.listener, &seats) => accepted,
            () = closing.drain.cancelled() => break,
        };
        match accepted {
            Ok((stream, seat)) => {
                let Some(guest) = peers.admit(&stream) else {
                    continue;
                };
                let connection = Connection {
                    door: Arc::clone(&door),
                    routes: routes.clone(),
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

async fn next(
    listener: &tokio::net::TcpListener,
    seats: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await;
    let seat = seat.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, seat))
}

/// One client.
struct Connection {
    door: Arc<Door>,
    routes: Routes,
    drain: CancellationToken,
    _seat: OwnedSemaphorePermit,
    _guest: Guest,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<Acceptor>) {
        let peer = stream.peer_addr().ok();
        // Small answers must not wait for large ones to fill a packet.
        let _ = stream.set_nodelay(true);
        let _open = self.door.metrics.connected();
        let ended = match tls {
            None => self.converse(stream).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.converse(stream).await,
                Err(error) => Err(error.into()),
            },
        };
        if let Err(error) = ended {
            tracing::debug!(?peer, %error, "a client broke off");
        }
    }

    async fn converse<S>(
        self,
        mut stream: S,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // One that says nothing, or byte after byte, keeps no seat.
        let mut preface = [0; PREFACE];
        let spoken = tokio::time::timeout(FIRST_WORD, stream.read_exact(&mut preface)).await;
        spoken.map_err(|_| "it said nothing")??;
        let (reading, writing) = tokio::io::split(stream);
        let stream = tokio::io::join(io::Cursor::new(preface).chain(reading), writing);
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(MAX_CALLS)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1);
        let service = Screen::new(self.door, self.routes);
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = self.drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}
