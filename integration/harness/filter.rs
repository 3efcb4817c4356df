//! Between a stock client and the sidecar: leaves only one of the places where
//! cache imports travel, so that each can be proven alone.

use std::path::PathBuf;

use bytes::{Buf as _, Bytes};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::grpc::frame;
use super::wire::{edit, map_key, without};

type Body = BoxBody<Bytes, hyper::Error>;
/// Gives a request without the imports that are not kept.
type EditMessage = fn(&[u8], Carrier) -> Vec<u8>;

/// Where an import travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `Control/Solve`, `Cache.Imports`.
    ControlImports,
    /// `Control/Solve`, `FrontendAttrs["cache-imports"]`.
    ControlAttributes,
    /// `LLBBridge/Solve`, `FrontendOpt["cache-imports"]`.
    GatewayOptions,
    /// `LLBBridge/Solve`, `CacheImports`.
    GatewayImports,
}

/// A filter that listens on a socket of its own, until it is dropped.
pub struct Filter {
    /// Where clients reach it.
    pub address: String,
    _accepting: AbortOnDropHandle<()>,
}

impl Filter {
    /// Passes everything from `socket` on to `upstream`, but imports only in
    /// one carrier.
    pub fn start(socket: PathBuf, upstream: &str, keep: Carrier) -> Self {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let upstream = PathBuf::from(upstream.trim_start_matches("unix://"));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let stream = UnixStream::connect(&upstream)
                    .await
                    .expect("somebody listens upstream");
                tokio::spawn(pass(client, stream, keep));
            }
        });
        Self {
            address: format!("unix://{}", socket.display()),
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }
}

async fn pass(client: UnixStream, upstream: UnixStream, keep: Carrier) {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(upstream))
            .await
            .expect("HTTP/2");
    let service = service_fn(|request| one(sender.clone(), request, keep));
    let serving =
        server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(client), service);
    // Whichever side ends first ends the other.
    tokio::select! {
        _ = serving => {}
        _ = connection => {}
    }
}

async fn one(
    mut upstream: SendRequest<Body>,
    request: Request<Incoming>,
    keep: Carrier,
) -> hyper::Result<Response<Incoming>> {
    let edit: Option<EditMessage> = match request.uri().path() {
        "/moby.buildkit.v1.Control/Solve" => Some(control),
        "/moby.buildkit.v1.frontend.LLBBridge/Solve" => Some(gateway),
        _ => None,
    };
    let (mut head, body) = request.into_parts();
    let body = match edit {
        None => body.boxed(),
        Some(edit) => {
            let mut framed = body.collect().await?.to_bytes();
            framed.advance(5);
            head.headers.remove("content-length");
            Full::new(frame(&edit(&framed, keep)))
                .map_err(|never| match never {})
                .boxed()
        }
    };
    upstream.ready().await?;
    upstream.send_request(Request::from_parts(head, body)).await
}

fn is_imports(entry: &[u8]) -> bool {
    map_key(entry) == "cache-imports"
}

/// `moby.buildkit.v1.SolveRequest`: 7 is FrontendAttrs, 8 is Cache, in which
/// 5 is Imports.
fn control(message: &[u8], keep: Carrier) -> Vec<u8> {
    edit(message, |number, content| match number {
        7 if keep != Carrier::ControlAttributes && is_imports(content) => None,
        8 if keep != Carrier::ControlImports => Some(without(content, |field, _| field == 5)),
        _ => Some(content.to_vec()),
    })
}

/// `moby.buildkit.v1.frontend.SolveRequest`: 3 is FrontendOpt, 12 is
/// CacheImports.
fn gateway(message: &[u8], keep: Carrier) -> Vec<u8> {
    without(message, |number, content| match number {
        3 => keep != Carrier::GatewayOptions && is_imports(content),
        12 => keep != Carrier::GatewayImports,
        _ => false,
    })
}
