//! Fetching the keys of an issuer.
//!
//! The other side is somebody else's server, and its answer decides who gets
//! in: so it is `https`, or on this host; it is asked once, follows no
//! redirect, and may take and say only so much.

use std::path::PathBuf;
use std::time::Duration;

use http::header::ACCEPT;
use serde::Deserialize;
use url::Url;

use super::config::{Where, web};
use super::jwks::PublicKeys;
use crate::tls;

/// How long it may take, all together.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The members of a discovery document that matter.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// The keys of the issuer `url`; an error says why there are none.
pub async fn keys(
    url: &str,
    at: &Where,
    authorities: Option<&PathBuf>,
) -> Result<PublicKeys, String> {
    let fetched = tokio::time::timeout(LIMIT, async {
        let keys = match at {
            Where::Keys(keys) => keys.clone(),
            Where::Discovery(issuer) => discover(url, issuer, authorities).await?,
        };
        let json = get(&keys, authorities).await?;
        PublicKeys::parse(&json).map_err(|why| format!("{keys}: {why}"))
    });
    let in_time = fetched.await;
    in_time.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
}

/// Where an issuer's keys are, by its own word (OpenID Connect Discovery 1.0, 4).
async fn discover(issuer: &str, url: &Url, authorities: Option<&PathBuf>) -> Result<Url, String> {
    let mut document = url.clone();
    let path = url.path().trim_end_matches('/');
    document.set_path(&format!("{path}/.well-known/openid-configuration"));
    let json = get(&document, authorities).await?;
    let found: Discovery =
        serde_json::from_slice(&json).map_err(|_| format!("{document}: no discovery document"))?;
    if found.issuer != issuer {
        return Err(format!(
            "{document} is about issuer {:?}, not {issuer:?}: write the url as it is there",
            super::template::shortened(&found.issuer)
        ));
    }
    let keys = web(&found.jwks_uri).map_err(|why| format!("{document}: jwks_uri: {why}"))?;
    if url.scheme() == "https" && keys.scheme() != "https" {
        return Err(format!("{document}: jwks_uri is no https URL"));
    }
    Ok(keys)
}

async fn get(url: &Url, authorities: Option<&PathBuf>) -> Result<Vec<u8>, String> {
    let failed = |why: String| format!("{url}: {why}");
    let client = client(url, authorities).map_err(failed)?;
    let asked = client.get(url.clone()).header(ACCEPT, "application/json");
    let mut answer = asked
        .send()
        .await
        .map_err(|error| failed(innermost(&error)))?;
    if answer.status() != http::StatusCode::OK {
        return Err(failed(format!("it answers {}", answer.status())));
    }
    let too_long = || failed(format!("the answer is longer than {MAX_ANSWER} bytes"));
    if answer
        .content_length()
        .is_some_and(|length| length > MAX_ANSWER as u64)
    {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(more) = answer
        .chunk()
        .await
        .map_err(|error| failed(innermost(&error)))?
    {
        if bytes.len() + more.len() > MAX_ANSWER {
            return Err(too_long());
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Made each time, which is seldom: so authorities that change count at once.
fn client(url: &Url, authorities: Option<&PathBuf>) -> Result<reqwest::Client, String> {
    let plain = url.scheme() == "http";
    let tls = match plain {
        true => tls::no_client(),
        false => tls::system_client_and(authorities.cloned()),
    };
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.map_err(|error| error.to_string())?)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT);
    // This host needs no proxy.
    let builder = if plain { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| innermost(&error))
}

/// What lies at the bottom of an error says most.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
