//! The pull endpoint: imports that buildkitd reads lazily.
//!
//! Over a session BuildKit pulls and extracts whatever it loads. Its `s3`
//! importer asks for the config, and then only for the layers that a build
//! really needs, in parallel. So where buildkitd reaches a port of ours, an
//! import is an S3 bucket with a name that cannot be guessed, read-only, of
//! just two kinds of objects:
//!
//! | `GET /<bucket>/…` | answer |
//! |---|---|
//! | `manifests/<name>` | the whole config, looked up when it is asked for |
//! | `blobs/sha256:<hex>` | a layer, with `Range: bytes=N-` on a resume |
//!
//! The bucket's name is the only right, and it ends with the builds that could
//! use it. Whether buildkitd reaches the port is tried, not assumed: [`probe`].

mod answer;
mod blob;
mod connection;
mod import;
mod probe;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Connection, Crowd, Member};
pub use self::import::{PullImport, Terms};
pub use self::probe::Probe;
use super::attributes::Attributes;
use super::content::Store;
use super::grpc::Body;
use super::rewrite::Entry;
use super::stores::Stores;
use crate::digest::Digest;

/// How long a request's head may take, and how long a connection may idle.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The name of every import in its bucket.
const NAME: &str = "cache";
/// BuildKit's client signs what it sends; nothing here reads the signature.
const NO_SECRET: &str = "layerd";

/// How an import travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ImportCarrier {
    /// By pull where buildkitd reaches the endpoint, else over the session.
    #[default]
    Auto,
    /// By pull, lazily; an import fails where buildkitd does not reach it.
    Pull,
    /// Over the session, eagerly.
    Session,
}

/// A bound endpoint.
pub struct PullListener {
    listener: TcpListener,
    advertised: String,
}

impl PullListener {
    /// Binds `address`; buildkitd is told `advertised`, or what was bound.
    pub async fn bind(address: &str, advertised: Option<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let advertised = match advertised {
            Some(advertised) => advertised,
            None => listener.local_addr()?.to_string(),
        };
        Ok(Self {
            listener,
            advertised,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The endpoint, as the rest of the door sees it.
pub struct Pull {
    /// Which carrier was asked for: pull, or whatever works.
    pub forced: bool,
    /// Whether buildkitd reaches this.
    pub probe: Probe,
    /// How long a read that fails is tried again.
    pub patience: Duration,
    /// Where buildkitd is told to find it.
    pub advertised: String,
}

impl Pull {
    /// An endpoint that buildkitd is told to find at `listener`'s address.
    pub fn new(listener: &PullListener, forced: bool, patience: Duration) -> Self {
        Self {
            forced,
            patience,
            probe: Probe::default(),
            advertised: listener.advertised.clone(),
        }
    }

    /// The entry under which buildkitd finds a bucket.
    pub fn entry(&self, bucket: &str) -> Entry {
        let attributes = [
            ("bucket", bucket),
            ("name", NAME),
            ("region", "local"),
            ("endpoint_url", &format!("http://{}", self.advertised)),
            ("use_path_style", "true"),
            ("access_key_id", NO_SECRET),
            ("secret_access_key", NO_SECRET),
        ];
        let attributes: Attributes = attributes
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Entry {
            kind: "s3".to_owned(),
            attributes,
        }
    }
}

/// Serves until `closing`.
pub async fn serve(
    listener: PullListener,
    pull: Arc<Pull>,
    stores: Arc<Stores>,
    tasks: TaskTracker,
    closing: CancellationToken,
) {
    let crowd = Crowd::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (pull, stores, crowd) = (pull.clone(), stores.clone(), crowd.clone());
                tasks.spawn(converse(stream, pull, stores, crowd, closing.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely; some will come free.
                tracing::error!(%error, "a pull could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    pull: Arc<Pull>,
    stores: Arc<Stores>,
    crowd: Crowd,
    closing: CancellationToken,
) {
    let member = crowd.enter();
    let broken = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (pull, stores, broken) = (pull.clone(), stores.clone(), broken.clone());
        let member = member.clone();
        async move {
            let answer = call(&pull, &stores, &broken, request).await;
            Ok::<_, Infallible>(match answer {
                Answer::Known(response) => while_read(response, &member),
                // Who asks for what is not there may be anybody.
                Answer::Unknown(response) => closing_after(response),
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(
            TokioIo::new(Connection::new(stream, broken.clone())),
            service,
        );
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = member.evicted.cancelled() => Ok(()),
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a pull broke off");
    }
}

/// An answer, and whether who asked knew a name.
enum Answer {
    Known(Response<Body>),
    Unknown(Response<Body>),
}

/// Keeps `member` connected as long as the body is on its way.
fn while_read(response: Response<Body>, member: &Arc<Member>) -> Response<Body> {
    let under_way = member.begin();
    response.map(|body| {
        body.map_frame(move |frame| {
            let _ = &under_way;
            frame
        })
        .boxed_unsync()
    })
}

fn closing_after(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn call(
    pull: &Pull,
    stores: &Stores,
    broken: &Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Answer {
    if request.method() != Method::GET {
        let refused = answer::refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
        return Answer::Unknown(refused);
    }
    let Some((bucket, key)) = request.uri().path().trim_start_matches('/').split_once('/') else {
        return Answer::Unknown(answer::no_such_key());
    };
    if pull.probe.answers(bucket) {
        return Answer::Unknown(answer::no_such_key());
    }
    let store = stores.get(bucket);
    let Some(Store::Pull(import)) = store.as_deref() else {
        return Answer::Unknown(answer::no_such_key());
    };
    if key == format!("manifests/{NAME}") {
        return Answer::Known(import.config().await);
    }
    // AWS's client escapes the colon of a digest, and nothing else in these.
    let digest = key
        .strip_prefix("blobs/")
        .map(|digest| digest.replace("%3A", ":"));
    match digest.map(|digest| digest.parse::<Digest>()) {
        Some(Ok(digest)) => {
            let range = request.headers().get(header::RANGE);
            Answer::Known(import.blob(&digest, range, broken.clone()).await)
        }
        _ => Answer::Known(answer::no_such_key()),
    }
}
