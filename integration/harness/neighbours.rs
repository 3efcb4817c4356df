//! What other refs of a project have exported: made up, shaped like exports of
//! a real one, with layers that are there.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bytes::Bytes;
use layerd::cache::{Cache as _, Document, Form, Import, Limits, LocalCache, Publication, Want};
use layerd::digest::Digest;
use layerd::graph::{Descriptor, ExportSource, Manifest, Parsed, Union};
use layerd::place::Place;
use serde_json::Value;

#[path = "../../src/graph/union/generate.rs"]
mod generate;

use generate::{Export, Layer, Project, World};

/// Its chains have 2 to 20 layers, so 10 or so each.
const PROJECT: Project = Project {
    stages: 10,
    steps: 19,
    branches: 1_000,
    changed: 8,
    repeated: 10,
};

/// What a look-up of everything finds in this data directory, cut to `records`.
pub async fn found(data: &Path, records: u64) -> Import {
    look_up(&LocalCache::new(data), records).await
}

/// Publishes exports, each on a ref of its own, until the union of all has this
/// many records. Their layers have this many blobs, at most.
pub async fn publish(data: &Path, records: usize, blobs: usize) {
    let cache = LocalCache::new(data);
    let mut world = World::new(1, PROJECT);
    let mut blobs = Blobs::new(blobs);
    let mut union = Union::default();
    for number in 0.. {
        let export = publication(&cache, number, world.export(), &mut blobs).await;
        let config = Parsed::read(&export.config.bytes).expect("a config");
        union.add(&ExportSource {
            id: number,
            time: None,
            config: &config,
            layers: &[],
        });
        cache.publish(export).await.expect("it is published");
        if union.records() >= records {
            break;
        }
    }
}

async fn look_up(cache: &LocalCache, records: u64) -> Import {
    let want = Want {
        place: place("main"),
        fallbacks: Vec::new(),
        narrowed: false,
        not_before: None,
        compression: None,
        readable: None,
    };
    let limits = Limits {
        records,
        form: Form::Whole,
    };
    let found = cache.look_up(&[want], &limits).await;
    found
        .expect("it is found")
        .import()
        .expect("there is something")
}

fn place(git_ref: &str) -> Place {
    Place {
        project: Default::default(),
        git_ref: git_ref.parse().expect("a ref"),
        scope: Default::default(),
    }
}

/// The real blob of each layer that was made up.
struct Blobs {
    at_most: usize,
    all: Vec<Descriptor>,
    by_name: HashMap<String, usize>,
}

impl Blobs {
    fn new(at_most: usize) -> Self {
        Self {
            at_most,
            all: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// The blob of a layer; a new one goes to `cache`, and into `uploaded`.
    async fn of(
        &mut self,
        cache: &LocalCache,
        layer: Layer,
        uploaded: &mut BTreeSet<Digest>,
    ) -> Descriptor {
        if let Some(&known) = self.by_name.get(&layer.digest) {
            return self.all[known].clone();
        }
        let number = self.by_name.len() % self.at_most;
        self.by_name.insert(layer.digest.clone(), number);
        if number == self.all.len() {
            let blob = upload(cache, layer).await;
            uploaded.insert(blob.digest);
            self.all.push(blob);
        }
        self.all[number].clone()
    }
}

async fn upload(cache: &LocalCache, layer: Layer) -> Descriptor {
    let content = Bytes::from(layer.digest);
    let size = content.len() as u64;
    let ingest = cache.ingest(&Place::default(), &layer.diff_id, None).await;
    let mut ingest = ingest.expect("an ingest");
    ingest.write(content).await.expect("it is written");
    let (digest, _) = ingest.commit(None, None).await.expect("it is kept");
    let annotations = [
        ("containerd.io/uncompressed".to_owned(), layer.diff_id),
        ("buildkit/createdat".to_owned(), layer.created_at),
    ];
    Descriptor {
        media_type: layer.media_type.to_owned(),
        digest,
        size,
        annotations: annotations.into(),
    }
}

async fn publication(
    cache: &LocalCache,
    number: u64,
    export: Export,
    blobs: &mut Blobs,
) -> Publication {
    let mut uploaded = BTreeSet::new();
    let mut layers = HashMap::new();
    for layer in export.layers {
        let name = layer.digest.clone();
        layers.insert(name, blobs.of(cache, layer, &mut uploaded).await);
    }
    let mut config: Value = serde_json::from_str(&export.config).expect("a config");
    for layer in config["layers"].as_array_mut().expect("layers") {
        let name = layer["blob"].as_str().expect("a name");
        layer["blob"] = layers[name].digest.to_string().into();
    }
    let config = Document::new(config.to_string().into());
    let manifest = Manifest {
        config: Descriptor::of_config(config.digest, config.bytes.len() as u64),
        layers: layers.into_values().collect(),
    };
    let manifest = manifest.to_json().expect("a manifest");
    Publication {
        place: place(&format!("neighbour-{number}")),
        builder: format!("runner-{number}"),
        manifest: Document::new(manifest.into()),
        config,
        uploaded,
        steps: Vec::new(),
        readable: None,
        began: None,
    }
}
