//! A CI's own identity for a token: an issuer that the test runs, a hub that is
//! told what its jobs may, and those who try more.

mod exchange;
mod sidecar;
mod tables;

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::oidc::Issuer;
use crate::harness::{Hub, Lab, layerd};

/// A hub, and an issuer whose jobs look like GitHub's.
struct Scene {
    lab: Lab,
    issuer: Issuer,
    hub: Hub,
}

impl Scene {
    async fn new() -> Self {
        let (lab, issuer) = (Lab::new(), Issuer::start().await);
        let arguments = arguments(&lab, &tables(&issuer, "15m")).await;
        let hub = lab.hub("hub").arguments(arguments).start().await;
        Self { lab, issuer, hub }
    }

    /// What the hub answers to this form: the status, and the body.
    async fn post(&self, fields: &[(&str, &str)]) -> (u16, Value) {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let (status, head, body) =
            post(&self.hub, "application/x-www-form-urlencoded", &form).await;
        assert!(head.contains("cache-control: no-store"), "{head}");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// The same for an identity token.
    async fn exchange(&self, token: &str) -> (u16, Value) {
        self.post(&form(token)).await
    }

    /// A token of the hub.
    async fn granted(&self, claims: &Value) -> String {
        let (status, body) = self.exchange(&self.issuer.sign("first", claims)).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().expect("a token").to_owned()
    }
}

pub fn form(token: &str) -> [(&str, &str); 3] {
    [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", token),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:id_token",
        ),
    ]
}

/// Status, head in lower case, and body.
async fn post(hub: &Hub, kind: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(hub.address()).await.expect("it listens");
    let head = format!(
        "POST /v1/token HTTP/1.1\r\nhost: hub\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // A hub that has seen enough may hang up before it has read it all.
    let _ = stream.write_all((head + body).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.expect("a status"),
        head.to_lowercase(),
        body.to_owned(),
    )
}

/// The tables of a hub that lets in what GitHub's jobs of acme say they are.
pub fn tables(issuer: &Issuer, lifetime: &str) -> String {
    format!(
        "[[issuer]]\nname = 'ci'\nurl = '{}'\naudience = 'hub'\n\n\
         [[rule]]\nname = 'ci'\nissuer = 'ci'\npreset = 'github'\nowners = ['acme']\n\
         default-branch = 'main'\nlifetime = '{lifetime}'\n",
        issuer.url()
    )
}

/// A hub's arguments with these tables and a key of its own.
async fn arguments(lab: &Lab, tables: &str) -> Vec<String> {
    let (config, key) = (lab.path("hub.toml"), lab.path("ci.pem"));
    std::fs::write(&config, tables).expect("a file");
    if !key.exists() {
        layerd(["token", "key", "-o", &shown(&key)]).await.ok();
    }
    let config = shown(&config);
    let key = shown(&key);
    [
        "--config",
        &config,
        "--auth",
        "token",
        "--token-key-file",
        &key,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// What a job of `acme/shop` says of itself.
pub fn claims(issuer: &Issuer, event: &str, git_ref: &str, base: &str) -> Value {
    let now = Timestamp::now().as_second();
    json!({
        "iss": issuer.url(), "aud": "hub", "iat": now, "nbf": now - 5, "exp": now + 300,
        "sub": "repo:acme/shop:x", "repository": "acme/shop", "repository_owner": "acme",
        "event_name": event, "ref": git_ref, "base_ref": base, "head_ref": "main",
    })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

fn written(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.path(name);
    std::fs::write(&path, text).expect("a file");
    path
}
