//! Somebody who vouches for identities: an OpenID Connect issuer on loopback,
//! with keys that come and go, and answers that can go wrong.
//!
//! It needs nothing else of the harness, so that unit tests include it by its
//! path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How it answers whoever wants its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// With its keys.
    Well,
    /// Not at all.
    Never,
    /// With more than anybody wants to read.
    Huge,
    /// With 500.
    Failing,
    /// By sending them elsewhere.
    Elsewhere,
}

/// An issuer.
pub struct Issuer {
    url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The keys that it publishes, by name.
    keys: BTreeMap<String, Value>,
    answers: Answers,
    asked: usize,
    /// What it says to a job that asks for an identity.
    identity: Option<String>,
}

impl Issuer {
    /// One that publishes the key `first`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State {
            keys: BTreeMap::new(),
            answers: Answers::Well,
            asked: 0,
            identity: None,
        }));
        let issuer = Self { url, state };
        issuer.publish("first");
        let (url, state) = (issuer.url.clone(), Arc::clone(&issuer.state));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, url.clone(), Arc::clone(&state)));
            }
        });
        issuer
    }

    /// What stands in its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Publishes a key of that name.
    pub fn publish(&self, kid: &str) {
        let x = text(pair(kid).public_key());
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x,
        });
        self.state().keys.insert(kid.to_owned(), jwk);
    }

    /// Takes a key away.
    pub fn withdraw(&self, kid: &str) {
        self.state().keys.remove(kid);
    }

    /// Answers so from now on.
    pub fn answer(&self, answers: Answers) {
        self.state().answers = answers;
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// Gives this to a job that asks at `/identity`, as GitHub does.
    pub fn identify(&self, token: &str) {
        self.state().identity = Some(token.to_owned());
    }

    /// A token that a key of that name signed, published or not.
    pub fn sign(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let signature = text(pair(kid).sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The public half of a key, as it is published.
pub fn public(kid: &str) -> Vec<u8> {
    pair(kid).public_key().as_ref().to_vec()
}

/// base64url.
pub fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pair(kid: &str) -> Ed25519KeyPair {
    let seed = digest(&SHA256, kid.as_bytes());
    Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).expect("a key")
}

async fn answer(mut stream: TcpStream, url: String, state: Arc<Mutex<State>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match path.split('?').next().unwrap_or_default() {
            "/.well-known/openid-configuration" => {
                let document = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
                ("200 OK", document.to_string())
            }
            "/identity" => {
                let allowed = request.to_ascii_lowercase().contains("bearer asked");
                match &state.identity {
                    // GitHub's URL has a query already.
                    Some(token) if allowed && path.contains("?v=1&audience=") => {
                        ("200 OK", json!({ "value": token }).to_string())
                    }
                    _ => ("403 Forbidden", String::new()),
                }
            }
            "/keys" => {
                state.asked += 1;
                let keys: Vec<_> = state.keys.values().cloned().collect();
                match state.answers {
                    Answers::Well => ("200 OK", json!({ "keys": keys }).to_string()),
                    Answers::Failing => ("500 Internal Server Error", String::new()),
                    Answers::Elsewhere => ("302 Found", String::new()),
                    Answers::Huge => ("200 OK", " ".repeat(2 << 20)),
                    Answers::Never => ("", String::new()),
                }
            }
            _ => ("404 Not Found", String::new()),
        }
    };
    if status.is_empty() {
        // Until the other side gives up.
        let _ = stream.read_u8().await;
        return;
    }
    let head = format!(
        "HTTP/1.1 {status}\r\nlocation: {url}/.well-known/openid-configuration\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // Whoever has read enough hangs up.
    let _ = stream.write_all((head + &body).as_bytes()).await;
}
