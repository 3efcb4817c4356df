//! The protocol, in a line for each request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// The version of what is saved, where it is not BuildKit's.
pub const VERSION: &str = "b3b6c7";
/// That of BuildKit's.
pub const BUILDKIT: &str = layerd::cache::entries::BUILDKIT_VERSION;

/// A client with a token, or without.
#[derive(Clone)]
pub struct Ask {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body, which is JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let kind = &self.headers["content-type"];
        assert_eq!(kind, "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// This, which has that status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A header that is there.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Ask {
    /// Of the hub at `url`.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(layerd::tls::no_client().unwrap())
            .redirect(reqwest::redirect::Policy::none())
            // Who waits for a turn is not read from, for longer than it allows.
            .tcp_user_timeout(None)
            .no_proxy()
            .build();
        Self {
            client: client.unwrap(),
            url: url.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// Any request.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let id = &headers["x-ms-request-id"];
        assert!(!id.is_empty());
        Answer {
            status,
            headers,
            body: answer.bytes().await.unwrap(),
        }
    }

    async fn asked(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = Vec::from_iter(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let url = format!("{}{path}", self.url);
        self.request(method, &url, &headers, body).await
    }

    /// A method of the second version.
    pub async fn twirp(&self, method: &str, body: &Value) -> Answer {
        let path = format!("/twirp/github.actions.results.api.v1.CacheService/{method}");
        self.asked(Method::POST, &path, Some(body)).await
    }

    /// Reserves a key: the answer.
    pub async fn create(&self, key: &str, version: &str) -> Answer {
        let body = json!({"key": key, "version": version});
        self.twirp("CreateCacheEntry", &body).await
    }

    /// Reserves a key, which is free: where its bytes go.
    pub async fn reserved(&self, key: &str, version: &str) -> String {
        let body = self.create(key, version).await.is(200).json();
        assert_eq!(body["ok"], true, "{body}");
        body["signed_upload_url"].as_str().unwrap().to_owned()
    }

    pub async fn finalize(&self, key: &str, version: &str, size: usize) -> Answer {
        let body = json!({"key": key, "version": version, "size_bytes": size.to_string()});
        self.twirp("FinalizeCacheEntryUpload", &body).await
    }

    /// Looks keys up: what matched, and where it is.
    pub async fn find(&self, keys: &[&str], version: &str) -> Option<(String, String)> {
        let body = json!({"key": keys[0], "restore_keys": keys[1..], "version": version});
        let answer = self.twirp("GetCacheEntryDownloadURL", &body).await;
        let body = answer.is(200).json();
        if body["ok"] == false {
            return None;
        }
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Some((text("matched_key"), text("signed_download_url")))
    }

    /// Put Blob.
    pub async fn put_whole(&self, url: &str, bytes: impl Into<reqwest::Body>) -> Answer {
        let headers = [
            ("x-ms-blob-type", "BlockBlob"),
            ("x-ms-version", "2025-05-05"),
        ];
        self.request(Method::PUT, url, &headers, bytes).await
    }

    /// Put Block.
    pub async fn put_block(
        &self,
        url: &str,
        name: &str,
        bytes: impl Into<reqwest::Body>,
    ) -> Answer {
        let url = format!("{url}&comp=block&blockid={}", escaped(&id(name)));
        self.request(Method::PUT, &url, &[], bytes).await
    }

    /// Put Block List.
    pub async fn put_list(&self, url: &str, names: &[&str]) -> Answer {
        let names = names
            .iter()
            .map(|name| format!("<Latest>{}</Latest>", id(name)));
        let list = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlockList>{}</BlockList>",
            String::from_iter(names)
        );
        let url = format!("{url}&comp=blocklist");
        let kind = [("content-type", "application/xml; charset=UTF-8")];
        self.request(Method::PUT, &url, &kind, list).await
    }

    /// Saves under a key that is free, in one piece.
    pub async fn save(&self, key: &str, version: &str, bytes: Bytes) {
        let url = self.reserved(key, version).await;
        let size = bytes.len();
        self.put_whole(&url, bytes).await.is(201);
        let ended = self.finalize(key, version, size).await.is(200).json();
        assert_eq!(ended["ok"], true);
        let id = ended["entry_id"].as_str().unwrap();
        assert!(id.parse::<u64>().is_ok(), "{id}");
    }

    /// Begins a download, with these headers.
    pub async fn open(&self, url: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Downloads, with these headers.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.request(Method::GET, url, headers, Bytes::new()).await
    }

    /// Restores what a key has.
    pub async fn restored(&self, keys: &[&str], version: &str) -> Option<Bytes> {
        let (_, url) = self.find(keys, version).await?;
        Some(self.get(&url, &[]).await.is(200).body)
    }

    /// The first version's path.
    pub async fn first(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let path = format!("/_apis/artifactcache/{path}");
        self.asked(method, &path, body).await
    }

    /// Reserves a key in the first version: the answer.
    pub async fn reserve(&self, key: &str, version: &str) -> Answer {
        let body = json!({"key": key, "version": version});
        self.first(Method::POST, "caches", Some(&body)).await
    }

    /// Sends a chunk of an upload of the first version, in pieces and without its
    /// length.
    pub async fn chunk(&self, id: i64, range: &str, bytes: Bytes) -> Answer {
        let url = format!("{}/_apis/artifactcache/caches/{id}", self.url);
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("content-range", range),
            ("content-type", "application/octet-stream"),
        ];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let pieces: Vec<_> = bytes
            .chunks(7000)
            .map(|piece| bytes.slice_ref(piece))
            .collect();
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        self.request(Method::PATCH, &url, &headers, body).await
    }

    /// Ends an upload of the first version.
    pub async fn commit(&self, id: i64, size: usize) -> Answer {
        let path = format!("caches/{id}");
        let body = json!({ "size": size });
        self.first(Method::POST, &path, Some(&body)).await
    }
}

/// What a block is called.
fn id(name: &str) -> String {
    BASE64.encode(format!("{name:0>48}"))
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
