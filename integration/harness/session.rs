//! A session with nothing in it: a client that offers only its health.

use std::convert::Infallible;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinSet;

use super::grpc::{Grpc, Sender, frame};

/// How much the tunnel holds, in bytes.
const BUFFER: usize = 1 << 16;

/// `moby.buildkit.v1.BytesMessage`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BytesMessage {
    /// A piece of the connection inside the session.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

/// The headers that open a session of this id.
pub fn headers(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        headers.append(name, HeaderValue::from_str(value).expect("a header"));
    };
    put("x-docker-expose-session-uuid", id);
    put("x-docker-expose-session-name", "test");
    put(
        "x-docker-expose-session-grpc-method",
        "/grpc.health.v1.Health/Check",
    );
    headers
}

/// An open session; it ends when this is dropped.
pub struct Session {
    _tasks: JoinSet<()>,
}

impl Session {
    /// Opens one.
    pub async fn open(grpc: &Grpc, id: &str) -> Self {
        let (sender, response) = grpc
            .stream("/moby.buildkit.v1.Control/Session", &headers(id))
            .await;
        let (inner, outer) = tokio::io::duplex(BUFFER);
        let (reader, writer) = tokio::io::split(outer);
        let mut tasks = JoinSet::new();
        tasks.spawn(send(reader, sender));
        tasks.spawn(receive(response.into_body(), writer));
        tasks.spawn(async move {
            // It ends with the session.
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(inner), service_fn(healthy))
                .await;
        });
        Self { _tasks: tasks }
    }
}

/// Says that all is well, to whatever is asked.
async fn healthy(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let is_health = request.uri().path() == "/grpc.health.v1.Health/Check";
    let mut trailers = HeaderMap::new();
    trailers.insert(
        "grpc-status",
        HeaderValue::from_static(if is_health { "0" } else { "12" }),
    );
    let serving = Frame::data(frame(&[0x08, 0x01]));
    let frames = is_health
        .then_some(serving)
        .into_iter()
        .chain([Frame::trailers(trailers)]);
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok)));
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .body(body);
    Ok(response.expect("a valid response"))
}

async fn send(mut reader: ReadHalf<DuplexStream>, sender: Sender) {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    while matches!(reader.read_buf(&mut buffer).await, Ok(read) if read > 0) {
        let message = BytesMessage {
            data: buffer.split().freeze(),
        };
        if !sender.send(frame(&message.encode_to_vec())) {
            return;
        }
    }
}

async fn receive(mut body: Incoming, mut writer: WriteHalf<DuplexStream>) {
    let mut buffer = BytesMut::new();
    while let Some(Ok(piece)) = body.frame().await {
        let Ok(data) = piece.into_data() else { return };
        buffer.extend_from_slice(&data);
        while let Some(message) = next(&mut buffer) {
            let message = BytesMessage::decode(message).expect("a BytesMessage");
            if writer.write_all(&message.data).await.is_err() {
                return;
            }
        }
    }
}

/// The next whole message of a stream in gRPC's framing.
fn next(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..5)?.get_u32() as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}
