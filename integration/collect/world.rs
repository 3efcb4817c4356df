//! Exports of a small world, so that everything meets everything.

use std::collections::BTreeSet;

use bytes::Bytes;
use layerd::cache::{Cache, CacheError, Document, LocalCache, Publication};
use layerd::digest::Digest;
use layerd::graph::{Descriptor, Manifest};
use layerd::place::Place;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// Blobs that there can be.
const BLOBS: u64 = 120;

/// The blob of that number.
pub fn content(number: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(number);
    let bytes: Vec<u8> = (0..200 + number * 11).map(|_| random.random()).collect();
    bytes.into()
}

/// Some place.
pub fn somewhere(random: &mut StdRng) -> Place {
    let projects = ["p", "q", "r"];
    let refs = ["main", "dev", "fix"];
    Place {
        project: projects[random.random_range(0..3)].parse().unwrap(),
        git_ref: refs[random.random_range(0..3)].parse().unwrap(),
        scope: Default::default(),
    }
}

/// Some blobs, in the order of a chain.
pub fn some(random: &mut StdRng) -> Vec<u64> {
    let count = random.random_range(1..7);
    let numbers: BTreeSet<u64> = (0..count).map(|_| random.random_range(0..BLOBS)).collect();
    numbers.into_iter().collect()
}

/// Exports a chain of those blobs as BuildKit does: what is held is not sent.
pub async fn export(
    cache: &LocalCache,
    place: Place,
    numbers: &[u64],
    mark: u64,
) -> Result<(), CacheError> {
    let _lease = cache.lease().await;
    let mut uploaded = BTreeSet::new();
    let mut layers = Vec::new();
    for number in numbers {
        let bytes = content(*number);
        let digest = Digest::of(&bytes);
        layers.push((digest, bytes.len() as u64));
        if cache.holds(&place, &digest).await?.is_some() {
            continue;
        }
        let name = format!("layer-{number}-{mark}");
        let mut ingest = cache.ingest(&place, &name, Some(digest)).await?;
        ingest.restart().await?;
        let size = bytes.len() as u64;
        ingest.write(bytes).await?;
        ingest.commit(Some(size), Some(digest)).await?;
        uploaded.insert(digest);
    }
    let (manifest, config) = documents(&layers, mark);
    let publication = Publication {
        place,
        builder: "runner".to_owned(),
        manifest,
        config,
        uploaded,
        steps: Vec::new(),
        readable: None,
    };
    cache.publish(publication).await.map(drop)
}

fn documents(layers: &[(Digest, u64)], mark: u64) -> (Document, Document) {
    let time = "2026-01-02T03:04:05.5Z";
    let chain: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(at, (digest, _))| json!({"blob": digest.to_string(), "parent": at as i64 - 1}))
        .collect();
    let record = |at: usize| {
        let step = Digest::of(format!("{mark}/{at}").as_bytes()).to_string();
        let inputs = match at {
            0 => json!([]),
            _ => json!([[{"link": at - 1}]]),
        };
        json!({"digest": step, "layers": [{"layer": at, "createdAt": time}], "inputs": inputs})
    };
    let records: Vec<_> = (0..layers.len()).map(record).collect();
    let config = Bytes::from(json!({"layers": chain, "records": records}).to_string());
    let descriptors = layers.iter().map(|(digest, size)| Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
        digest: *digest,
        size: *size,
        annotations: [
            (
                "containerd.io/uncompressed".to_owned(),
                Digest::of(digest.as_bytes()).to_string(),
            ),
            ("buildkit/createdat".to_owned(), time.to_owned()),
        ]
        .into(),
    });
    let manifest = Manifest {
        config: Descriptor::of_config(Digest::of(&config), config.len() as u64),
        layers: descriptors.collect(),
    };
    let manifest = Bytes::from(manifest.to_json().expect("a manifest"));
    (Document::new(manifest), Document::new(config))
}
