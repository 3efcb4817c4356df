//! S3's answers, as far as BuildKit's importer reads them.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use super::super::grpc::Body;

/// What the importer takes for an empty cache, and for a blob that is gone.
pub fn no_such_key() -> Response<Body> {
    refused(StatusCode::NOT_FOUND, "NoSuchKey")
}

/// For a layer that could not be read for so long that its build waits no
/// more: nothing that the importer asks again for.
pub fn given_up() -> Response<Body> {
    let why = "the cached layer can't be read: the build's progress says why";
    error(StatusCode::GONE, "LayerGivenUp", why)
}

/// An error in S3's form.
pub fn refused(status: StatusCode, code: &'static str) -> Response<Body> {
    error(status, code, code)
}

fn error(status: StatusCode, code: &'static str, message: &'static str) -> Response<Body> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = whole(Bytes::from(xml), "application/xml");
    *response.status_mut() = status;
    response
}

/// A document at hand.
pub fn whole(bytes: Bytes, kind: &'static str) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
