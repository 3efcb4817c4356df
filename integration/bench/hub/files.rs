//! Files without a hub: as an HTTP/1.1 server gives and takes them, and as the
//! disk does by itself.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use layerd::cache::wire::PIECE;
use layerd::digest::Hasher;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;

use super::shape::Blob;

type Bytewise = BoxBody<Bytes, std::io::Error>;

/// A hyper server of one folder: GET, and PUT that hashes, and answers once all
/// is on the disk, as a hub does.
pub struct Files {
    host: String,
    _serving: AbortOnDropHandle<()>,
}

impl Files {
    /// On a free loopback port.
    pub async fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let folder = Arc::new(folder);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                stream.set_nodelay(true).expect("it takes that");
                let folder = Arc::clone(&folder);
                let service = service_fn(move |request| answer(Arc::clone(&folder), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self {
            host,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Where a blob is.
    pub fn url(&self, blob: &Blob) -> String {
        format!("http://{}/{}", self.host, blob.digest.hex())
    }
}

async fn answer(
    folder: Arc<PathBuf>,
    request: Request<Incoming>,
) -> std::io::Result<Response<Bytewise>> {
    let path = folder.join(request.uri().path().trim_start_matches('/'));
    if request.method() == Method::GET {
        let file = tokio::fs::File::open(path).await?;
        let size = file.metadata().await?.len();
        let frames = ReaderStream::with_capacity(file, PIECE).map_ok(Frame::data);
        let mut response = Response::new(BoxBody::new(StreamBody::new(frames)));
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_LENGTH, size.into());
        return Ok(response);
    }
    let mut file = tokio::fs::File::create(path).await?;
    let mut hasher = Hasher::default();
    let mut body = request.into_body().into_data_stream();
    while let Some(bytes) = body.try_next().await.map_err(std::io::Error::other)? {
        hasher.update(&bytes);
        file.write_all(&bytes).await?;
    }
    file.sync_all().await?;
    let digest = Bytes::from(hasher.finish().hex());
    let frames = stream::iter([Ok(Frame::data(digest))]);
    Ok(Response::new(BoxBody::new(StreamBody::new(frames))))
}

async fn connection<B>(host: &str) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
{
    let stream = TcpStream::connect(host).await.expect("a connection");
    stream.set_nodelay(true).expect("it takes that");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    sender
}

/// One request, and its body as it comes.
async fn ask(method: Method, url: &str, size: u64, body: Bytewise) -> Incoming {
    let url: http::Uri = url.parse().expect("a URL");
    let host = url.authority().expect("a host").to_string();
    let request = Request::builder()
        .method(method)
        .uri(url.path_and_query().expect("a path").as_str())
        .header(http::header::HOST, &host)
        .header(http::header::CONTENT_LENGTH, size)
        .body(body)
        .expect("a request");
    let answer = connection(&host).await.send_request(request).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

/// GETs it all.
pub async fn get(url: String, blob: Blob) {
    let nothing = BoxBody::new(StreamBody::new(stream::empty()));
    let mut body = ask(Method::GET, &url, 0, nothing).await.into_data_stream();
    let mut length = 0;
    while let Some(bytes) = body.next().await {
        length += bytes.expect("the next bytes").len();
    }
    assert_eq!(length, blob.content.len());
}

/// PUTs it.
pub async fn put(url: String, blob: Blob) {
    let pieces = blob.pieces().into_iter();
    let frames = pieces.map(|(bytes, _)| Ok(Frame::data(bytes)));
    let frames = BoxBody::new(StreamBody::new(stream::iter(frames)));
    let size = blob.content.len() as u64;
    let answer = ask(Method::PUT, &url, size, frames).await;
    let digest = answer.collect().await.expect("an answer").to_bytes();
    assert_eq!(digest, blob.digest.hex());
}

/// Reads a file, and forgets it.
pub async fn load(path: PathBuf, blob: Blob) {
    let work = move || {
        let mut file = File::open(path).expect("a file");
        let (mut piece, mut length) = (vec![0; PIECE], 0);
        loop {
            match file.read(&mut piece).expect("the next bytes") {
                0 => break,
                read => length += read,
            }
        }
        assert_eq!(length, blob.content.len());
    };
    tokio::task::spawn_blocking(work).await.expect("it is read");
}

/// Hashes and writes a file, until it is on the disk.
pub async fn save(path: PathBuf, blob: Blob) {
    let work = move || {
        let mut file = File::create(path).expect("a file");
        let mut hasher = Hasher::default();
        for piece in blob.content.chunks(PIECE) {
            hasher.update(piece);
            file.write_all(piece).expect("there is room");
        }
        file.sync_all().expect("it is on the disk");
        assert_eq!(hasher.finish(), blob.digest);
    };
    tokio::task::spawn_blocking(work)
        .await
        .expect("it is written");
}

/// A blob's file in a folder.
pub fn file(folder: &Path, blob: &Blob) -> PathBuf {
    folder.join(blob.digest.hex())
}
