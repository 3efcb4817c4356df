//! The engine from the outside: the real wire, a real disk, and a proxy between
//! it and the hub that does what networks do.

mod double;
mod faults;
mod holding;
mod outbox;
mod reading;
#[path = "../../../integration/harness/toxic.rs"]
#[allow(dead_code, missing_docs)]
mod toxic;
mod writing;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use serde_json::json;
use tempfile::TempDir;
use tonic::Status;

use self::double::Double;
use self::toxic::{Toxic, ToxicProxy, Way};
use super::*;
use crate::access::Secret;
use crate::blobs::{TierMetrics, TierOptions};
use crate::cache::{Document, Documents, Form};
use crate::graph::CONFIG_MEDIA_TYPE;

/// Whatever there is.
const ALL: Limits = Limits {
    records: u64::MAX,
    form: Form::Whole,
};

/// How long an engine under test is patient: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hub behind a proxy.
struct Lab {
    double: Double,
    proxy: ToxicProxy,
}

/// An engine on a host of its own.
struct Host {
    cache: RemoteCache,
    near: Near,
    metrics: Metrics,
    dir: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let (double, address) = Double::start().await;
        let proxy = ToxicProxy::start(address).await;
        Self { double, proxy }
    }

    fn address(&self) -> HubAddress {
        format!("http://{}", self.proxy.address()).parse().unwrap()
    }

    async fn host(&self) -> Host {
        Host::of([self.address()], PATIENCE).await
    }
}

impl Host {
    async fn of(addresses: impl IntoIterator<Item = HubAddress>, patience: Duration) -> Self {
        Self::at(TempDir::new().unwrap(), addresses, patience).await
    }

    async fn at(
        dir: TempDir,
        addresses: impl IntoIterator<Item = HubAddress>,
        patience: Duration,
    ) -> Self {
        let options = TierOptions {
            patience,
            ..TierOptions::default()
        };
        let near = Near::open(dir.path(), options, TierMetrics::default()).await;
        let metrics = Metrics::default();
        let hub = Arc::new(Hub::new(addresses, None, metrics.clone()));
        let token = TokenSource::given(Secret::new("own"));
        Self {
            cache: RemoteCache::new(hub, token, near.clone(), patience),
            near,
            metrics,
            dir,
        }
    }

    async fn upload(&self, content: &Bytes) -> Digest {
        upload(&self.cache, content).await.unwrap()
    }

    async fn look_up(&self) -> Option<Import> {
        let want = Want::all_of(Place::default());
        self.cache.look_up(&[want], &ALL).await.unwrap().import()
    }

    async fn whole(&self, digest: &Digest) -> Result<Bytes, CacheError> {
        let bytes = self.cache.read(digest, 0, u64::MAX).await?;
        Ok(bytes.try_collect::<BytesMut>().await?.freeze())
    }
}

/// Uploads in chunks, as BuildKit does.
async fn upload(cache: &dyn Cache, content: &Bytes) -> Result<Digest, CacheError> {
    let digest = Digest::of(content);
    let name = format!("layer-{digest}");
    let mut ingest = cache.ingest(&Place::default(), &name, Some(digest)).await?;
    for at in (0..content.len()).step_by(1 << 20) {
        let chunk = content.slice(at..content.len().min(at + (1 << 20)));
        ingest.write(chunk).await?;
    }
    ingest
        .commit(Some(content.len() as u64), Some(digest))
        .await?;
    Ok(digest)
}

/// Bytes that no two seeds share.
fn content(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes.into()
}

/// An export of one chain of layers.
fn export(layers: &[Bytes]) -> Publication {
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let chain: Vec<_> = digests
        .iter()
        .enumerate()
        .map(|(at, digest)| json!({"blob": digest, "parent": at as i64 - 1}))
        .collect();
    let records: Vec<_> = digests
        .iter()
        .enumerate()
        .map(|(at, digest)| match at {
            0 => json!({"digest": digest, "layers": [{"layer": 0}]}),
            _ => {
                json!({"digest": digest, "layers": [{"layer": at}], "inputs": [[{"link": at - 1}]]})
            }
        })
        .collect();
    let config = json!({"layers": chain, "records": records}).to_string();
    let config = Document::new(config.into());
    let described: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(layer), "size": layer.len(),
                "annotations": {"containerd.io/uncompressed": Digest::of(b"diff"), "buildkit/createdat": "2026-11-22T05:23:18.5Z"},
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": config.digest, "size": config.bytes.len()},
        "layers": described,
    });
    Publication {
        place: Place::default(),
        builder: "runner-1".to_owned(),
        manifest: Document::new(manifest.to_string().into()),
        config,
        uploaded: digests.into_iter().collect(),
        steps: Vec::new(),
        readable: None,
        began: None,
    }
}

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_one_host_exports_another_imports() {
    let lab = Lab::new().await;
    let layers = [content(1, 3_000_000), content(2, 10), content(3, 700_000)];
    let writer = lab.host().await;
    for layer in &layers {
        writer.upload(layer).await;
    }
    let published = writer.cache.publish(export(&layers)).await.unwrap();
    assert!(published.id.is_some());
    assert_eq!((published.records, published.layers), (3, 3));

    let reader = lab.host().await;
    let import = reader.look_up().await.unwrap();
    assert_eq!(import.layers.len(), 3);
    assert!(matches!(import.documents, Documents::Whole(_)));
    for layer in &layers {
        let digest = Digest::of(layer);
        assert_eq!(reader.whole(&digest).await.unwrap(), *layer);
        reader.cache.verify(&digest).await.unwrap();
    }
    let reads = lab.double.seen().reads;
    assert_eq!(reads, 3);
    for layer in &layers {
        reader.whole(&Digest::of(layer)).await.unwrap();
    }
    assert_eq!(lab.double.seen().reads, reads, "this host has them");
}

#[tokio::test]
async fn the_token_goes_with_every_call() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    host.upload(&content(1, 10)).await;
    host.cache.lease().await;
    host.cache.writable(&Place::default()).await.unwrap();
    assert!(host.look_up().await.is_none());
    let expected = BTreeSet::from([Some("Bearer own".to_owned())]);
    assert_eq!(lab.double.seen().tokens, expected);
}

#[tokio::test]
async fn what_the_hub_denies_is_said_in_its_words() {
    let lab = Lab::new().await;
    lab.double.seen().denies = Some(Status::permission_denied("not for this token"));
    let host = lab.host().await;
    let error = host.cache.writable(&Place::default()).await.unwrap_err();
    assert!(matches!(&error, CacheError::Denied(why) if why == "not for this token"));
    assert_eq!(host.metrics.breakers_open(), 0);
}
