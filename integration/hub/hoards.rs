//! Clients that ask for much and read nothing: what they hold is bounded, it is
//! let go of after a while, and others are served meanwhile.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use layerd::cache::wire::v1;
use layerd::digest::Digest;
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::ask::{described, export, look_up, noise, publication_of, send};
use super::{place, read, upload};
use crate::harness::chain::MADE;
use crate::harness::grpc::frame;
use crate::harness::{Hub, HubClient, HubSpec, Lab, Metrics, layerd, until};

/// What a hub may have, whatever they do.
const LIMIT: u64 = 256 << 20;
/// Connections that ask, and the calls on each.
const CROWD: (usize, usize) = (16, 120);

/// A connection that can go deaf: then nothing is read of it any more.
struct Deaf {
    stream: TcpStream,
    deaf: Arc<AtomicBool>,
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How a client takes in nothing.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// It gives streams no window, and answers pings.
    NoWindow,
    /// It gives all windows that there are, and does not read its socket.
    Deaf,
}

/// A client that asks and does not read.
struct Hoarder {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    asking: JoinSet<()>,
}

impl Hoarder {
    async fn connect(hub: &Hub, token: &str, manner: Manner) -> Self {
        let deaf = Arc::new(AtomicBool::new(false));
        let stream = Deaf {
            stream: TcpStream::connect(hub.address()).await.unwrap(),
            deaf: deaf.clone(),
        };
        let window = match manner {
            Manner::NoWindow => 0,
            Manner::Deaf => (1 << 31) - 1,
        };
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size((1 << 31) - 1)
            .max_concurrent_streams(0)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut asking = JoinSet::new();
        asking.spawn(async move { drop(connection.await) });
        let mut hoarder = Self {
            sender,
            token: token.to_owned(),
            asking,
        };
        // Settings have been told by the time that something is answered.
        let lease = v1::TakeLeaseRequest {};
        hoarder.ask("TakeLease", &lease).await.unwrap();
        deaf.store(matches!(manner, Manner::Deaf), Ordering::Relaxed);
        hoarder
    }

