//! Asking a hub for a token by an identity that somebody else vouches for (RFC
//! 8693): `POST /v1/token`, on the connection that calls are made on.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use tonic::Status;
use tower_service::Service as _;
use url::form_urlencoded;

use super::connection::Wire;
use super::failure::{Ending, Failure};
use super::hub::{Call, Hub};
use super::metrics;
use crate::access::Secret;

/// How long it may take, over all addresses: the hub may have to fetch keys.
pub(super) const LIMIT: Duration = Duration::from_secs(8);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// A token that a hub gave.
#[derive(Clone, Debug)]
pub struct Given {
    /// The token.
    pub token: Secret,
    /// How long it is good for, from now.
    pub lasts: Duration,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Error {
    error_description: String,
}

impl Hub {
    /// The token that the hub gives for an identity; an error says why it gives
    /// none.
    pub async fn exchange(&self, identity: &Secret) -> Result<Given, String> {
        let given = self.given(identity).await;
        given.map_err(|failure| failure.cache_error(None).to_string())
    }

    pub(super) async fn given(&self, identity: &Secret) -> Result<Given, Failure> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair(
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            )
            .append_pair("subject_token", identity.expose())
            .append_pair(
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:id_token",
            )
            .finish();
        let call = Call::within(metrics::Method::Exchange, LIMIT);
        self.ask(call, |wire| ask(wire, form.clone())).await
    }
}

async fn ask(mut wire: Wire, form: String) -> Result<Given, Ending> {
    let broken = |why: String| Ending::Broken(format!("the connection broke: {why}"));
    let body = Full::new(form.into()).map_err(|never| match never {});
    let mut request = Request::new(tonic::body::Body::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static("/v1/token");
    request.headers_mut().insert(CONTENT_TYPE, FORM);
    std::future::poll_fn(|cx| wire.poll_ready(cx))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let answer = wire.call(request).await;
    let answer = answer.map_err(|error| broken(error.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
    if status == StatusCode::OK {
        let granted: Granted = serde_json::from_slice(&body)
            .map_err(|_| Ending::Failed("it answers with no token: is it a hub?".to_owned()))?;
        return Ok(Given {
            token: Secret::new(granted.access_token),
            lasts: Duration::from_secs(granted.expires_in),
        });
    }
    let said = serde_json::from_slice::<Error>(&body);
    let said = said.map_or_else(
        |_| format!("it answers {status}"),
        |error| error.error_description,
    );
    Err(match status {
        StatusCode::NOT_FOUND => Ending::Refused(Box::new(Status::unimplemented(
            "the hub takes no identities: its configuration names no issuer",
        ))),
        // It is there, and so is what is wrong.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Ending::Refused(Box::new(Status::unavailable(said)))
        }
        status if status.is_client_error() => {
            Ending::Refused(Box::new(Status::unauthenticated(said)))
        }
        _ => Ending::Failed(said),
    })
}
