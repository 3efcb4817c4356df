//! Exports of a small world, so that everything meets everything.

use std::collections::BTreeSet;

use bytes::Bytes;
use layerd::cache::{Cache, CacheError, Document, LocalCache, Publication};
use layerd::digest::Digest;
use layerd::place::Place;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::chain::{config_of, manifest_of};

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
    let config = config_of(&layers, &mark.to_string());
    let publication = Publication {
        place,
        builder: "runner".to_owned(),
        manifest: Document::new(manifest_of(&layers, &config)),
        config: Document::new(config),
        uploaded,
        steps: Vec::new(),
        readable: None,
        began: None,
    };
    cache.publish(publication).await.map(drop)
}
