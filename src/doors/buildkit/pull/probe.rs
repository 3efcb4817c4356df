//! Whether buildkitd reaches the endpoint: tried, not assumed.
//!
//! A build of our own imports from a bucket that only this knows; the request
//! that arrives is the answer, and it came the way of the real ones: through
//! BuildKit's client, its environment and its proxies. The build is then
//! dropped, before it has run anything, and leaves no trace (`Internal`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::sync::Notify;

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
    /// Held while somebody asks, so that nobody else does.
    known: tokio::sync::Mutex<Option<Known>>,
    asked: Mutex<Option<String>>,
    answered: Notify,
}

struct Known {
    reached: bool,
    at: Instant,
    /// Daemons seen until then; another one may stand elsewhere.
    outages: u64,
}

impl Probe {
    /// Whether a request for this bucket is the answer that is waited for.
    pub fn is_asked(&self, bucket: &str) -> bool {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_deref()
            == Some(bucket)
    }

    /// The answer has come.
    pub fn answered(&self, bucket: &str) {
        tracing::debug!(bucket, "buildkitd reaches the pull endpoint");
        self.answered.notify_one();
    }

    fn ask(&self, bucket: Option<String>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = bucket;
    }
}

impl Pull {
    /// Asks until there is a daemon to answer, so that no build has to.
    pub async fn learn(&self, link: &Link) {
        while !self.is_reached(link).await && self.probe.known.lock().await.is_none() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether the daemon behind `link` reaches this endpoint, as far as that
    /// is known, or else by asking.
    pub async fn is_reached(&self, link: &Link) -> bool {
        let mut known = self.probe.known.lock().await;
        let outages = link.outages();
        if let Some(known) = known.as_ref().filter(|known| known.outages == outages)
            && (known.reached || known.at.elapsed() < BELIEVED)
        {
            return known.reached;
        }
        let answer = self.ask(link).await;
        tracing::info!(?answer, "buildkitd was asked to reach the pull endpoint");
        // A daemon that is not there yet has said nothing.
        *known = answer.map(|reached| Known {
            reached,
            at: Instant::now(),
            outages: link.outages(),
        });
        answer == Some(true)
    }

    /// Whether the request comes; `None` where nobody could be asked.
    async fn ask(&self, link: &Link) -> Option<bool> {
        let bucket = format!("layerd-{}", hex::encode(rand::random::<[u8; 16]>()));
        self.probe.ask(Some(bucket.clone()));
        let solve = async {
            let response = link.send(self.request(&bucket)).await.ok()?;
            Some(response.into_body().collect().await)
        };
        let answered = self.probe.answered.notified();
        let answer = tokio::select! {
            biased;
            () = answered => Some(true),
            over = solve => over.map(|_| false),
            () = tokio::time::sleep(LIMIT) => Some(false),
        };
        self.probe.ask(None);
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
