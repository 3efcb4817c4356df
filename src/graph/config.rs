//! A cache config: layers on top of each other, and the records whose results
//! they are.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use super::acyclic::Edges;
use super::limits::MAX_CONFIG_BYTES;
use super::shape::{Object, Objects};
use super::{GraphError, wire};
use crate::digest::{Digest, RecordDigest};

/// A valid cache config: every index points to something, nothing is its own
/// ancestor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Layers; records and other layers refer to them by index.
    pub layers: Vec<Layer>,
    /// Records; they refer to each other by index.
    pub records: Vec<Record>,
}

/// A blob on top of another layer. One blob may stand on several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob.
    pub blob: Digest,
    /// The layer below, or none for the lowest.
    pub parent: Option<usize>,
}

/// A step, what it needs, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The step without its inputs: not unique.
    pub digest: RecordDigest,
    /// All inputs are needed; of each, any one link. Never an empty list.
    pub inputs: Vec<Vec<Link>>,
    /// Results that are a layer with all below it.
    pub results: Vec<(usize, Option<Timestamp>)>,
    /// Results that list their layers, the lowest first.
    pub chains: Vec<Chain>,
}

impl Record {
    /// Every result: its topmost layer, if any, and when the step ran.
    pub fn made(&self) -> impl Iterator<Item = (Option<usize>, Option<Timestamp>)> {
        let single = self
            .results
            .iter()
            .map(|(layer, created_at)| (Some(*layer), *created_at));
        let chains = self
            .chains
            .iter()
            .map(|chain| (chain.layers.last().copied(), chain.created_at));
        single.chain(chains)
    }

    /// When its newest result was made, which is the one that BuildKit takes.
    pub fn created_at(&self) -> Option<Timestamp> {
        self.made().filter_map(|(_, created_at)| created_at).max()
    }
}

/// One alternative for an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which part of the other's result is used; mostly empty.
    pub selector: Box<str>,
    /// The other record.
    pub record: usize,
}

/// A result that lists its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The layers, the lowest first.
    pub layers: Vec<usize>,
    /// When the step ran.
    pub created_at: Option<Timestamp>,
}

impl Config {
    /// Parses and checks.
    pub fn parse(json: &[u8]) -> Result<Self, GraphError> {
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
        Self::check(config)
    }

    /// The blobs of all layers, each once.
    pub fn blobs(&self) -> HashSet<Digest> {
        self.layers.iter().map(|layer| layer.blob).collect()
    }

    /// Every result that is dated: its record, and when it was made.
    pub fn results(&self) -> BTreeSet<(RecordDigest, Timestamp)> {
        let dated = self.records.iter().flat_map(|record| {
            let dates = record.made().filter_map(|(_, created_at)| created_at);
            dates.map(|created_at| (record.digest.clone(), created_at))
        });
        dated.collect()
    }

    fn check(config: wire::Config) -> Result<Self, GraphError> {
        let counts = Counts {
            layers: config.layers.0.len(),
            records: config.records.0.len(),
        };
        let layers = config
            .layers
            .into_objects()
            .enumerate()
            .map(|(at, layer)| counts.layer(at, layer));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let records = config
            .records
            .into_objects()
            .enumerate()
            .map(|(at, record)| counts.record(at, record));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let links = records
            .iter()
            .map(|record| record.inputs.iter().flatten().map(|link| link.record));
        let cycle = |what, edges: Edges| match edges.cycle() {
            Some(index) => Err(GraphError::Cycle { what, index }),
            None => Ok(()),
        };
        cycle("layer", Edges::new(layers.iter().map(|layer| layer.parent)))?;
        cycle("record", Edges::new(links))?;
        Ok(Self { layers, records })
    }
}

/// How many there are to refer to.
struct Counts {
    layers: usize,
    records: usize,
}

impl Counts {
    fn layer(&self, at: usize, layer: wire::Layer) -> Result<Layer, GraphError> {
        let parent = match layer.parent.unwrap_or(0) {
            -1 => None,
            index => Some(in_range(("layer", at), ("layer", self.layers), index)?),
        };
        Ok(Layer {
            blob: layer.blob,
            parent,
        })
    }

    fn record(&self, at: usize, record: wire::Record) -> Result<Record, GraphError> {
        let layer = |index| in_range(("record", at), ("layer", self.layers), index);
        let inputs = record
            .inputs
            .0
            .into_iter()
            .enumerate()
            .map(|(input, links)| self.input(at, input, links));
        let results = record
            .layers
            .into_objects()
            .map(|result| Ok((layer(result.layer.unwrap_or(0))?, result.created_at)));
        let chains = record.chains.into_objects().map(|chain| {
            let layers = chain
                .layers
                .0
                .into_iter()
                .map(layer)
                .collect::<Result<_, _>>()?;
            Ok(Chain {
                layers,
                created_at: chain.created_at,
            })
        });
        Ok(Record {
            digest: record.digest,
            inputs: inputs.collect::<Result<_, _>>()?,
            results: results.collect::<Result<_, GraphError>>()?,
            chains: chains.collect::<Result<_, GraphError>>()?,
        })
    }

    fn input<const MAX: usize>(
        &self,
        record: usize,
        input: usize,
        links: Objects<wire::Link, MAX>,
    ) -> Result<Vec<Link>, GraphError> {
        if links.0.is_empty() {
            return Err(GraphError::EmptyInput { record, input });
        }
        let link = |link: wire::Link| {
            let to = in_range(
                ("record", record),
                ("record", self.records),
                link.link.unwrap_or(0),
            )?;
            Ok(Link {
                selector: link.selector.unwrap_or_default(),
                record: to,
            })
        };
        links.into_objects().map(link).collect()
    }
}

/// The index, if what it refers to is there.
fn in_range(
    (what, from): (&'static str, usize),
    (to_what, count): (&'static str, usize),
    index: i64,
) -> Result<usize, GraphError> {
    usize::try_from(index)
        .ok()
        .filter(|index| *index < count)
        .ok_or(GraphError::OutOfRange {
            what,
            from,
            to_what,
            index,
            count,
        })
}
