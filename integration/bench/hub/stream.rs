//! The transport of a hub with next to nothing behind it: a tonic service that
//! gives the same messages out of memory, or out of files as tokio reads them,
//! and forgets those that it gets. No checksum.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use layerd::cache::wire::v1::write_blob_request::Part;
use layerd::cache::wire::v1::write_blob_response::{Part as Answer, Stored};
use layerd::cache::wire::{PIECE, digest, v1};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::harness::process::Process;

/// A running server.
pub struct Stream {
    pub url: String,
    _here: Option<AbortOnDropHandle<()>>,
    _apart: Option<Process>,
}

impl Stream {
    /// In this process, out of memory.
    pub async fn start() -> Self {
        let listener = listen().await;
        let url = url(&listener);
        let serving = tokio::spawn(serve(listener, Source::memory()));
        Self {
            url,
            _here: Some(AbortOnDropHandle::new(serving)),
            _apart: None,
        }
    }

    /// In a process of its own, as a hub is: out of memory, or of the files in
    /// a folder.
    pub async fn start_apart(log: &Path, folder: Option<&Path>) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.arg("--stream").args(folder);
        let mut process = Process::spawn("stream", &command, log);
        let mut lines = BufReader::new(process.stdout()).lines();
        let url = lines.next_line().await.expect("its first line");
        Self {
            url: url.expect("its URL"),
            _here: None,
            _apart: Some(process),
        }
    }
}

/// What the process of its own does; ends when it is killed.
pub async fn run(folder: Option<PathBuf>) {
    let listener = listen().await;
    println!("{}", url(&listener));
    let source = folder.map_or_else(Source::memory, |folder| Source::Folder(Arc::new(folder)));
    serve(listener, source).await;
}

/// A free loopback port.
async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

fn url(listener: &TcpListener) -> String {
    let address = listener.local_addr().expect("its address");
    format!("http://{address}")
}

async fn serve(listener: TcpListener, source: Source) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .add_service(Given { source })
        .serve_with_incoming(incoming);
    serving.await.expect("it serves");
}

#[derive(Clone)]
enum Source {
    /// This piece, again and again.
    Memory(Bytes),
    Folder(Arc<PathBuf>),
}

impl Source {
    fn memory() -> Self {
        Self::Memory(Bytes::from(vec![7; PIECE]))
    }
}

#[derive(Clone)]
struct Given {
    source: Source,
}

impl NamedService for Given {
    const NAME: &'static str = "layerd.v1.Cache";
}

impl tower::Service<http::Request<Body>> for Given {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let source = self.source.clone();
        async move {
            let answer = if request.uri().path().ends_with("/ReadBlob") {
                let give = tower::service_fn(move |request: Request<v1::ReadBlobRequest>| {
                    given(request.into_inner(), source.clone())
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

async fn given(
    request: v1::ReadBlobRequest,
    source: Source,
) -> Result<Answers<v1::ReadBlobResponse>, Status> {
    let message = |bytes| v1::ReadBlobResponse {
        bytes,
        ..Default::default()
    };
    let messages = match source {
        Source::Memory(piece) => {
            let count = request.length as usize / PIECE;
            stream::iter(std::iter::repeat_n(Ok(message(piece)), count)).boxed()
        }
        Source::Folder(folder) => {
            let digest = digest(&request.digest).expect("a digest");
            let file = tokio::fs::File::open(folder.join(digest.hex())).await?;
            let pieces = ReaderStream::with_capacity(file, PIECE);
            pieces.map_ok(message).map_err(Status::from).boxed()
        }
    };
    Ok(Response::new(messages))
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
