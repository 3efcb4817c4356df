//! Writing what is served, in the form that BuildKit loads with the least
//! work.
//!
//! A result lists its layers (`chains`), which costs BuildKit less than a walk
//! down the tree of layers; then each blob is listed once, on its own. Results
//! on long chains refer to the tree, since lists would make the config as long
//! as depth times records. BuildKit reads both forms since v0.8 or before.
//!
//! **The joining record.** With two or more leaves that share an ancestor,
//! BuildKit up to v0.32.2 drops links when it loads a config
//! (`addItemToStorage` in `cache/remotecache/v1/cachestorage.go`). A last
//! record with every leaf in its one input makes it the only leaf. Nothing
//! ever asks for it, so no export brings it back; one that did would be
//! refused it.

use super::arrange::Arranged;
use super::layers::Layers;
use super::results::Outcome;
use super::snapshot::Snapshot;
use super::{JOINING, Union};
use crate::graph::written;
use crate::graph::{Descriptor, RecordDigest};

/// Layers that a result lists at most.
const LISTED: u32 = 64;

/// Whether a result with that top layer refers to the tree of layers.
pub(super) fn in_tree(layers: &Layers, layer: u32) -> bool {
    layers.depth(layer) > LISTED
}

/// A config, and the layers that a manifest must describe.
pub(super) struct Encoded {
    pub(super) json: Vec<u8>,
    pub(super) layers: Vec<Descriptor>,
}

/// Where each layer and each blob stands in the config.
struct Numbered {
    /// A blob on its own, by number; `None` where it is not listed so.
    blobs: Vec<Option<usize>>,
    /// A layer in the tree.
    layers: Vec<Option<usize>>,
    /// Blob, and position of the layer below.
    order: Vec<(u32, Option<usize>)>,
}

/// Writes the records in their order. `outcomes` is by number in the snapshot.
pub(super) fn encode(
    union: &Union,
    snapshot: &Snapshot,
    arranged: &Arranged,
    outcomes: &[Option<Outcome>],
    annotated: bool,
) -> Result<Encoded, serde_json::Error> {
    let served = arranged
        .records
        .iter()
        .filter_map(|&record| outcomes[record as usize]);
    let numbered = number(&union.layers, served.map(|(layer, _)| layer));
    let mut blobs: Vec<u32> = numbered.order.iter().map(|(blob, _)| *blob).collect();
    blobs.sort_unstable_by_key(|blob| union.layers.blobs[*blob]);
    blobs.dedup();
    let described: Vec<Descriptor> = blobs
        .iter()
        .filter_map(|blob| union.layers.descriptor(*blob))
        .collect();
    let layers = numbered.order.iter().map(|&(blob, parent)| written::Layer {
        blob: union.layers.blobs[blob],
        parent: parent.map_or(-1, |parent| parent as i64),
        annotations: annotated.then(|| union.layers.annotations(blob)).flatten(),
    });
    let mut records: Vec<written::Record<'_>> = (arranged.records.iter().zip(&arranged.links))
        .map(|(&record, links)| {
            let (mut results, mut chains) = (Vec::new(), Vec::new());
            if let Some((layer, created_at)) = outcomes[record as usize] {
                if in_tree(&union.layers, layer) {
                    let place = numbered.layers[layer as usize];
                    results.extend(place.map(|layer| written::Outcome { layer, created_at }));
                } else {
                    let chain = union.layers.chain(layer);
                    let blobs =
                        chain.map(|layer| numbered.blobs[union.layers.blob_of(layer) as usize]);
                    let mut layers: Vec<usize> = blobs.flatten().collect();
                    layers.reverse();
                    chains.push(written::Chain { layers, created_at });
                }
            }
            let link = |link: &super::Alternative| written::Link {
                selector: &union.records.selectors[link.selector],
                link: link.parent as usize,
            };
            written::Record {
                digest: union.records.digest(snapshot.ids[record as usize]),
                layers: results,
                chains,
                inputs: (links.chunk_by(|a, b| a.input == b.input))
                    .map(|input| input.iter().map(link).collect())
                    .collect(),
            }
        })
        .collect();
    let joining = JOINING.parse::<RecordDigest>();
    let leaves = leaves(arranged);
    if let (Ok(digest), true) = (&joining, leaves.len() > 1) {
        let link = |link| written::Link { selector: "", link };
        records.push(written::Record {
            digest,
            layers: Vec::new(),
            chains: Vec::new(),
            inputs: vec![leaves.into_iter().map(link).collect()],
        });
    }
    let config = written::Config {
        layers: layers.collect(),
        records,
    };
    Ok(Encoded {
        json: serde_json::to_vec(&config)?,
        layers: described,
    })
}

/// The positions of the records that nothing stands on.
fn leaves(arranged: &Arranged) -> Vec<usize> {
    let mut leaf = vec![true; arranged.records.len()];
    for link in arranged.links.iter().flatten() {
        leaf[link.parent as usize] = false;
    }
    (0..leaf.len()).filter(|record| leaf[*record]).collect()
}

/// Gives every layer that is needed its position: first the blobs on their
/// own, by digest, then those of the tree, the lower ones first.
fn number(layers: &Layers, tops: impl Iterator<Item = u32>) -> Numbered {
    let mut listed = vec![false; layers.len()];
    let mut tree = vec![false; layers.len()];
    for top in tops {
        let marks = if in_tree(layers, top) {
            &mut tree
        } else {
            &mut listed
        };
        for layer in layers.chain(top) {
            if std::mem::replace(&mut marks[layer as usize], true) {
                break;
            }
        }
    }
    let marked = |marks: &[bool]| -> Vec<u32> {
        (0..layers.len() as u32)
            .filter(|layer| marks[*layer as usize])
            .collect()
    };
    let mut blobs: Vec<u32> = marked(&listed)
        .into_iter()
        .map(|layer| layers.blob_of(layer))
        .collect();
    blobs.sort_unstable_by_key(|blob| layers.blobs[*blob]);
    blobs.dedup();
    let mut nodes = marked(&tree);
    nodes.sort_unstable_by_key(|layer| (layers.depth(*layer), layers.key(*layer)));
    let mut numbered = Numbered {
        blobs: vec![None; layers.blobs.values().len()],
        layers: vec![None; layers.len()],
        order: Vec::with_capacity(blobs.len() + nodes.len()),
    };
    for blob in blobs {
        numbered.blobs[blob as usize] = Some(numbered.order.len());
        numbered.order.push((blob, None));
    }
    for layer in nodes {
        let below = numbered
            .layers
            .get(layers.parent(layer) as usize)
            .copied()
            .flatten();
        numbered.layers[layer as usize] = Some(numbered.order.len());
        numbered.order.push((layers.blob_of(layer), below));
    }
    numbered
}
