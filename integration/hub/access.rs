//! Who may do what at a hub that asks for tokens, and what the others learn:
//! nothing.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use layerd::cache::wire::v1;
use layerd::cache::wire::v1::publish_request::Part;
use layerd::digest::Digest;
use ring::hmac;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::ask::{
    described, export, held, look_up, missing, noise, publication, publish, send, suspect,
};
use super::blobs::{begin, commit, open, piece};
use super::{place, read, upload};
use crate::harness::{Hub, HubClient, Lab, Metrics, until};

const PULL: &str = "refs/pull/1/merge";

/// A hub with a folder of keys, of which one is there.
pub struct Gate {
    pub lab: Lab,
    pub hub: Hub,
}

impl Gate {
    pub async fn new() -> Self {
        Self::told("").await
    }

    /// With a file that says this.
    pub async fn told(config: &str) -> Self {
        let lab = Lab::new();
        lab.folder("keys");
        add_key(&lab, "first");
        let keys = lab.path("keys").display().to_string();
        let file = lab.path("hub.toml");
        std::fs::write(&file, config).unwrap();
        let spec = lab.hub("one");
        let spec = spec.arguments(["--auth", "token", "--token-key-file", &keys]);
        let spec = spec.arguments(["--config", &file.display().to_string()]);
        Self {
            hub: spec.start().await,
            lab,
        }
    }

    pub async fn client(&self, claims: &Value) -> HubClient {
        self.hub.client(Some(&signed("first", claims))).await
    }

    /// Blobs in its store.
    fn blobs(&self) -> usize {
        let blobs = std::fs::read_dir(self.hub.data_dir().join("blobs/sha256"));
        blobs.into_iter().flatten().count()
    }
}

fn secret(key: &str) -> [u8; 32] {
    *Digest::of(key.as_bytes()).as_bytes()
}

fn add_key(lab: &Lab, key: &str) -> PathBuf {
    let path = lab.path("keys").join(format!("{key}.hex"));
    std::fs::write(&path, hex::encode(secret(key))).unwrap();
    path
}

/// What a token says that reads and writes these refs of project `p`.
pub fn claims(read: &[&str], write: &[&str]) -> Value {
    let now = Timestamp::now().as_second();
    json!({
        "iss": "layerd", "aud": "layerd", "sub": "test", "jti": "1",
        "iat": now, "nbf": now, "exp": now + 600,
        "project": "p", "read": read, "write": write,
    })
}

pub fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

pub fn signed(key: &str, claims: &Value) -> String {
    signed_with(&secret(key), key, claims)
}

