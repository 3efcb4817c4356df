//! Reading an export's config for what can be used of it.
//!
//! What one record has wrong costs that record and what can't stand without
//! it; the rest is taken. A record can stand once every input has one
//! alternative that can: so whatever is left has its ancestors with it, and
//! is listed after at least those that it needs.

use jiff::Timestamp;
use serde_json::Value;

use super::{JOINING, Refused};
use crate::digest::Digest;
use crate::graph::{GraphError, RecordDigest, limits, shape::Object, wire};

/// A config as it was stored, read but not yet checked.
#[derive(Debug)]
pub struct Parsed {
    layers: Vec<Option<wire::Layer>>,
    records: Vec<Option<wire::Record>>,
}

impl Parsed {
    /// Reads a cache config. Elements that can't be read are passed over;
    /// what is no config at all is an error.
    pub fn read(json: &[u8]) -> Result<Self, GraphError> {
        let what = "cache config";
        let size = json.len() as u64;
        let limit = limits::MAX_CONFIG_BYTES;
        if size > limit {
            return Err(GraphError::TooLarge { what, size, limit });
        }
        if let Ok(Object(config)) = serde_json::from_slice::<Object<wire::Config>>(json) {
            return Ok(Self {
                layers: config.layers.into_objects().map(Some).collect(),
                records: config.records.into_objects().map(Some).collect(),
            });
        }
        let malformed = |source| GraphError::Malformed { what, source };
        let Object(loose): Object<Loose> = serde_json::from_slice(json).map_err(malformed)?;
        Ok(Self {
            layers: each(loose.layers, limits::MAX_LAYERS),
            records: each(loose.records, limits::MAX_RECORDS),
        })
    }

    /// How many records the config lists, good or bad.
    pub fn records(&self) -> usize {
        self.records.len()
    }
}

#[derive(serde::Deserialize)]
struct Loose {
    #[serde(default)]
    layers: Value,
    #[serde(default)]
    records: Value,
}

/// Each element of a list, where it can be read.
fn each<T: serde::de::DeserializeOwned>(list: Value, limit: usize) -> Vec<Option<T>> {
    let Value::Array(elements) = list else {
        return Vec::new();
    };
    let read = |element| Some(serde_json::from_value::<Object<T>>(element).ok()?.0);
    elements.into_iter().take(limit).map(read).collect()
}

/// A record that can stand.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    /// Its index in the config.
    pub(super) index: usize,
    pub(super) digest: &'a RecordDigest,
    pub(super) inputs: u32,
    /// Input, selector, index of the other record, which can stand, too.
    pub(super) links: Vec<(u32, &'a str, usize)>,
}

