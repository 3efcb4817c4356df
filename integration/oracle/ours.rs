//! layerd's own union, as a function of configs.

use std::collections::{BTreeMap, BTreeSet};

use layerd::graph::{Descriptor, ExportSource, Parsed, Serving, Union};
use serde_json::Value;

use super::case::digest;

/// The union that is served when every layer is there.
pub fn unite(configs: &[Vec<u8>]) -> Vec<u8> {
    let numbered: Vec<(u64, &Vec<u8>)> = (1..).zip(configs).collect();
    let served = in_order(numbered.iter());
    let reversed = in_order(numbered.iter().rev());
    assert_eq!(
        String::from_utf8_lossy(&served),
        String::from_utf8_lossy(&reversed),
        "the order of exports shows"
    );
    served
}

fn in_order<'a>(configs: impl Iterator<Item = &'a (u64, &'a Vec<u8>)>) -> Vec<u8> {
    let mut union = Union::default();
    for (id, config) in configs {
        union.add(&ExportSource {
            id: *id,
            // To BuildKit results without a time are older than any other.
            time: None,
            config: &Parsed::read(config).expect("a cache config"),
            layers: &manifest(config),
        });
    }
    union.serve(&Serving::of(&|_| true)).json
}

/// What a manifest would say of a config's layers.
fn manifest(config: &[u8]) -> Vec<Descriptor> {
    let config: Value = serde_json::from_slice(config).expect("JSON");
    let layers = config["layers"].as_array().cloned().unwrap_or_default();
    let blobs: BTreeSet<String> = layers
        .iter()
        .filter_map(|layer| Some(layer["blob"].as_str()?.to_owned()))
        .collect();
    blobs
        .into_iter()
        .map(|blob| Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            digest: blob.parse().expect("a digest"),
            size: 1_000,
            annotations: BTreeMap::from([
                (
                    "containerd.io/uncompressed".to_owned(),
                    digest(&format!("{blob}, unpacked")),
                ),
                (
                    "buildkit/createdat".to_owned(),
                    "2026-03-01T00:00:00Z".to_owned(),
                ),
            ]),
        })
        .collect()
}
