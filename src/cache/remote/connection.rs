//! The way to one address of a hub: a kept HTTP/2 connection, made when it is
//! needed and again after it broke.
//!
//! A connection counts as made only when the other side has said something:
//! one that accepts and stays silent is found within the limit for connecting.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::Scheme;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, oneshot};

use super::address::HubAddress;
use crate::tls::Connector;

/// What is said of whoever accepts a connection, and ends it.
pub(super) const CLOSED: &str = "it closed the connection at once: is it a hub, spoken to by http:// or https:// as it listens, and does it ask for --hub-cert?";
/// How long connecting may take, the first word of the other side included.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// What one stream may have under way: a fast peer far away stays busy.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all streams of one connection together.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Names that an error may begin with, and keep as they are.
const NAMES: [&str; 3] = ["Postgres", "Azure", "Google"];
/// The largest frame that is taken.
const FRAME: u32 = 1 << 20;
/// How much may wait to be sent on one stream.
const SEND_BUFFER: usize = 1 << 20;
/// How often the other side is asked whether it is there, and how long its
/// answer may take: it stands behind what is under way on a slow link.
const KEEP_ALIVE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// One address and the connection to it.
pub(super) struct Connection {
    address: HubAddress,
    tls: Option<Connector>,
    open: Mutex<Option<SendRequest<tonic::body::Body>>>,
}

impl Connection {
    pub(super) fn new(address: HubAddress, tls: Option<Connector>) -> Self {
        Self {
            address,
            tls,
            open: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &HubAddress {
        &self.address
    }

    /// What calls are made on.
    pub(super) async fn wire(&self) -> Result<Wire, String> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(self.wired(sender.clone()));
        }
        let dialled = tokio::time::timeout(CONNECT_LIMIT, self.dial()).await;
        let sender = dialled
            .unwrap_or_else(|_| {
                let seconds = CONNECT_LIMIT.as_secs();
                Err(format!("it did not answer within {seconds} s"))
            })
            .inspect_err(|_| *open = None)?;
        *open = Some(sender.clone());
        Ok(self.wired(sender))
    }

    /// Has the next call connect anew, where the connection is still this one.
    pub(super) async fn distrust(&self) {
        *self.open.lock().await = None;
    }

    fn wired(&self, sender: SendRequest<tonic::body::Body>) -> Wire {
        Wire {
            sender,
            tls: self.address.is_tls(),
            authority: self.address.authority(),
        }
    }

    async fn dial(&self) -> Result<SendRequest<tonic::body::Body>, String> {
        let stream = TcpStream::connect(self.address.authority()).await;
        let stream = stream.map_err(|error| said(&error))?;
        stream.set_nodelay(true).map_err(|error| said(&error))?;
        match &self.tls {
            Some(tls) if self.address.is_tls() => {
                let stream = tls.connect(self.address.host(), stream).await;
                connected(stream.map_err(|error| unsecured(&error))?).await
            }
            None if self.address.is_tls() => Err("there are no settings for TLS".to_owned()),
            _ => connected(stream).await,
        }
    }
}

/// A sentence as a part of another: its first letter is small, unless the word is
/// an acronym or a name.
pub(super) fn begun_small(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    let word = text.split(|letter: char| !letter.is_alphanumeric()).next();
    let word = word.unwrap_or_default();
    let named = NAMES.contains(&word)
        || word
            .chars()
            .skip(1)
            .any(|letter| letter.is_uppercase() || letter.is_ascii_digit());
    if named {
        return text.to_owned();
    }
    first.to_lowercase().chain(letters).collect()
}

/// The system's words, without its number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    begun_small(text)
}

/// Why there is no TLS, and what to do where that is known.
fn unsecured(error: &io::Error) -> String {
    use tokio_rustls::rustls::{CertificateError, Error, InvalidMessage};
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    let advice = match source {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            ": if that is right, name its authority by --hub-ca"
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            ": it speaks no TLS, as it would at an http:// address"
        }
        _ => "",
    };
    format!("TLS: {}{advice}", said(error))
}

async fn connected<T>(stream: T) -> Result<SendRequest<tonic::body::Body>, String>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tell, heard) = oneshot::channel();
    let stream = Listening {
        stream,
        tell: Some(tell),
    };
    let [interval, patience] = KEEP_ALIVE;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends when it breaks, or when nobody is left to use it.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a hub ended");
        }
    });
    heard.await.map_err(|_| CLOSED.to_owned())?;
    Ok(sender)
}

/// Tells when the other side says its first word.
struct Listening<T> {
    stream: T,
    tell: Option<oneshot::Sender<()>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before
            && let Some(tell) = self.tell.take()
        {
            // Whoever connected may have given up.
            let _ = tell.send(());
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection, as tonic's client calls it.
#[derive(Clone)]
pub(super) struct Wire {
    sender: SendRequest<tonic::body::Body>,
    tls: bool,
    authority: String,
}

impl tower_service::Service<Request<tonic::body::Body>> for Wire {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let scheme = if self.tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme);
        parts.authority = self.authority.parse().ok();
        // A path and an authority that were parsed make one.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        Box::pin(self.sender.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_letter_of_a_plain_word_becomes_small() {
        for (said, told) in [
            ("Connection refused", "connection refused"),
            ("TLS handshake eof", "TLS handshake eof"),
            ("S3 said No", "S3 said No"),
            ("Postgres is away", "Postgres is away"),
            ("HTTP/2 error", "HTTP/2 error"),
            ("no CA of Acme", "no CA of Acme"),
            ("", ""),
        ] {
            assert_eq!(begun_small(said), told);
        }
    }
}