impl Parsed {
    /// The records that can stand, ancestors first: of each input, at least
    /// one alternative comes before.
    pub(super) fn standing(&self, refused: &mut Refused) -> Vec<Standing<'_>> {
        let mut records: Vec<Option<Standing<'_>>> = (self.records.iter().enumerate())
            .map(|(index, record)| self.sound(index, record.as_ref(), refused))
            .collect();
        let order = derive(&records);
        let mut stands = vec![false; records.len()];
        for &index in &order {
            stands[index] = true;
        }
        let sound = records.iter().flatten().count();
        refused.unfounded += (sound - order.len()) as u64;
        let take = |index: usize| {
            let mut record = records[index].take()?;
            record.links.retain(|(_, _, parent)| stands[*parent]);
            Some(record)
        };
        order.into_iter().filter_map(take).collect()
    }

    /// A record with those of its links that point to something.
    fn sound<'a>(
        &'a self,
        index: usize,
        record: Option<&'a wire::Record>,
        refused: &mut Refused,
    ) -> Option<Standing<'a>> {
        let Some(record) = record else {
            refused.malformed += 1;
            return None;
        };
        if record.digest.as_str().starts_with("random:") {
            refused.random += 1;
            return None;
        }
        if record.digest.as_str() == JOINING {
            refused.joining += 1;
            return None;
        }
        let mut links = Vec::new();
        for (input, alternatives) in record.inputs.0.iter().enumerate() {
            let before = links.len();
            for Object(link) in &alternatives.0 {
                let parent = usize::try_from(link.link.unwrap_or(0)).ok();
                match parent.filter(|parent| *parent < self.records.len()) {
                    Some(parent) => {
                        let selector = link.selector.as_deref().unwrap_or_default();
                        links.push((input as u32, selector, parent));
                    }
                    None => refused.dangling += 1,
                }
            }
            if links.len() == before {
                refused.unfounded += 1;
                return None;
            }
        }
        Some(Standing {
            index,
            digest: &record.digest,
            inputs: record.inputs.0.len() as u32,
            links,
        })
    }

    /// The top layer and the time of each result of a record. `layer` gives
    /// the number of a blob on top of a layer; `tree` those of this config's
    /// own layers.
    pub(super) fn results(
        &self,
        index: usize,
        tree: &[Option<u32>],
        mut layer: impl FnMut(Digest, u32) -> u32,
        refused: &mut Refused,
    ) -> Vec<(u32, Option<Timestamp>)> {
        let Some(record) = self.records.get(index).and_then(Option::as_ref) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for Object(result) in &record.layers.0 {
            let top = usize::try_from(result.layer.unwrap_or(0)).ok();
            let top = top.and_then(|top| *tree.get(top)?);
            found.push((top, result.created_at));
        }
        for Object(chain) in &record.chains.0 {
            let mut below = None;
            for index in &chain.layers.0 {
                let blob = usize::try_from(*index).ok();
                let blob = blob.and_then(|blob| Some(self.layers.get(blob)?.as_ref()?.blob));
                let Some(blob) = blob else {
                    below = None;
                    break;
                };
                below = Some(layer(blob, below.unwrap_or(super::intern::NONE)));
            }
            found.push((below, chain.created_at));
        }
        let all = found.len();
        let sound: Vec<_> = (found.into_iter())
            .filter_map(|(top, created_at)| Some((top?, created_at.filter(is_time))))
            .collect();
        refused.results += (all - sound.len()) as u64;
        sound
    }

    /// The number of each layer, or none where it has no root.
    pub(super) fn tree(&self, mut layer: impl FnMut(Digest, u32) -> u32) -> Vec<Option<u32>> {
        let mut numbers: Vec<Option<u32>> = vec![None; self.layers.len()];
        let mut visited = vec![false; self.layers.len()];
        let mut path = Vec::new();
        for start in 0..self.layers.len() {
            // Down to what is known or to the root, then back up.
            let mut at = start;
            let mut below = loop {
                if visited[at] {
                    break numbers[at];
                }
                visited[at] = true;
                let Some(this) = &self.layers[at] else {
                    break None;
                };
                path.push((at, this.blob));
                let parent = this.parent.unwrap_or(0);
                if parent == -1 {
                    break Some(super::intern::NONE);
                }
                match usize::try_from(parent) {
                    Ok(parent) if parent < self.layers.len() => at = parent,
                    _ => break None,
                }
            };
            while let Some((index, blob)) = path.pop() {
                below = below.map(|below| layer(blob, below));
                numbers[index] = below;
            }
        }
        numbers
    }
}

/// Go writes the year 1 for no time.
fn is_time(time: &Timestamp) -> bool {
    *time > Timestamp::UNIX_EPOCH
}

/// The indices of the records that can stand, in the order in which they do.
fn derive(records: &[Option<Standing<'_>>]) -> Vec<usize> {
    let mut children: Vec<Vec<(u32, u32)>> = vec![Vec::new(); records.len()];
    let mut missing: Vec<u32> = vec![0; records.len()];
    let mut has: Vec<Vec<bool>> = vec![Vec::new(); records.len()];
    let mut order = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let Some(record) = record else { continue };
        missing[index] = record.inputs;
        has[index] = vec![false; record.inputs as usize];
        if record.inputs == 0 {
            order.push(index);
        }
        for &(input, _, parent) in &record.links {
            children[parent].push((index as u32, input));
        }
    }
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &(child, input) in &children[index] {
            let child = child as usize;
            if !std::mem::replace(&mut has[child][input as usize], true) {
                missing[child] -= 1;
                if missing[child] == 0 {
                    order.push(child);
                }
            }
        }
    }
    order
}
