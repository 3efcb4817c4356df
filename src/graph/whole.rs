//! A cache config that needs no manifest: each layer carries what a manifest
//! would say of it.
//!
//! BuildKit's importers that read by key (`s3`, `gha`, `azblob`) take the config
//! alone, and refuse it whole where one layer lacks its annotations
//! (`cache/remotecache/s3/s3.go`). So layers that can't be delivered are left
//! out, and with them every result whose chain needs one.

use std::collections::HashMap;

use super::written::{self, Annotations, Chain, Layer, Link, Outcome, Record};
use super::{CREATED_AT, Config, DIFF_ID, Descriptor, GraphError};
use crate::digest::Digest;

impl Config {
    /// This config with the descriptors of its layers; the same bytes every
    /// time. Records stay, with those results that `layers` can deliver.
    pub fn with_layers(&self, layers: &[Descriptor]) -> Result<Vec<u8>, GraphError> {
        let described: HashMap<Digest, Annotations<'_>> = layers
            .iter()
            .filter_map(|layer| Some((layer.digest, annotations(layer)?)))
            .collect();
        let kept = self.deliverable(&described);
        let number = |layer: usize| kept[layer];
        let whole = written::Config {
            layers: (self.layers.iter().zip(&kept))
                .filter(|(_, kept)| kept.is_some())
                .filter_map(|(layer, _)| {
                    let parent = layer
                        .parent
                        .and_then(number)
                        .map_or(-1, |parent| parent as i64);
                    Some(Layer {
                        blob: layer.blob,
                        parent,
                        annotations: Some(described.get(&layer.blob)?.clone()),
                    })
                })
                .collect(),
            records: (self.records.iter())
                .map(|record| Record {
                    digest: &record.digest,
                    layers: (record.results.iter())
                        .filter_map(|&(layer, created_at)| {
                            Some(Outcome {
                                layer: number(layer)?,
                                created_at,
                            })
                        })
                        .collect(),
                    chains: (record.chains.iter())
                        .filter_map(|chain| {
                            let layers = chain
                                .layers
                                .iter()
                                .map(|&layer| number(layer))
                                .collect::<Option<_>>()?;
                            Some(Chain {
                                layers,
                                created_at: chain.created_at,
                            })
                        })
                        .collect(),
                    inputs: (record.inputs.iter())
                        .map(|links| {
                            links
                                .iter()
                                .map(|link| Link {
                                    selector: &link.selector,
                                    link: link.record,
                                })
                                .collect()
                        })
                        .collect(),
                })
                .collect(),
        };
        serde_json::to_vec(&whole).map_err(|source| GraphError::Malformed {
            what: "cache config",
            source,
        })
    }

    /// For each layer its number among those that can be delivered with all
    /// below them, or none.
    fn deliverable(&self, described: &HashMap<Digest, Annotations<'_>>) -> Vec<Option<usize>> {
        let mut whole: Vec<Option<bool>> = vec![None; self.layers.len()];
        let mut path = Vec::new();
        for start in 0..self.layers.len() {
            let mut at = Some(start);
            // Down to a layer that is decided, or to the root; then back up.
            let mut verdict = loop {
                match at {
                    None => break true,
                    Some(layer) => match whole[layer] {
                        Some(decided) => break decided,
                        None => {
                            path.push(layer);
                            at = self.layers[layer].parent;
                        }
                    },
                }
            };
            while let Some(layer) = path.pop() {
                verdict = verdict && described.contains_key(&self.layers[layer].blob);
                whole[layer] = Some(verdict);
            }
        }
        let mut next = 0..;
        whole
            .into_iter()
            .map(|whole| {
                if whole == Some(true) {
                    next.next()
                } else {
                    None
                }
            })
            .collect()
    }
}

fn annotations(layer: &Descriptor) -> Option<Annotations<'_>> {
    Some(Annotations {
        media_type: &layer.media_type,
        diff_id: layer.annotations.get(DIFF_ID)?.parse().ok()?,
        size: layer.size,
        created_at: layer
            .annotations
            .get(CREATED_AT)
            .and_then(|time| time.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn blob(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn described(name: &str) -> Descriptor {
        let annotations = [
            (DIFF_ID, blob("diff").to_string()),
            (CREATED_AT, "2026-01-01T00:00:00Z".to_owned()),
        ];
        Descriptor {
            media_type: "m".to_owned(),
            digest: blob(name),
            size: 7,
            annotations: BTreeMap::from(annotations.map(|(key, value)| (key.to_owned(), value))),
        }
    }

    /// Layers a ← b ← c and d; a record for c, one for d, and one on top.
    fn config() -> Config {
        let time = "2026-02-02T00:00:00Z";
        let config = json!({
            "layers": [
                { "blob": blob("c"), "parent": 1 },
                { "blob": blob("b"), "parent": 2 },
                { "blob": blob("a"), "parent": -1 },
                { "blob": blob("d"), "parent": -1 },
            ],
            "records": [
                { "digest": blob("1"), "layers": [{ "layer": 0, "createdAt": time }] },
                { "digest": blob("2"), "chains": [{ "layers": [3], "createdAt": time }, { "layers": [2, 1], "createdAt": time }] },
                { "digest": blob("3"), "inputs": [[{ "link": 0, "selector": "/x" }], [{ "link": 1 }]] },
            ],
        });
        Config::parse(config.to_string().as_bytes()).unwrap()
    }

    fn with(names: &[&str]) -> (Config, Value) {
        let layers: Vec<_> = names.iter().map(|name| described(name)).collect();
        let bytes = config().with_layers(&layers).unwrap();
        (
            Config::parse(&bytes).unwrap(),
            serde_json::from_slice(&bytes).unwrap(),
        )
    }

    #[test]
    fn with_all_layers_nothing_is_lost() {
        let (whole, json) = with(&["a", "b", "c", "d"]);
        assert_eq!(whole, config());
        let annotations = json!({ "mediaType": "m", "diffID": blob("diff"), "size": 7, "createdAt": "2026-01-01T00:00:00Z" });
        assert!(
            json["layers"]
                .as_array()
                .unwrap()
                .iter()
                .all(|layer| layer["annotations"] == annotations)
        );
    }

    #[test]
    fn a_result_goes_with_any_layer_of_its_chain_and_its_record_stays() {
        let (whole, _) = with(&["b", "c", "d"]);
        assert_eq!(whole.layers.len(), 1, "all that stand on a are gone");
        assert!(whole.records[0].results.is_empty());
        assert_eq!(whole.records[1].chains.len(), 1);
        assert_eq!(whole.records[2], config().records[2]);
    }

    #[test]
    fn a_layer_without_its_diff_id_can_not_be_delivered() {
        let mut bare = described("d");
        bare.annotations.clear();
        let bytes = config().with_layers(&[bare]).unwrap();
        assert!(Config::parse(&bytes).unwrap().layers.is_empty());
    }

    #[test]
    fn a_deep_chain_takes_no_stack() {
        let count = 100_000;
        let layers: Vec<Value> = (0..count)
            .map(|n| json!({ "blob": blob("a"), "parent": n - 1 }))
            .collect();
        let config = Config::parse(json!({ "layers": layers }).to_string().as_bytes()).unwrap();
        let whole = Config::parse(&config.with_layers(&[described("a")]).unwrap()).unwrap();
        assert_eq!(whole.layers.len(), count as usize);
    }
}
