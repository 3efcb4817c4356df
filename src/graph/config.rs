//! A cache config: layers on top of each other, and the records whose results
//! they are.

use std::collections::HashSet;

use jiff::Timestamp;

use super::acyclic::Edges;
use super::digests::RecordDigest;
use super::limits::MAX_CONFIG_BYTES;
use super::{GraphError, wire};
use crate::digest::Digest;

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
        let config: wire::Config = serde_json::from_slice(json)
            .map_err(|source| GraphError::Malformed { what, source })?;
        Self::check(config)
    }

    /// The blobs of all layers, each once.
    pub fn blobs(&self) -> HashSet<Digest> {
        self.layers.iter().map(|layer| layer.blob).collect()
    }

    fn check(config: wire::Config) -> Result<Self, GraphError> {
        let (layer_count, record_count) = (config.layers.0.len(), config.records.0.len());
        let layers = (0..)
            .zip(config.layers.0)
            .map(|(at, layer)| layer_of(at, layer, layer_count))
            .collect::<Result<Vec<_>, _>>()?;
        let records = (0..)
            .zip(config.records.0)
            .map(|(at, record)| record_of(at, record, layer_count, record_count))
            .collect::<Result<Vec<_>, _>>()?;

        if let Some(index) = Edges::new(layers.iter().map(|layer| layer.parent)).cycle() {
            return Err(GraphError::Cycle {
                what: "layer",
                index,
            });
        }
        let links = |record: &Record| {
            record
                .inputs
                .iter()
                .flatten()
                .map(|link| link.record)
                .collect::<Vec<_>>()
        };
        if let Some(index) = Edges::new(records.iter().map(links)).cycle() {
            return Err(GraphError::Cycle {
                what: "record",
                index,
            });
        }
        Ok(Self { layers, records })
    }
}

fn layer_of(at: usize, layer: wire::Layer, count: usize) -> Result<Layer, GraphError> {
    let parent = match layer.parent.unwrap_or(0) {
        -1 => None,
        index => Some(in_range(("layer", at), "layer", index, count)?),
    };
    Ok(Layer {
        blob: layer.blob,
        parent,
    })
}

fn record_of(
    at: usize,
    record: wire::Record,
    layers: usize,
    records: usize,
) -> Result<Record, GraphError> {
    let from = ("record", at);
    let link_of = |link: wire::Link| {
        let record = in_range(from, "record", link.link.unwrap_or(0), records)?;
        Ok(Link {
            selector: link.selector.unwrap_or_default(),
            record,
        })
    };
    let input_of = |(input, links): (usize, wire::Bounded<wire::Link, _>)| match links.0.is_empty()
    {
        true => Err(GraphError::EmptyInput { record: at, input }),
        false => links.0.into_iter().map(link_of).collect(),
    };
    let layer = |index| in_range(from, "layer", index, layers);
    let result_of =
        |result: wire::LayerResult| Ok((layer(result.layer.unwrap_or(0))?, result.created_at));
    let chain_of = |chain: wire::ChainResult| {
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
    };
    Ok(Record {
        digest: record.digest,
        inputs: record
            .inputs
            .0
            .into_iter()
            .enumerate()
            .map(input_of)
            .collect::<Result<_, _>>()?,
        results: record
            .layers
            .0
            .into_iter()
            .map(result_of)
            .collect::<Result<_, GraphError>>()?,
        chains: record
            .chains
            .0
            .into_iter()
            .map(chain_of)
            .collect::<Result<_, GraphError>>()?,
    })
}

fn in_range(
    (what, from): (&'static str, usize),
    to_what: &'static str,
    index: i64,
    count: usize,
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
