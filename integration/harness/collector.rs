//! An OTLP collector that keeps what it is sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::grpc::frame;

/// The only call that it answers.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Listens on a free port as long as it lives.
pub struct Collector {
    /// `http://host:port`.
    pub endpoint: String,
    sent: Arc<Mutex<Vec<u8>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Collector {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        let kept = sent.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request| take(kept.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            endpoint,
            sent,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// Whether `part` is in what was sent: a span's name or id, or an attribute.
    pub fn has(&self, part: impl AsRef<[u8]>) -> bool {
        let part = part.as_ref();
        let sent = self.sent.lock().expect("nobody panicked");
        sent.windows(part.len()).any(|window| window == part)
    }
}

type Answer = Response<StreamBody<futures::stream::Iter<std::vec::IntoIter<Sent>>>>;
type Sent = Result<Frame<Bytes>, Infallible>;

async fn take(kept: Arc<Mutex<Vec<u8>>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    assert_eq!(request.uri().path(), EXPORT);
    let body = request.into_body().collect().await.expect("a whole body");
    kept.lock()
        .expect("nobody panicked")
        .extend_from_slice(&body.to_bytes());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = vec![Ok(Frame::data(frame(b""))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
