//! Exports like those of a real project, made up from a seed: one Dockerfile
//! with stages that several writers build on their branches.
//!
//! Steps that no branch touched are shared, and hit or run again; those below
//! a change differ. Copies have two inputs, contents are known by a digest of
//! their own beside the step that made them, some results are missing, and a
//! writer packs layers as it likes.

use std::collections::HashMap;

use serde_json::{Value, json};

/// How large the project is.
#[derive(Clone, Copy, Debug)]
pub struct Project {
    /// Stages of the Dockerfile.
    pub stages: u64,
    /// Steps of each stage.
    pub steps: u64,
    /// Branches that differ in some step.
    pub branches: u64,
    /// Steps of 100 that a branch changes.
    pub changed: u64,
    /// Steps of 100 that a writer runs again though another ran them.
    pub repeated: u64,
}

/// What a writer exports: a config, and its layers.
#[derive(Clone, Debug)]
pub struct Export {
    /// The cache config.
    pub config: String,
    /// Each of its layers.
    pub layers: Vec<Layer>,
}

/// What a manifest says of a layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The blob.
    pub digest: String,
    /// The media type.
    pub media_type: &'static str,
    /// Its uncompressed digest.
    pub diff_id: String,
    /// The time of creation.
    pub created_at: String,
}

/// The project's past: what ran, and what it gave.
#[derive(Debug)]
pub struct World {
    project: Project,
    random: Random,
    exports: u64,
    ran: HashMap<(u64, u64), (u64, u64)>,
}

/// A sequence of numbers that depends on its seed alone (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % limit.max(1)
    }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number for several.
fn hash(parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(7, |all, part| mix(all ^ mix(*part)).wrapping_add(*part))
}

/// The digest that goes by a number.
pub fn digest(number: u64) -> String {
    format!(
        "sha256:{:016x}{number:016x}{:016x}{:016x}",
        mix(number),
        mix(number + 1),
        mix(number + 2)
    )
}

fn time(second: u64) -> String {
    format!(
        "2026-01-{:02}T{:02}:{:02}:{:02}.5Z",
        1 + second / 86400 % 28,
        second / 3600 % 24,
        second / 60 % 60,
        second % 60
    )
}

/// A config in the making.
#[derive(Default)]
struct Draft {
    records: Vec<Value>,
    known: HashMap<u64, usize>,
    layers: Vec<Value>,
    described: Vec<Layer>,
    numbers: HashMap<(u64, i64), i64>,
}

impl Draft {
    /// The record with that key, made where it is new.
    fn record(&mut self, key: u64, make: impl FnOnce(&mut Self) -> Value) -> usize {
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let record = make(self);
        self.known.insert(key, self.records.len());
        self.records.push(record);
        self.records.len() - 1
    }

    fn layer(&mut self, blob: u64, parent: i64, created: u64, media_type: &'static str) -> i64 {
        if let Some(&known) = self.numbers.get(&(blob, parent)) {
            return known;
        }
        self.layers
            .push(json!({"blob": digest(blob), "parent": parent}));
        self.described.push(Layer {
            digest: digest(blob),
            media_type,
            diff_id: digest(hash(&[blob, 1])),
            created_at: time(created),
        });
        let number = self.layers.len() as i64 - 1;
        self.numbers.insert((blob, parent), number);
        number
    }
}

/// A step that was built: its key, its record, what it holds, its layer.
#[derive(Clone, Copy)]
struct Built {
    key: u64,
    record: usize,
    content: u64,
    layer: i64,
}

const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.v1.tar",
];

impl World {
    /// A project with no past.
    pub fn new(seed: u64, project: Project) -> Self {
        Self {
            project,
            random: Random(seed),
            exports: 0,
            ran: HashMap::new(),
        }
    }

    /// One more export, of a branch that chance picks.
    pub fn export(&mut self) -> Export {
        self.exports += 1;
        let branch = self.random.below(self.project.branches);
        let packing = self.random.below(MEDIA_TYPES.len() as u64);
        let mut draft = Draft::default();
        let mut stages: Vec<Built> = Vec::new();
        for stage in 0..self.project.stages {
            let mut at = self.base(&mut draft, stage);
            for step in 0..self.project.steps {
                at = self.step(&mut draft, (branch, stage, step), at, &stages, packing);
            }
            stages.push(at);
        }
        self.shuffle(&mut draft.records);
        Export {
            config: json!({"layers": draft.layers, "records": draft.records}).to_string(),
            layers: draft.described,
        }
    }

