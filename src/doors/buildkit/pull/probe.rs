//! Whether buildkitd reaches the endpoint: tried, not assumed.
//!
//! A build of our own imports from a bucket that only this knows; the request
//! that arrives is the answer, and it came the way of the real ones: through
//! BuildKit's client, its environment and its proxies. The build is then
//! dropped, before it has run anything, and leaves no trace (`Internal`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::sync::oneshot;

use super::super::grpc;
use super::super::proto::{control, pb};
use super::super::splice::put_field;
use super::super::upstream::Link;
use super::Pull;
use crate::digest::Digest;

/// How long the request may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How long to wait for a daemon that is not there yet.
const RETRY: Duration = Duration::from_millis(500);
/// How long a no is believed, where the daemon does not go away meanwhile.
const BELIEVED: Duration = Duration::from_secs(60);

/// What is known of the way from buildkitd to here.
#[derive(Default)]
pub struct Probe {
    known: Mutex<Option<Known>>,
    /// Held while somebody asks, so that nobody else does.
    asking: tokio::sync::Mutex<()>,
    /// The bucket that a trial asks for, and where its answer goes.
    asked: Mutex<Option<(String, oneshot::Sender<()>)>>,
}

#[derive(Clone, Copy)]
struct Known {
    reached: bool,
    at: Instant,
    /// Daemons seen until then; another one may stand elsewhere.
    outages: u64,
}

impl Probe {
    /// Whether a request for this bucket is the answer that is waited for; it
    /// is passed on.
    pub fn answers(&self, bucket: &str) -> bool {
        let mut asked = lock(&self.asked);
        let Some((_, answer)) = asked.take_if(|(asked, _)| asked == bucket) else {
            return false;
        };
        // Who waited may have given up.
        let _ = answer.send(());
        true
    }

    fn known(&self) -> Option<Known> {
        *lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pull {
    /// Asks until there is a daemon to answer, so that no build has to.
    pub async fn learn(&self, link: &Link) {
        while self.learned(link).await.is_none() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether the daemon behind `link` reaches this endpoint, as far as that
    /// is known, or else by asking. A no that is old is asked again beside the
    /// build that it is given to.
    pub async fn is_reached(self: &Arc<Self>, link: &Link) -> bool {
        let known = self.probe.known();
        let Some(known) = known.filter(|known| known.outages == link.outages()) else {
            return self.learned(link).await == Some(true);
        };
        if !known.reached && known.at.elapsed() >= BELIEVED {
            let (pull, link) = (self.clone(), link.clone());
            tokio::spawn(async move { pull.learned(&link).await });
        }
        known.reached
    }

    /// Asks, unless somebody else does: then their answer counts.
    async fn learned(&self, link: &Link) -> Option<bool> {
        let from = Instant::now();
        let _asking = self.probe.asking.lock().await;
        if let Some(known) = self.probe.known().filter(|known| known.at >= from) {
            return Some(known.reached);
        }
        let answer = self.ask(link).await;
        // A daemon that is not there yet has said nothing.
        let reached = answer?;
        if reached {
            tracing::info!(
                address = self.advertised,
                "buildkitd reaches the pull endpoint"
            );
        } else {
            tracing::warn!(
                address = self.advertised,
                "buildkitd does not reach the pull endpoint: name an address that it does with --pull-advertise"
            );
        }
        *lock(&self.probe.known) = Some(Known {
            reached,
            at: Instant::now(),
            outages: link.outages(),
        });
        answer
    }

    /// Whether the request comes; `None` where nobody could be asked.
    async fn ask(&self, link: &Link) -> Option<bool> {
        let bucket = format!("layerd-{}", hex::encode(rand::random::<[u8; 16]>()));
        let (answer, answered) = oneshot::channel();
        *lock(&self.probe.asked) = Some((bucket.clone(), answer));
        let solve = async {
            let response = link.send(self.request(&bucket)).await.ok()?;
            Some(response.into_body().collect().await)
        };
        let answer = tokio::select! {
            biased;
            Ok(()) = answered => Some(true),
            over = solve => over.map(|_| false),
            () = tokio::time::sleep(LIMIT) => Some(false),
        };
        *lock(&self.probe.asked) = None;
        answer
    }

    /// A build of one small file on nothing, which imports from `bucket`.
    fn request(&self, bucket: &str) -> Request<grpc::Body> {
        let entry = self.entry(bucket);
        let import = control::CacheOptionsEntry {
            r#type: entry.kind,
            attrs: entry.attributes.into_iter().collect(),
        };
        let solve = control::SolveRequest {
            r#ref: bucket.to_owned(),
            cache: Some(control::CacheOptions {
                exports: Vec::new(),
                imports: vec![import],
            }),
            internal: true,
            ..control::SolveRequest::default()
        };
        // A field of its own: requests of clients are decoded without it.
        const DEFINITION: u32 = 2;
        let mut solve = solve.encode_to_vec();
        put_field(&mut solve, DEFINITION, &definition().encode_to_vec());
        let mut request = Request::new(grpc::unary(&solve));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() =
            http::Uri::from_static("http://localhost/moby.buildkit.v1.Control/Solve");
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        request
    }
}

fn definition() -> pb::Definition {
    const NOTHING: i64 = -1;
    let file = pb::FileActionMkFile {
        path: "/layerd".to_owned(),
        mode: 0o644,
        data: bytes::Bytes::new(),
    };
    let action = pb::FileAction {
        input: NOTHING,
        secondary_input: NOTHING,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(file)),
    };
    let make = pb::Op {
        inputs: Vec::new(),
        op: Some(pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        })),
    };
    let make = make.encode_to_vec();
    let result = pb::Op {
        inputs: vec![pb::Input {
            digest: Digest::of(&make).to_string(),
            index: 0,
        }],
        op: None,
    };
    pb::Definition {
        def: vec![make.into(), result.encode_to_vec().into()],
        ..pb::Definition::default()
    }
}
