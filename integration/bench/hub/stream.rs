//! The transport of a hub with nothing behind it: a tonic service that gives
//! the same messages out of memory, and forgets those that it gets. No disk, no
//! checksum.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use layerd::cache::wire::v1::write_blob_request::Part;
use layerd::cache::wire::v1::write_blob_response::{Part as Answer, Stored};
use layerd::cache::wire::{PIECE, v1};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// A running server.
pub struct Stream {
    pub url: String,
    _serving: AbortOnDropHandle<()>,
}

impl Stream {
    /// On a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let piece = Bytes::from(vec![7; PIECE]);
        let serving = Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .add_service(Memory { piece })
            .serve_with_incoming(incoming);
        let serving = tokio::spawn(async move { serving.await.expect("it serves") });
        Self {
            url: format!("http://{address}"),
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

#[derive(Clone)]
struct Memory {
    piece: Bytes,
}

impl NamedService for Memory {
    const NAME: &'static str = "layerd.v1.Cache";
}

impl tower::Service<http::Request<Body>> for Memory {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let piece = self.piece.clone();
        async move {
            let answer = if request.uri().path().ends_with("/ReadBlob") {
                let give = tower::service_fn(move |request: Request<v1::ReadBlobRequest>| {
                    std::future::ready(Ok(given(&request.into_inner(), &piece)))
                });
                let mut grpc = Grpc::new(ProstCodec::default());
                grpc.server_streaming(give, request).await
            } else {
                let take =
                    tower::service_fn(|request: Request<Streaming<v1::WriteBlobRequest>>| {
                        std::future::ready(Ok(taken(request.into_inner())))
                    });
                let mut grpc = Grpc::new(ProstCodec::default());
                grpc.streaming(take, request).await
            };
            Ok(answer)
        }
        .boxed()
    }
}

type Answers<T> = Response<stream::BoxStream<'static, Result<T, Status>>>;

fn given(request: &v1::ReadBlobRequest, piece: &Bytes) -> Answers<v1::ReadBlobResponse> {
    let message = v1::ReadBlobResponse {
        bytes: piece.clone(),
        ..Default::default()
    };
    let count = request.length as usize / PIECE;
    Response::new(stream::iter(std::iter::repeat_n(Ok(message), count)).boxed())
}

fn taken(mut messages: Streaming<v1::WriteBlobRequest>) -> Answers<v1::WriteBlobResponse> {
    let (answers, answered) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        let say = async |part| {
            let answer = v1::WriteBlobResponse { part: Some(part) };
            answers.send(Ok(answer)).await.expect("it is heard");
        };
        let mut size = 0;
        while let Some(message) = messages.message().await.expect("the next message") {
            match message.part.expect("a part") {
                Part::Open(_) => say(Answer::Offset(0)).await,
                Part::Piece(piece) => size += piece.bytes.len() as u64,
                Part::Commit(_) => say(Answer::Stored(Stored { size })).await,
            }
        }
    });
    Response::new(ReceiverStream::new(answered).boxed())
}
