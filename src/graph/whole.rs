//! A cache config that says all of its layers, as BuildKit's object-store
//! exporters write it, and the manifest that says the same.
//!
//! What a manifest's descriptors say stands there in an annotation of each layer
//! (`LayerAnnotations` in `cache/remotecache/v1/types/spec.go`). A union
//! [serves](super::Union::serve) such a config where it is asked to.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::limits::MAX_CONFIG_BYTES;
use super::shape::Object;
use super::{CREATED_AT, Config, DIFF_ID, Descriptor, GraphError, Manifest, wire};
use crate::digest::Digest;

impl Manifest {
    /// The manifest of such a config: every blob once, in the config's order.
    pub fn of_whole(json: &[u8]) -> Result<Self, GraphError> {
        let what = "cache config";
        if json.len() as u64 > MAX_CONFIG_BYTES {
            return Err(GraphError::TooLarge {
                what,
                size: json.len() as u64,
                limit: MAX_CONFIG_BYTES,
            });
        }
        let Object(config): Object<wire::Config> = serde_json::from_slice(json)
            .map_err(|source| GraphError::Malformed { what, source })?;
        let mut known: HashMap<Digest, usize> = HashMap::new();
        let mut layers: Vec<Descriptor> = Vec::new();
        for layer in config.layers.into_objects() {
            let blob = layer.blob;
            let descriptor = descriptor(layer).ok_or(GraphError::UndescribedLayer(blob))?;
            match known.get(&blob) {
                None => {
                    known.insert(blob, layers.len());
                    layers.push(descriptor);
                }
                Some(at) if layers[*at].size != descriptor.size => {
                    return Err(GraphError::TwoSizes(blob));
                }
                Some(_) => {}
            }
        }
        let manifest = Self {
            config: Descriptor::of_config(Digest::of(json), json.len() as u64),
            layers,
        };
        manifest.parse_config(json).map(|_: Config| manifest)
    }
}

fn descriptor(layer: wire::Layer) -> Option<Descriptor> {
    let Object(wire::LayerAnnotations {
        media_type,
        diff_id,
        size,
        created_at,
    }) = layer.annotations?;
    let mut annotations = BTreeMap::from([(DIFF_ID.to_owned(), diff_id?.to_string())]);
    // Go writes its zero time where there is none.
    let created_at = created_at.filter(|time| *time > zero());
    annotations.extend(created_at.map(|time| (CREATED_AT.to_owned(), time.to_string())));
    Some(Descriptor {
        media_type: media_type.filter(|text| !text.is_empty())?.into(),
        digest: layer.blob,
        size: size?,
        annotations,
    })
}

/// The first moment of the year 1.
fn zero() -> Timestamp {
    Timestamp::from_second(-62_135_596_800).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