    fn base(&mut self, draft: &mut Draft, stage: u64) -> Built {
        let image = stage % 2;
        let key = hash(&[1, image]);
        let layer = draft.layer(hash(&[2, image]), -1, 0, MEDIA_TYPES[0]);
        let record = draft.record(key, |_| {
            json!({"digest": digest(key), "layers": [{"layer": layer, "createdAt": time(image)}]})
        });
        Built {
            key,
            record,
            content: key,
            layer,
        }
    }

    fn step(
        &mut self,
        draft: &mut Draft,
        (branch, stage, step): (u64, u64, u64),
        below: Built,
        stages: &[Built],
        packing: u64,
    ) -> Built {
        let changed = hash(&[3, branch, stage, step]) % 100 < self.project.changed;
        let version = if changed { branch + 1 } else { 0 };
        // Two versions of a step differ in text, and at times not in effect.
        let operation = hash(&[4, stage, step, version]);
        let effect = hash(&[5, stage, step, version / 2]);
        let mut inputs = vec![vec![json!({"link": below.record})]];
        let mut parts = vec![6, operation, below.key];
        if self.random.below(2) == 0 {
            inputs[0].push(json!({"link": contents(draft, below.content)}));
        }
        match hash(&[7, stage, step]) % 4 {
            0 => {
                let context = hash(&[8, stage, step, version]);
                inputs.push(vec![
                    json!({"selector": "/src", "link": contents(draft, context)}),
                ]);
                parts.push(context);
            }
            1 if !stages.is_empty() => {
                let from = stages[(hash(&[9, stage, step]) % stages.len() as u64) as usize];
                let mut other = vec![json!({"selector": "/out", "link": from.record})];
                if self.random.below(2) == 0 {
                    other.push(json!({"link": contents(draft, from.content)}));
                }
                inputs.push(other);
                parts.push(from.key);
            }
            _ => {}
        }
        let key = hash(&parts);
        let content = hash(&[10, effect, below.content]);
        let (blob, second) = self.run(key, packing);
        let layer = draft.layer(blob, below.layer, second, MEDIA_TYPES[packing as usize]);
        let bare = self.random.below(10) == 0;
        let record = draft.record(key, |_| {
            let mut record = json!({"digest": digest(operation), "inputs": inputs});
            if !bare {
                record["layers"] = json!([{"layer": layer, "createdAt": time(second)}]);
            }
            record
        });
        Built {
            key,
            record,
            content,
            layer,
        }
    }

    /// The blob and time of a step: those that are known, or new ones.
    fn run(&mut self, key: u64, packing: u64) -> (u64, u64) {
        let again = self.random.below(100) < self.project.repeated;
        let fresh = (
            hash(&[11, key, self.exports, packing]),
            self.exports * 60 + key % 60,
        );
        let known = self.ran.entry((key, packing)).or_insert(fresh);
        if again {
            *known = fresh;
        }
        *known
    }

    /// Puts records into another order; links follow.
    fn shuffle(&mut self, records: &mut Vec<Value>) {
        let mut order: Vec<usize> = (0..records.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        let mut places = vec![0; order.len()];
        for (place, &record) in order.iter().enumerate() {
            places[record] = place;
        }
        let mut shuffled: Vec<Value> = order.iter().map(|record| records[*record].take()).collect();
        for record in &mut shuffled {
            let inputs = record.get_mut("inputs").and_then(Value::as_array_mut);
            for link in inputs
                .into_iter()
                .flatten()
                .filter_map(Value::as_array_mut)
                .flatten()
            {
                let old = link["link"].as_u64().unwrap_or(0) as usize;
                link["link"] = json!(places[old]);
            }
        }
        *records = shuffled;
    }
}

/// The record that stands for contents, whatever made them.
fn contents(draft: &mut Draft, content: u64) -> usize {
    let key = hash(&[12, content]);
    draft.record(key, |_| json!({"digest": digest(key)}))
}
