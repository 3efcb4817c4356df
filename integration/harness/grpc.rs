//! gRPC without a client library: any bytes to any method, so that what no
//! client would send can be sent.

use std::path::Path;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::wait::DEADLINE;

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A connection to a unix socket, or to a port.
pub struct Grpc {
    sender: SendRequest<Body>,
    _connection: AbortOnDropHandle<()>,
}

/// How a call ended.
#[derive(Debug)]
pub struct Answer {
    /// `grpc-status`; 14 where the stream broke without one.
    pub code: i32,
    /// `grpc-message`, as it travels.
    pub message: String,
    /// The frames that came.
    pub body: Bytes,
}

/// The sending half of a call; the call goes on until it is dropped.
pub struct Sender(mpsc::UnboundedSender<Result<Frame<Bytes>, std::convert::Infallible>>);

impl Sender {
    /// Sends bytes as they are; false when the other side is gone.
    pub fn send(&self, bytes: Bytes) -> bool {
        self.0.unbounded_send(Ok(Frame::data(bytes))).is_ok()
    }
}

/// A message in gRPC's framing, uncompressed.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a message of less than 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

impl Grpc {
    /// Connects to a `unix://` or `http://` address.
    pub async fn connect(address: &str) -> Self {
        if let Some(port) = address.strip_prefix("http://") {
            let stream = TcpStream::connect(port).await.expect("somebody listens");
            return Self::over(stream).await;
        }
        let path = Path::new(address.trim_start_matches("unix://"));
        let stream = UnixStream::connect(path).await.expect("somebody listens");
        Self::over(stream).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        let connection = tokio::spawn(async move {
            // How it ends shows in its calls.
            let _ = connection.await;
        });
        Self {
            sender,
            _connection: AbortOnDropHandle::new(connection),
        }
    }

    /// One call with all of its body at once.
    pub async fn call(&self, method: &str, body: Bytes) -> Answer {
        self.call_with(method, &HeaderMap::new(), body).await
    }

    /// The same, with headers.
    pub async fn call_with(&self, method: &str, headers: &HeaderMap, body: Bytes) -> Answer {
        let response = self.send(method, headers, Full::new(body).boxed()).await;
        self.finish(response).await
    }

    /// One call whose body is sent bit by bit.
    pub async fn stream(&self, method: &str, headers: &HeaderMap) -> (Sender, Response<Incoming>) {
        let (sender, receiver) = mpsc::unbounded();
        let response = self
            .send(method, headers, StreamBody::new(receiver).boxed())
            .await;
        (Sender(sender), response.expect("the call begins"))
    }

    async fn send(
        &self,
        method: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::post(format!("http://layerd{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .expect("a valid request");
        request.headers_mut().extend(headers.clone());
        let mut sender = self.sender.clone();
        sender.ready().await?;
        sender.send_request(request).await
    }

    async fn finish(&self, response: hyper::Result<Response<Incoming>>) -> Answer {
        let broken = |error: hyper::Error| Answer {
            code: 14,
            message: error.to_string(),
            body: Bytes::new(),
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => return broken(error),
        };
        let (head, body) = response.into_parts();
        let collected = tokio::time::timeout(DEADLINE, body.collect()).await;
        let collected = match collected.expect("the call ends") {
            Ok(collected) => collected,
            Err(error) => return broken(error),
        };
        let trailers = collected.trailers().cloned().unwrap_or(head.headers);
        let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        Answer {
            code: text("grpc-status")
                .and_then(|code| code.parse().ok())
                .unwrap_or(14),
            message: text("grpc-message").unwrap_or_default().to_owned(),
            body: collected.to_bytes(),
        }
    }
}
