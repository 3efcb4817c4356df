//! Asking a hub as an administrator: its API over HTTP.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::hub_args::HubArgs;
use crate::access::Secret;
use crate::access::token::MAX_TOKEN;
use crate::cache::remote::HubAddress;
use crate::doors::admin::{Fault, Page};
use crate::tls::{self, Alpn};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 512 << 20;
/// Items of one page.
const PAGE: usize = 1000;

impl HubArgs {
    /// The hub, if one is named.
    pub(in crate::cli) fn api(&self) -> anyhow::Result<Option<HubApi>> {
        if self.addresses().is_empty() {
            return Ok(None);
        }
        let tls = match self.tls(Alpn::Http) {
            Some(tls) => tls.config().context("TLS to the hub")?,
            None => tls::no_client().context("TLS to the hub")?,
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .no_proxy()
            .build()?;
        Ok(Some(HubApi {
            client,
            addresses: self.addresses().to_vec(),
            token: self.token()?,
        }))
    }

    /// The token, if a file is named.
    pub(in crate::cli) fn token(&self) -> anyhow::Result<Option<Secret>> {
        let Some(path) = self.token_file() else {
            return Ok(None);
        };
        let shown = || format!("--hub-token-file {}", path.display());
        let text = std::fs::read_to_string(path).with_context(shown)?;
        let token = text.trim();
        if token.is_empty()
            || token.len() > MAX_TOKEN
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            bail!("{} holds no token", shown());
        }
        Ok(Some(Secret::new(token)))
    }
}

/// A hub that is asked.
pub(in crate::cli) struct HubApi {
    client: reqwest::Client,
    addresses: Vec<HubAddress>,
    token: Option<Secret>,
}

/// What is asked for: the segments of its path, each as it is meant, and what
/// of the query is given.
#[derive(Clone, Default)]
pub(in crate::cli) struct Wanted<'a> {
    path: Vec<&'a str>,
    query: Vec<(&'static str, String)>,
}

impl<'a> Wanted<'a> {
    /// At that path, below the version.
    pub(in crate::cli) fn at(path: &[&'a str]) -> Self {
        Self {
            path: path.to_vec(),
            query: Vec::new(),
        }
    }

    /// With that of the query, if it is given.
    #[must_use]
    pub(in crate::cli) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        let value = value.map(|value| (name, value.to_string()));
        self.query.extend(value);
        self
    }

    fn url(&self, address: &HubAddress) -> anyhow::Result<Url> {
        let mut url: Url = address.to_string().parse()?;
        let segments = url.path_segments_mut();
        let mut segments = segments.map_err(|()| anyhow!("{address} has no paths"))?;
        segments.clear().push("v1").extend(&self.path);
        drop(segments);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

impl HubApi {
    /// Which hub it is.
    pub(in crate::cli) fn at(&self) -> String {
        let all: Vec<_> = self.addresses.iter().map(HubAddress::to_string).collect();
        all.join(", ")
    }

    /// What is there.
    pub(in crate::cli) async fn get<T: DeserializeOwned>(
        &self,
        wanted: Wanted<'_>,
    ) -> anyhow::Result<T> {
        self.read(&self.ask(Method::GET, &wanted, None).await?)
    }

    /// The bytes that are there.
    pub(in crate::cli) async fn bytes(&self, wanted: Wanted<'_>) -> anyhow::Result<Vec<u8>> {
        self.ask(Method::GET, &wanted, None).await
    }

    /// What comes of it.
    pub(in crate::cli) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        wanted: Wanted<'_>,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let body = serde_json::to_vec(body)?;
        self.read(&self.ask(method, &wanted, Some(body)).await?)
    }

    /// Has it gone.
    pub(in crate::cli) async fn delete(&self, wanted: Wanted<'_>) -> anyhow::Result<()> {
        self.ask(Method::DELETE, &wanted, None).await.map(drop)
    }

    /// So many items of a list, page by page; all unless limited.
    pub(in crate::cli) async fn items<T: DeserializeOwned>(
        &self,
        wanted: Wanted<'_>,
        limit: Option<usize>,
    ) -> anyhow::Result<Vec<T>> {
        let limit = limit.unwrap_or(usize::MAX);
        let (mut items, mut after) = (Vec::new(), None);
        while items.len() < limit {
            let rest = (limit - items.len()).min(PAGE);
            let page = wanted
                .clone()
                .with("limit", Some(rest))
                .with("after", after);
            let page: Page<T> = self.get(page).await?;
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(items)
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> anyhow::Result<T> {
        serde_json::from_slice(bytes).with_context(|| {
            format!(
                "{} answers what this layerd does not understand: is it a hub of another version?",
                self.at()
            )
        })
    }

    async fn ask(
        &self,
        method: Method,
        wanted: &Wanted<'_>,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Vec<u8>> {
        let mut unreached = None;
        for address in &self.addresses {
            let mut request = self.client.request(method.clone(), wanted.url(address)?);
            request = request.header(ACCEPT, "application/json");
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            if let Some(body) = &body {
                request = request.header(CONTENT_TYPE, "application/json");
                request = request.body(body.clone());
            }
            match request.send().await {
                Ok(answer) => return answered(address, answer).await,
                // The next address may be there.
                Err(error) if error.is_connect() => {
                    unreached = Some(anyhow!(
                        "can't reach the hub {address}: {}",
                        innermost(&error)
                    ));
                }
                Err(error) => bail!("the hub {address} gave no answer: {}", innermost(&error)),
            }
        }
        Err(unreached.unwrap_or_else(|| anyhow!("no hub is named")))
    }
}

async fn answered(address: &HubAddress, mut answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let status = answer.status();
    let mut bytes = Vec::new();
    while let Some(more) = answer.chunk().await.map_err(|error| {
        anyhow!(
            "the answer of the hub {address} broke off: {}",
            innermost(&error)
        )
    })? {
        if bytes.len() + more.len() > MAX_ANSWER {
            bail!("the answer of the hub {address} is longer than {MAX_ANSWER} bytes");
        }
        bytes.extend_from_slice(&more);
    }
    if status.is_success() {
        return Ok(bytes);
    }
    match serde_json::from_slice::<Fault>(&bytes) {
        Ok(fault) if status == StatusCode::UNAUTHORIZED => {
            bail!("{} (--hub-token-file)", fault.error.message)
        }
        Ok(fault) => bail!("{}", fault.error.message),
        Err(_) => bail!("{address} answers {status}: is it a hub of this version?"),
    }
}

/// What lies at the bottom of an error says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_is_in_it() {
        let wanted = Wanted::at(&["projects", "acme/shop", "refs"])
            .with("after", Some("refs/heads/a&b=c"))
            .with("limit", None::<u32>);
        let url = wanted.url(&"http://hub:8700".parse().unwrap()).unwrap();
        assert_eq!(
            url.as_str(),
            "http://hub:8700/v1/projects/acme%2Fshop/refs?after=refs%2Fheads%2Fa%26b%3Dc"
        );
    }
}