/// A token that names one key, and is signed with whichever.
fn signed_with(secret: &[u8], key: &str, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "typ": "JWT", "kid": key});
    let message = format!("{}.{}", part(&header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// Calls of every kind to one place: how each was refused.
async fn refused(client: &mut HubClient, at: &v1::Place) -> Vec<Status> {
    let digest = Digest::of(b"any");
    let project = at.project.clone();
    let refusals = [
        look_up(client, at, false).await.map(drop),
        held(client, at, &[digest]).await.map(drop),
        read(client, &project, &digest, 0).await.map(drop),
        upload(client, at, &noise(1, 1000)).await.map(drop),
        publish(client, at, &[], "x").await.map(drop),
        writable(client, at).await,
        suspect(client, &project, &digest).await.map(drop),
        flush(client, at).await,
        steps(client, &project).await,
        report(client, at).await,
    ];
    refusals.into_iter().map(|call| call.unwrap_err()).collect()
}

async fn writable(client: &mut HubClient, at: &v1::Place) -> Result<(), Status> {
    let place = Some(at.clone());
    let answer = client.writable(v1::WritableRequest { place });
    answer.await.map(drop)
}

async fn flush(client: &mut HubClient, at: &v1::Place) -> Result<(), Status> {
    let request = v1::FlushRequest {
        project: at.project.clone(),
        git_ref: Some(at.git_ref.clone()),
        scope: None,
    };
    client.flush(request).await.map(drop)
}

async fn steps(client: &mut HubClient, project: &str) -> Result<(), Status> {
    let request = v1::StepsRequest {
        project: project.to_owned(),
        results: Vec::new(),
    };
    client.steps(request).await.map(drop)
}

async fn report(client: &mut HubClient, at: &v1::Place) -> Result<(), Status> {
    let request = v1::ReportRequest {
        project: at.project.clone(),
        git_ref: at.git_ref.clone(),
        ..v1::ReportRequest::default()
    };
    client.report(request).await.map(drop)
}

#[tokio::test]
async fn a_token_that_does_not_count_opens_nothing_and_is_told_why() {
    let gate = Gate::new().await;
    let now = Timestamp::now().as_second();
    let good = claims(&["**"], &["**"]);
    let header = part(&json!({"alg": "none", "kid": "first"}));
    let unsigned = format!("{header}.{}.", part(&good));
    let forged = signed_with(&[1; 32], "first", &good);
    let signed = |claims: &Value| Some(signed("first", claims));
    let expired = with(with(good.clone(), "exp", now - 300), "nbf", now - 900);
    for (token, why) in [
        (None, "a token is needed"),
        (Some("garbage".to_owned()), "no token that can be read"),
        (Some(unsigned), "algorithm"),
        (Some(forged), "signature is wrong"),
        (signed(&with(good.clone(), "aud", "another")), "audience"),
        (signed(&with(expired, "iat", now - 900)), "expired"),
        (Some("x".repeat(20 << 10)), "longer than"),
        (Some("x".repeat(64 << 10)), "longer than"),
        (Some("x".repeat(100 << 10)), "longer than"),
    ] {
        let mut client = gate.hub.client(token.as_deref()).await;
        for status in refused(&mut client, &place("p", "main")).await {
            assert_eq!(status.code(), Code::Unauthenticated, "{why}: {status:?}");
            assert!(status.message().contains(why), "{why}: {status:?}");
        }
        let lease = client.take_lease(v1::TakeLeaseRequest {}).await;
        assert_eq!(lease.unwrap_err().code(), Code::Unauthenticated);
    }
    // Too large for a header at all: the connection ends, which is counted.
    let mut client = gate.hub.client(Some(&"x".repeat(1 << 20))).await;
    let ended = look_up(&mut client, &place("p", "main"), false).await;
    let ended = ended.unwrap_err();
    // As the hub says, or as a connection ends that was written to meanwhile.
    let ends = [Code::ResourceExhausted, Code::Unknown, Code::Unavailable];
    assert!(ends.contains(&ended.code()), "{ended:?}");
    until("it is counted", async || {
        let metrics = Metrics::at(gate.hub.metrics_address()).await;
        let faulty = metrics.value("layerd_hub_faulty_connections_total");
        (faulty >= 1.0).then_some(())
    })
    .await;
    assert!(gate.hub.log().contains("a client was hung up on"));
    let metrics = Metrics::at(gate.hub.metrics_address()).await;
    let malformed = metrics.value("layerd_hub_refusals_total{reason=\"malformed\"}");
    assert!(malformed >= 3.0, "{malformed}");
    let mut client = gate.client(&good).await;
    export(&mut client, &place("p", "main"), &[noise(1, 10)], "x").await;
    assert_eq!(gate.blobs(), 1);
}

#[tokio::test]
async fn a_token_of_another_project_may_do_nothing_and_stores_nothing() {
    let gate = Gate::new().await;
    let mut client = gate.client(&claims(&["**"], &["**"])).await;
    for status in refused(&mut client, &place("q", "main")).await {
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert_eq!(status.message(), "the token is for project p, not for q");
    }
    assert_eq!(gate.blobs(), 0);
}

#[tokio::test]
async fn a_token_that_only_reads_imports_and_is_told_why_it_cannot_export() {
    let gate = Gate::new().await;
    let main = place("p", "main");
    let layer = noise(2, 5000);
    let mut writer = gate.client(&claims(&["main"], &["main"])).await;
    export(&mut writer, &main, std::slice::from_ref(&layer), "x").await;

    let mut reader = gate.client(&claims(&["main"], &[])).await;
    let import = look_up(&mut reader, &main, false).await.unwrap().unwrap();
    let (digest, size) = described(&layer);
    assert_eq!(import.layers.get(&digest), Some(&size));
    let bytes = read(&mut reader, "p", &digest, 0).await.unwrap();
    assert_eq!(bytes, layer);
    let new = noise(3, 100);
    let layers = [described(&new)];
    for refusal in [
        writable(&mut reader, &main).await.unwrap_err(),
        held(&mut reader, &main, &[digest]).await.unwrap_err(),
        upload(&mut reader, &main, &new).await.unwrap_err(),
        publish(&mut reader, &main, &layers, "y").await.unwrap_err(),
        flush(&mut reader, &main).await.unwrap_err(),
    ] {
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal:?}");
        let why = "the token may not write refs/heads/main; it may write no ref at all";
        assert_eq!(refusal.message(), why);
    }
    assert_eq!(gate.blobs(), 1);
}

/// All that a client of `main` can find out of a blob, as text.
async fn known_of(client: &mut HubClient, digest: &Digest, size: u64) -> Vec<String> {
    let main = place("p", "main");
    let pull = place("p", PULL);
    let mut url = v1::ReadBlobRequest {
        projects: vec!["p".to_owned()],
        digest: digest.as_bytes().to_vec().into(),
        ..v1::ReadBlobRequest::default()
    };
    let bytes = client.read_blob(url.clone()).await.map(drop).unwrap_err();
    url.takes_url = true;
    let named = publish(client, &main, &[(*digest, size)], "spy").await;
    let named = named.unwrap_err();
    assert_eq!(missing(&named), [*digest]);
    let mut begun = begin(client, open(&main, digest)).await.unwrap();
    vec![
        format!(
            "{:?}",
            look_up(client, &pull, false).await.unwrap().is_some()
        ),
        format!(
            "{:?}",
            look_up(client, &pull, true).await.unwrap().is_some()
        ),
        format!(
            "{:?}",
            look_up(client, &main, false).await.unwrap().is_some()
        ),
        format!("{:?}", held(client, &main, &[*digest]).await.unwrap()),
        format!("{:?} {}", bytes.code(), bytes.message()),
        format!("{:?}", told(client.read_blob(url).await)),
        format!("{:?} {:?}", named.message(), named.details()),
        format!("{:?}", begun.offset().await.unwrap()),
        format!("{:?}", told(suspect(client, "p", digest).await)),
    ]
}

pub fn told<T>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.err().expect("a refusal");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn nothing_of_a_ref_that_may_not_be_read_shows() {
    let gate = Gate::new().await;
    let (main, pull) = (place("p", "main"), place("p", PULL));
    let layer = noise(4, 300_000);
    let (digest, size) = described(&layer);
    let mut ours = gate.client(&claims(&["main"], &["main"])).await;
    let before = known_of(&mut ours, &digest, size).await;

    let mut theirs = gate.client(&claims(&[PULL], &[PULL])).await;
    export(&mut theirs, &pull, std::slice::from_ref(&layer), "pull").await;
    assert!(look_up(&mut theirs, &pull, true).await.unwrap().is_some());
    assert_eq!(read(&mut theirs, "p", &digest, 0).await.unwrap(), layer);

    assert_eq!(known_of(&mut ours, &digest, size).await, before);
    let refused = look_up(
        &mut gate.client(&claims(&[], &["main"])).await,
        &main,
        false,
    )
    .await;
    assert_eq!(told(refused).0, Code::PermissionDenied);
    // It has to be sent whole, and is there then.
    assert_eq!(upload(&mut ours, &main, &layer).await.unwrap(), size);
    assert_eq!(
        held(&mut ours, &main, &[digest]).await.unwrap(),
        [Some(size)]
    );
    assert_eq!(read(&mut ours, "p", &digest, 0).await.unwrap(), layer);
}

#[tokio::test]
async fn a_step_is_told_to_those_who_may_read_an_export_that_has_it() {
    let gate = Gate::new().await;
    let record = Digest::of(b"secret/0").to_string();
    let result = v1::steps_request::Result {
        record: record.clone(),
        created_at_ns: 1_767_323_045_500_000_000,
    };
    let mut theirs = gate.client(&claims(&[PULL], &[PULL])).await;
    let (layer, pull) = (noise(6, 1000), place("p", PULL));
    upload(&mut theirs, &pull, &layer).await.unwrap();
    let mut messages = publication(&pull, &[described(&layer)], "secret");
    if let Some(Part::Export(export)) = &mut messages[0].part {
        export.steps = 1;
    }
    let step = v1::Step {
        record,
        created_at_ns: result.created_at_ns,
        name: "RUN secret".to_owned(),
        ..v1::Step::default()
    };
    messages.push(v1::PublishRequest {
        part: Some(Part::Steps(v1::Steps { steps: vec![step] })),
    });
    assert_eq!(send(&mut theirs, messages).await.unwrap().steps.len(), 1);
    for (read, known) in [
        (&["main"][..], 0),
        (&["refs/tags/**"], 0),
        (&[PULL], 1),
        (&["main", "refs/pull/*/merge"], 1),
        (&["**"], 1),
    ] {
        let mut client = gate.client(&claims(read, &["main"])).await;
        let request = v1::StepsRequest {
            project: "p".to_owned(),
            results: vec![result.clone()],
        };
        let mut parts = client.steps(request).await.unwrap().into_inner();
        let mut told = 0;
        while let Some(part) = parts.message().await.unwrap() {
            told += part.steps.unwrap().steps.len();
        }
        assert_eq!(told, known, "{read:?}");
    }
}

#[tokio::test]
async fn an_upload_of_a_ref_is_resumed_by_nobody_who_may_not_write_it() {
    let gate = Gate::new().await;
    let (main, pull) = (place("p", "main"), place("p", PULL));
    let layer = noise(5, 600_000);
    let (digest, size) = described(&layer);
    let mut ours = gate.client(&claims(&["main"], &["main"])).await;
    let mut theirs = gate.client(&claims(&[PULL], &[PULL])).await;
    // All of it is sent, and only the last word is missing.
    let mut left = begin(&mut ours, open(&main, &digest)).await.unwrap();
    assert_eq!(left.offset().await.unwrap(), Some(0));
    left.pieces.send(piece(layer.clone())).await.unwrap();
    let ingest = gate.hub.data_dir().join("ingest");
    until("all of it is written", async || {
        let files = std::fs::read_dir(&ingest).into_iter().flatten().flatten();
        let mut sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
        sizes.any(|written| written == size).then_some(())
    })
    .await;
    drop(left);
    let mut taken = until("the upload is left", async || {
        let mut resumed = begin(&mut ours, open(&main, &digest)).await.unwrap();
        let offset = resumed.offset().await.unwrap();
        (offset == Some(size)).then_some(resumed)
    })
    .await;
    let mut spy = begin(&mut theirs, open(&pull, &digest)).await.unwrap();
    assert_eq!(spy.offset().await.unwrap(), Some(0));
    spy.pieces.send(commit(&digest, size)).await.unwrap();
    assert_eq!(told(spy.stored().await).0, Code::InvalidArgument);
    taken.pieces.send(commit(&digest, size)).await.unwrap();
    assert_eq!(taken.stored().await.unwrap(), size);
}

#[tokio::test]
async fn keys_are_rotated_while_the_hub_runs() {
    let gate = Gate::new().await;
    let claims = claims(&["**"], &["**"]);
    let [old, new] = ["first", "second"].map(|key| signed(key, &claims));
    let mut old = gate.hub.client(Some(&old)).await;
    let mut new = gate.hub.client(Some(&new)).await;
    let main = place("p", "main");
    writable(&mut old, &main).await.unwrap();
    let (code, why) = told(writable(&mut new, &main).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(why.contains("\"second\""), "{why}");

    add_key(&gate.lab, "second");
    until("the new key counts", async || {
        writable(&mut new, &main).await.ok()
    })
    .await;
    writable(&mut old, &main).await.unwrap();
    std::fs::remove_file(gate.lab.path("keys/first.hex")).unwrap();
    let why = until("the old key is gone", async || {
        writable(&mut old, &main).await.err()
    })
    .await;
    assert_eq!(why.code(), Code::Unauthenticated, "{why:?}");
    writable(&mut new, &main).await.unwrap();
    // A folder without a key that can be read leaves what was.
    std::fs::write(gate.lab.path("keys/broken.pem"), Bytes::from("no key")).unwrap();
    writable(&mut new, &main).await.unwrap();
}
