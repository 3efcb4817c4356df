//! Whom a request is for.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use futures::future::{BoxFuture, FutureExt as _};
use http::header::CONTENT_TYPE;
use http::{Request, Response, Version};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::Service;
use tonic::body::Body;

use super::flow::Flowing;
use super::patient::Patient;

/// What gRPC's requests say they hold; `+proto` and the like may follow.
const GRPC: &[u8] = b"application/grpc";

/// The requests of one connection.
#[derive(Clone)]
pub struct Reception<G> {
    /// Takes those of gRPC.
    pub calls: G,
    /// Takes the others.
    pub pages: Router,
    /// Where they come from.
    pub peer: SocketAddr,
}

impl<G> Service<Request<Incoming>> for Reception<G>
where
    G: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    G::Future: Send + 'static,
{
    type Response = Response<Flowing<Either<Body, axum::body::Body>>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        if is_call(&request) {
            let answering = self.calls.call(request);
            return async { Ok(Flowing::of(answering.await?.map(Either::Left))) }.boxed();
        }
        let request = request.map(Patient::new);
        let answering = tower_service::Service::call(&mut self.pages.clone(), request);
        async { Ok(Flowing::of(answering.await?.map(Either::Right))) }.boxed()
    }
}

/// Whether a request is gRPC's, which has no way of ending over HTTP/1.
fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()));
    let is_grpc = kind.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    });
    is_grpc && request.version() == Version::HTTP_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_content_type() {
        for (kind, version, expected) in [
            ("application/grpc", Version::HTTP_2, true),
            ("application/grpc+proto", Version::HTTP_2, true),
            ("Application/gRPC; x=y", Version::HTTP_2, true),
            ("application/grpc", Version::HTTP_11, false),
            ("application/grpc-web", Version::HTTP_2, false),
            ("application/grp", Version::HTTP_2, false),
            ("application/json", Version::HTTP_2, false),
        ] {
            let request = Request::builder()
                .version(version)
                .header(CONTENT_TYPE, kind);
            let request = request.body(()).unwrap();
            assert_eq!(is_call(&request), expected, "{kind} {version:?}");
        }
        assert!(!is_call(&Request::new(())));
    }
}
