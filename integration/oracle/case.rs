//! A set of cache configs, in a form that can be made up and made smaller.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Several exports of one project.
#[derive(Clone, Debug)]
pub struct Case {
    /// What decides orders and queries.
    pub seed: u64,
    /// The exports.
    pub exports: Vec<Export>,
}

/// What one build exported.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Its records, in no order.
    pub steps: Vec<Step>,
    /// Whether results list their layers, or name the top one.
    pub chains: bool,
}

/// A record.
#[derive(Clone, Debug)]
pub struct Step {
    /// The operation, which names no inputs. With the prefix `random:` it is
    /// one that BuildKit never caches.
    pub op: String,
    /// All inputs are needed, of each any one link.
    pub inputs: Vec<Vec<Link>>,
    /// Its results.
    pub results: Vec<Outcome>,
}

/// What one input may be.
#[derive(Clone, Debug)]
pub struct Link {
    /// Which part of it; mostly empty.
    pub selector: String,
    /// The step's index in its export. May be out of range in broken exports.
    pub to: usize,
}

/// A result.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Names of its layers, the lowest first.
    pub layers: Vec<String>,
    /// Half seconds since some day.
    pub at: Option<u64>,
}

impl Case {
    /// The configs as BuildKit would have written them.
    pub fn configs(&self) -> Vec<Vec<u8>> {
        let text = |export: &Export| serde_json::to_vec(&export.config()).expect("JSON");
        self.exports.iter().map(text).collect()
    }

    /// By digest, what is behind it.
    pub fn names(&self) -> BTreeMap<String, String> {
        let steps = self.exports.iter().flat_map(|export| &export.steps);
        let mut names = BTreeMap::new();
        for step in steps {
            names.insert(record_digest(&step.op), step.op.clone());
            for layer in step.results.iter().flat_map(|result| &result.layers) {
                names.insert(digest(layer), layer.clone());
            }
        }
        names
    }
}

impl Export {
    fn config(&self) -> Value {
        let mut layers = Layers::default();
        let records: Vec<Value> = self
            .steps
            .iter()
            .map(|step| self.record(step, &mut layers))
            .collect();
        json!({"layers": layers.entries, "records": records})
    }

    fn record(&self, step: &Step, layers: &mut Layers) -> Value {
        let link = |link: &Link| {
            let mut entry = json!({"link": link.to});
            if !link.selector.is_empty() {
                entry["selector"] = json!(link.selector);
            }
            entry
        };
        let inputs: Vec<Vec<Value>> = step
            .inputs
            .iter()
            .map(|links| links.iter().map(link).collect())
            .collect();
        let mut record = json!({"digest": record_digest(&step.op)});
        if !inputs.is_empty() {
            record["inputs"] = json!(inputs);
        }
        let key = if self.chains { "chains" } else { "layers" };
        let results: Vec<Value> = step
            .results
            .iter()
            .map(|result| {
                let chain = layers.add(&result.layers);
                let mut entry = match self.chains {
                    true => json!({"layers": chain}),
                    false => json!({"layer": chain.last()}),
                };
                if let Some(at) = result.at {
                    entry["createdAt"] = json!(time(at));
                }
                entry
            })
            .collect();
        if !results.is_empty() {
            record[key] = json!(results);
        }
        record
    }
}

#[derive(Default)]
struct Layers {
    entries: Vec<Value>,
    known: HashMap<(String, i64), usize>,
}

impl Layers {
    /// The indexes of a chain, each layer on top of the one before.
    fn add(&mut self, chain: &[String]) -> Vec<usize> {
        let mut parent = -1;
        let mut indexes = Vec::new();
        for name in chain {
            let entries = &mut self.entries;
            let at = *self.known.entry((name.clone(), parent)).or_insert_with(|| {
                let annotations = json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "diffID": digest(&format!("{name}, unpacked")),
                    "size": 1000,
                    "createdAt": time(0),
                });
                entries.push(json!({
                    "blob": digest(name), "parent": parent, "annotations": annotations,
                }));
                entries.len() - 1
            });
            indexes.push(at);
            parent = i64::try_from(at).expect("few layers");
        }
        indexes
    }
}

fn time(half_seconds: u64) -> String {
    let fraction = if half_seconds.is_multiple_of(2) {
        ""
    } else {
        ".5"
    };
    let seconds = half_seconds / 2;
    format!(
        "2026-03-01T{:02}:{:02}:{:02}{fraction}Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// The digest of a text.
pub fn digest(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

/// A record stands for the first output of an operation (`outputKey` in
/// BuildKit's cache/remotecache/v1/utils.go).
fn record_digest(op: &str) -> String {
    match op.strip_prefix("random:") {
        Some(_) => digest(op).replace("sha256:", "random:"),
        None => digest(&format!("{}@0", digest(op))),
    }
}