    async fn ask(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let request = Request::post(format!("http://layerd/layerd.v1.Cache/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token));
        let body = Full::new(frame(&message.encode_to_vec()));
        self.sender.ready().await?;
        self.sender.send_request(request.body(body).unwrap()).await
    }

    /// Asks so often, and keeps the answers unread.
    fn hoard(
        &mut self,
        times: usize,
        method: &'static str,
        message: &(impl Message + Clone + 'static),
    ) {
        for _ in 0..times {
            let mut other = Self {
                sender: self.sender.clone(),
                token: self.token.clone(),
                asking: JoinSet::new(),
            };
            let message = message.clone();
            self.asking.spawn(async move {
                let answer = other.ask(method, &message).await;
                std::future::pending::<()>().await;
                drop(answer);
            });
        }
    }
}

/// A hub that asks for tokens, and tokens for it.
struct Gate {
    lab: Lab,
    key: String,
}

impl Gate {
    async fn new() -> (Self, HubSpec) {
        let lab = Lab::new();
        let key = lab.path("ci.pem").display().to_string();
        layerd(["token", "key", "-o", &key]).await.ok();
        let spec = lab.hub("one").arguments(["--token-key-file", &key]);
        (Self { lab, key }, spec)
    }

    async fn token(&self, subject: &str) -> String {
        let minted = layerd([
            "token",
            "mint",
            "--token-key-file",
            &self.key,
            "--project",
            "p",
            "--read",
            "**",
            "--write",
            "**",
            "--subject",
            subject,
        ]);
        minted.await.ok().stdout.trim().to_owned()
    }
}

async fn calls(hub: &Hub, method: &str, outcome: &str) -> f64 {
    let metrics = Metrics::at(hub.metrics_address()).await;
    metrics.value(&format!(
        "layerd_hub_calls_total{{method=\"{method}\",outcome=\"{outcome}\"}}"
    ))
}

/// Has a crowd with one token hoard answers; then another client is served, and
/// when the hub is patient no more, all is let go of.
async fn hoards(manner: Manner, method: &'static str, counted: &str) {
    let (gate, spec) = Gate::new().await;
    let hub = spec.start().await;
    let [greedy, honest] = [gate.token("greedy").await, gate.token("honest").await];
    let main = place("p", "main");
    let mut client = hub.client(Some(&honest)).await;
    // As compressed layers begin, so that it goes out as it is.
    let layer = Bytes::from([&b"\x28\xb5\x2f\xfd"[..], &noise(1, 4 << 20)].concat());
    export(&mut client, &main, std::slice::from_ref(&layer), "x").await;
    if method == "LookUp" {
        large_export(&mut client, &main, &layer).await;
    }
    let (digest, _) = described(&layer);
    let mut crowd = Vec::new();
    for _ in 0..CROWD.0 {
        let mut hoarder = Hoarder::connect(&hub, &greedy, manner).await;
        match method {
            "ReadBlob" => hoarder.hoard(CROWD.1, method, &reading(&digest)),
            _ => hoarder.hoard(CROWD.1, method, &looking(&main)),
        }
        crowd.push(hoarder);
    }
    until("most are told that it is too much", async || {
        let told = calls(&hub, counted, "exhausted").await;
        (told >= (CROWD.0 * CROWD.1 / 2) as f64).then_some(())
    })
    .await;
    let bytes = read(&mut client, "p", &digest, 0).await.unwrap();
    assert_eq!(bytes, layer);
    assert!(look_up(&mut client, &main, false).await.unwrap().is_some());
    upload(&mut client, &main, &noise(2, 1000)).await.unwrap();
    let peak = hub.peak_memory();
    println!("{method}, {manner:?}: {} MiB", peak >> 20);
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
    // They answer pings for ever, or not at all.
    until("the answers are given up", async || {
        let metrics = Metrics::at(hub.metrics_address()).await;
        (metrics.sum("layerd_hub_running_calls") == 0.0).then_some(())
    })
    .await;
    let mut again = Hoarder::connect(&hub, &greedy, Manner::NoWindow).await;
    let answer = again.ask("ReadBlob", &reading(&digest)).await.unwrap();
    assert!(answer.headers().get("grpc-status").is_none(), "{answer:?}");
    assert!(!hub.log().contains("panicked"), "{}", hub.log());
    drop((crowd, gate.lab));
}

fn reading(digest: &Digest) -> v1::ReadBlobRequest {
    v1::ReadBlobRequest {
        projects: vec!["p".to_owned()],
        digest: digest.as_bytes().to_vec().into(),
        ..v1::ReadBlobRequest::default()
    }
}

fn looking(place: &v1::Place) -> v1::LookUpRequest {
    v1::LookUpRequest {
        wants: vec![v1::Want {
            place: Some(place.clone()),
            ..v1::Want::default()
        }],
        max_records: 1_000_000,
        ..v1::LookUpRequest::default()
    }
}

/// An export whose config has some megabytes.
async fn large_export(client: &mut HubClient, place: &v1::Place, layer: &Bytes) {
    let layer = described(layer);
    let records: Vec<_> = (0..20_000)
        .map(|at| {
            let digest = Digest::of(format!("large/{at}").as_bytes());
            json!({
                "digest": digest.to_string(),
                "layers": [{"layer": 0, "createdAt": MADE}],
            })
        })
        .collect();
    let chain = json!([{"blob": layer.0.to_string(), "parent": -1}]);
    let config = json!({"layers": chain, "records": records});
    let config = Bytes::from(config.to_string());
    let messages = publication_of(place, &[layer], &config);
    send(client, messages).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_are_not_read_take_little_and_are_given_up() {
    hoards(Manner::NoWindow, "ReadBlob", "read_blob").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_for_a_client_that_went_deaf_take_little_and_are_given_up() {
    hoards(Manner::Deaf, "ReadBlob", "read_blob").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_that_are_not_read_take_little_and_are_given_up() {
    hoards(Manner::NoWindow, "LookUp", "look_up").await;
}
