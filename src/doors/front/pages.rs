//! What all pages have in common: each request has a number, a span and a
//! count, a body has a limit, and what is not there is told as JSON.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode, Uri};
use serde_json::json;
use tracing::Instrument as _;

use super::metrics::{Metrics, NO_ROUTE, Outcome};
use crate::telemetry;

/// Bytes of a body that a route may read unless it says otherwise.
const MAX_BODY: usize = 1 << 20;

/// These pages, and what they have in common.
pub fn furnished(pages: Router, metrics: Metrics) -> Router {
    pages
        .fallback(missing)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(metrics, accompany))
}

async fn missing(uri: Uri) -> Response {
    let path = uri.path();
    let message = match is_method(path) {
        false => format!("there is nothing at {path}"),
        true => format!(
            "there is no page at {path}: it looks like a method of gRPC, which is spoken here \
             over HTTP/2, with content-type application/grpc"
        ),
    };
    told(StatusCode::NOT_FOUND, "not_found", &message)
}

/// Whether gRPC would call a method so: `/package.Service/Method`.
fn is_method(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    parts.is_some_and(|(service, method)| {
        service.contains('.') && !method.is_empty() && !method.contains('/')
    })
}

async fn not_so(method: Method) -> Response {
    let message = format!("{method} is not answered here");
    told(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &message,
    )
}

fn told(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    let kind = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, kind)], body.to_string()).into_response()
}

/// A request that is answered. It counts when it is dropped: as cancelled,
/// unless it was told how it ended.
struct Asked {
    route: Option<MatchedPath>,
    outcome: Outcome,
    metrics: Metrics,
}

impl Asked {
    fn route(&self) -> &str {
        self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.metrics.ended(self.route(), self.outcome);
    }
}

async fn accompany(
    State(metrics): State<Metrics>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut asked = Asked {
        route,
        outcome: Outcome::Cancelled,
        metrics,
    };
    let id = telemetry::request_id(request.headers());
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        route = asked.route(),
        request = id.as_str(),
        project = tracing::field::Empty,
        peer = request
            .extensions()
            .get::<SocketAddr>()
            .map(tracing::field::display),
    );
    telemetry::continued(&span, request.headers());
    // So that a page knows it by the same one.
    if let Ok(id) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(telemetry::REQUEST_ID, id);
    }
    let answer = next.run(request).instrument(span.clone()).await;
    let status = answer.status();
    asked.outcome = Outcome::of(status);
    match asked.outcome {
        Outcome::Failed => {
            tracing::warn!(parent: &span, status = status.as_u16(), "a request failed")
        }
        Outcome::Denied | Outcome::Unauthenticated => {
            tracing::info!(parent: &span, status = status.as_u16(), "a request was denied");
        }
        _ => tracing::debug!(parent: &span, status = status.as_u16(), "a request was answered"),
    }
    answer
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::{get, post};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tower::ServiceExt as _;

    use super::*;

    async fn read(body: String) -> String {
        body.len().to_string()
    }

    fn pages() -> Router {
        Router::new()
            .route("/v1/things/{name}", get(async || "a thing"))
            .route("/v1/small", post(read))
            .route(
                "/v1/large",
                post(read).layer(DefaultBodyLimit::max(4 * MAX_BODY)),
            )
    }

    async fn asked(pages: &Router, method: Method, path: &str, size: usize) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(Body::from(vec![b'x'; size])).unwrap();
        let answer = pages.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), MAX_BODY).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_as_json() {
        let pages = furnished(pages(), Metrics::default());
        for (method, path, status, code) in [
            (Method::GET, "/", 404, "not_found"),
            (Method::GET, "/v1/elsewhere%22?x=1", 404, "not_found"),
            (Method::DELETE, "/v1/small", 405, "method_not_allowed"),
        ] {
            let (found, body) = asked(&pages, method, path, 0).await;
            assert_eq!(found, status, "{body}");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["error"]["code"], code);
            let message = body["error"]["message"].as_str().unwrap();
            assert!(!message.contains("gRPC"), "{message}");
        }
        let (status, body) = asked(&pages, Method::POST, "/some.v1.Cache/LookUp", 0).await;
        assert_eq!(status, 404);
        assert!(
            body.contains("gRPC, which is spoken here over HTTP/2"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_body_is_limited_unless_its_route_takes_more() {
        let pages = furnished(pages(), Metrics::default());
        for (path, size, status) in [
            ("/v1/small", MAX_BODY, 200),
            ("/v1/small", MAX_BODY + 1, 413),
            ("/v1/large", 4 * MAX_BODY, 200),
            ("/v1/large", 4 * MAX_BODY + 1, 413),
        ] {
            let (found, body) = asked(&pages, Method::POST, path, size).await;
            assert_eq!(found, status, "{path} {size}: {body}");
        }
    }

    #[tokio::test]
    async fn requests_count_by_the_pattern_of_their_route() {
        let mut registry = Registry::default();
        let pages = furnished(pages(), Metrics::register(&mut registry));
        for name in ["a", "b", "c"] {
            asked(&pages, Method::GET, &format!("/v1/things/{name}"), 0).await;
            asked(&pages, Method::GET, &format!("/{name}"), 0).await;
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for series in [
            "layerd_http_requests_total{route=\"/v1/things/{name}\",outcome=\"ok\"} 3",
            "layerd_http_requests_total{route=\"none\",outcome=\"not_found\"} 3",
        ] {
            assert!(text.contains(series), "{text}");
        }
    }
}
