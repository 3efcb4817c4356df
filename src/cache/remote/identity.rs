//! Who this host is, by somebody else's word: the identity token that is
//! exchanged for a hub's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::access::{Secret, SecretError};
use crate::tls;
use crate::watched::Watched;

/// What GitHub gives to jobs that may ask for an identity.
const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// How long GitHub may take, and how much it may say.
const LIMIT: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 64 << 10;

/// Where an identity token comes from.
#[derive(Clone)]
pub struct Identity(Source);

#[derive(Clone)]
enum Source {
    Given(Secret),
    File(Arc<Watched<Secret>>),
    Github(Arc<Result<Github, String>>),
}

struct Github {
    url: Url,
    token: Secret,
}

#[derive(Deserialize)]
struct Answer {
    value: String,
}

impl Identity {
    /// This one.
    pub fn given(token: Secret) -> Self {
        Self(Source::Given(token))
    }

    /// The one in a file, read again when that changes.
    pub fn file(path: &Path) -> Result<Self, SecretError> {
        Ok(Self(Source::File(Arc::new(Secret::watch(path)?))))
    }

    /// That of a job of GitHub Actions, made for `audience`, by what is in the
    /// environment. Whether the job may have one shows when it is asked for: a
    /// pull request of a fork may not.
    pub fn github(audience: &str) -> Self {
        Self(Source::Github(Arc::new(Github::of_environment(audience))))
    }

    /// The token as it is now; an error says why there is none.
    pub async fn current(&self) -> Result<Secret, String> {
        match &self.0 {
            Source::Given(token) => Ok(token.clone()),
            Source::File(watched) => Ok(Secret::clone(&watched.current())),
            Source::Github(github) => match github.as_ref() {
                Ok(github) => github.ask().await,
                Err(why) => Err(why.clone()),
            },
        }
    }
}

impl Github {
    fn of_environment(audience: &str) -> Result<Self, String> {
        let [Ok(url), Ok(token)] = [URL, TOKEN].map(std::env::var) else {
            return Err(format!(
                "GitHub gives this job no identity ({URL} is not set): the job needs \
                 `permissions: id-token: write`, which pull requests of forks do not get"
            ));
        };
        let mut url: Url = url.parse().map_err(|_| format!("{URL} is no URL"))?;
        let local = url.host_str().is_some_and(|host| host == "127.0.0.1");
        if url.scheme() != "https" && !local {
            return Err(format!("{URL} is no https URL"));
        }
        url.query_pairs_mut().append_pair("audience", audience);
        Ok(Self {
            url,
            token: Secret::new(token),
        })
    }

    async fn ask(&self) -> Result<Secret, String> {
        let asked = tokio::time::timeout(LIMIT, self.get()).await;
        let asked =
            asked.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
        asked.map_err(|why| format!("GitHub gave no identity: {why}"))
    }

    /// The URL holds nothing secret, but is of no use to anybody.
    async fn get(&self) -> Result<Secret, String> {
        let tls = match self.url.scheme() {
            "http" => tls::no_client(),
            _ => tls::system_client(),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.map_err(|error| error.to_string())?)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        let shown = |error: reqwest::Error| error.without_url().to_string();
        let asked = client
            .get(self.url.clone())
            .bearer_auth(self.token.expose());
        let mut answer = asked.send().await.map_err(shown)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(more) = answer.chunk().await.map_err(shown)? {
            if body.len() + more.len() > MAX_ANSWER {
                return Err("the answer is too long".to_owned());
            }
            body.extend_from_slice(&more);
        }
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| "no token is in its answer".to_owned())?;
        Ok(Secret::new(answer.value))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Source::Given(_) => "an identity",
            Source::File(_) => "the identity of a file",
            Source::Github(_) => "GitHub's identity of this job",
        })
    }
}
