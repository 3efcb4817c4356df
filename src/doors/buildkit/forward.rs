//! Passes one call through untouched: streaming both ways, metadata, trailers,
//! cancellation and back-pressure are HTTP/2's own on either side.

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::Status;

use super::grpc::{Body, refuse};
use super::upstream::Link;

/// A body as it came.
pub fn untouched(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// An answer, or the refusal that stands for it.
pub fn answer(outcome: Result<Response<Body>, Status>) -> Response<Body> {
    outcome.unwrap_or_else(|status| refuse(&status))
}

/// Sends a call on and hands its answer back.
pub async fn forward(link: &Link, request: Request<Incoming>) -> Response<Body> {
    answer(
        link.send(request.map(untouched))
            .await
            .map(|response| response.map(untouched)),
    )
}
