//! An export as BuildKit would write it of steps that ran one after the other.

use bytes::Bytes;
use layerd::digest::Digest;
use layerd::graph::{Descriptor, Manifest};
use serde_json::json;

/// When all results were made.
pub const MADE: &str = "2026-01-02T03:04:05.5Z";

/// The config of a chain of steps with these layers; `mark` tells its steps from
/// those of others.
pub fn config_of(layers: &[(Digest, u64)], mark: &str) -> Bytes {
    let chain: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(at, (digest, _))| json!({"blob": digest.to_string(), "parent": at as i64 - 1}))
        .collect();
    let records: Vec<_> = (0..layers.len())
        .map(|at| {
            let step = Digest::of(format!("{mark}/{at}").as_bytes()).to_string();
            let mut record = json!({
                "digest": step,
                "layers": [{"layer": at, "createdAt": MADE}],
            });
            if at > 0 {
                record["inputs"] = json!([[{"link": at - 1}]]);
            }
            record
        })
        .collect();
    Bytes::from(json!({"layers": chain, "records": records}).to_string())
}

/// The manifest of an export with this config and these layers.
pub fn manifest_of(layers: &[(Digest, u64)], config: &Bytes) -> Bytes {
    let descriptors = layers.iter().map(|(digest, size)| Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
        digest: *digest,
        size: *size,
        annotations: [
            (
                "containerd.io/uncompressed".to_owned(),
                Digest::of(digest.as_bytes()).to_string(),
            ),
            ("buildkit/createdat".to_owned(), MADE.to_owned()),
        ]
        .into(),
    });
    let manifest = Manifest {
        config: Descriptor::of_config(Digest::of(config), config.len() as u64),
        layers: descriptors.collect(),
    };
    Bytes::from(manifest.to_json().expect("a manifest"))
}
