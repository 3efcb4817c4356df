//! Archives between real stores.

mod hostile;
mod layout;
mod resume;
mod round_trip;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::blobs::{BlobStore, DiskStore};
use crate::cache::{Cache as _, Document, LocalCache, Publication};
use crate::catalog::{Catalog, Filter, Layer, SqliteCatalog};
use crate::digest::Digest;
use crate::graph::CONFIG_MEDIA_TYPE;
use crate::place::Place;
use crate::step::{Origin, Step, StepName};

/// A store on a disk.
struct Store {
    dir: TempDir,
    catalog: Arc<dyn Catalog>,
    blobs: Arc<dyn BlobStore>,
    cache: Arc<LocalCache>,
}

/// What is to be the same on the other side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    place: (String, String, String),
    builder: String,
    config: Bytes,
    layers: Vec<(Digest, u64, String)>,
    steps: Vec<(String, String)>,
}

impl Store {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(DiskStore::open(dir.path()).await.unwrap());
        let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
        let cache = LocalCache::over(Arc::clone(&catalog), Arc::clone(&blobs));
        Self {
            dir,
            catalog,
            blobs,
            cache: Arc::new(cache),
        }
    }

    /// An export with records of its own name, whose layers have those contents.
    async fn publish(&self, place: Place, name: &str, layers: &[Vec<u8>]) {
        let export = publication(place, name, layers);
        for layer in layers {
            let digest = Digest::of(layer);
            let place = &export.place;
            let mut ingest = self
                .cache
                .ingest(place, &digest.to_string(), None)
                .await
                .unwrap();
            ingest.restart().await.unwrap();
            ingest.write(layer.clone().into()).await.unwrap();
            ingest.commit(None, Some(digest)).await.unwrap();
        }
        self.cache.publish(export).await.unwrap();
    }

    async fn exported(&self, filter: Filter) -> Result<(File, Exported), ArchiveError> {
        let (catalog, blobs) = (Arc::clone(&self.catalog), Arc::clone(&self.blobs));
        let mut exports = Exports::open(catalog, blobs, filter).await.unwrap();
        written(&mut exports).await
    }

    /// All of it.
    async fn archive(&self) -> File {
        self.exported(Filter::default()).await.unwrap().0
    }

    async fn import(&self, archive: File) -> (Imported, Result<(), ArchiveError>) {
        self.import_to(archive, &Rehome::default()).await
    }

    async fn import_to(
        &self,
        mut archive: File,
        rehome: &Rehome,
    ) -> (Imported, Result<(), ArchiveError>) {
        archive.rewind().unwrap();
        let target = Target::store(Arc::clone(&self.cache));
        import(&target, archive, rehome, &Progress::default()).await
    }

    /// The exports, the oldest first.
    async fn seen(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for head in self.catalog.list(&Filter::default()).await.unwrap() {
            let export = self.catalog.get(head.id).await.unwrap().unwrap();
            let place = &head.place;
            let layer = |layer: &Layer| (layer.digest, layer.size, format!("{layer:?}"));
            seen.push(Seen {
                place: (
                    place.project.to_string(),
                    place.git_ref.to_string(),
                    place.scope.to_string(),
                ),
                builder: head.builder,
                config: export.config,
                layers: export.layers.iter().map(layer).collect(),
                steps: export
                    .steps
                    .iter()
                    .map(|step| (step.record.to_string(), format!("{step:?}")))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
            });
        }
        seen.reverse();
        seen
    }

    /// Whether every layer of every export is there, with the right bytes.
    async fn assert_sound(&self) {
        let blobs = DiskStore::at(self.dir.path());
        let report = crate::cache::check::check(&blobs, Some(&blobs), &*self.catalog, 1, &|_| {})
            .await
            .unwrap();
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }
}

async fn written(source: &mut dyn Source) -> Result<(File, Exported), ArchiveError> {
    let out = tempfile::tempfile().unwrap();
    let (mut out, exported) = export(source, out, &Progress::default()).await?;
    out.rewind().unwrap();
    Ok((out, exported))
}

fn place(project: &str, git_ref: &str) -> Place {
    Place {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        scope: Default::default(),
    }
}

fn publication(place: Place, name: &str, layers: &[Vec<u8>]) -> Publication {
    let at = "2026-11-22T05:23:18.123456789Z";
    let record = |at: usize| Digest::of(format!("{name} {at}").as_bytes());
    let chain: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(at, layer)| json!({"blob": Digest::of(layer), "parent": at as i64 - 1}))
        .collect();
    let records: Vec<_> = (0..layers.len())
        .map(|number| {
            let result = json!([{"layer": number, "createdAt": at}]);
            match number {
                0 => json!({"digest": record(0), "layers": result}),
                _ => json!({"digest": record(number), "layers": result, "inputs": [[{"link": number - 1}]]}),
            }
        })
        .collect();
    let config = json!({"layers": chain, "records": records}).to_string();
    let config = Document::new(config.into());
    let described = |layer: &Vec<u8>| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": Digest::of(layer), "size": layer.len(),
            "annotations": {"containerd.io/uncompressed": Digest::of(b"diff"), "buildkit/createdat": at, "org.example/ü": "\"x\""},
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": config.digest, "size": config.bytes.len()},
        "layers": layers.iter().map(described).collect::<Vec<_>>(),
    });
    let step = |number: usize| Step {
        record: record(number).to_string().parse().unwrap(),
        created_at: at.parse::<Timestamp>().unwrap(),
        name: StepName::of(&format!("[{number}] RUN {name}")),
        duration: Duration::from_millis(number as u64),
        origin: Some(Origin {
            builder: "runner-1".to_owned(),
            daemon: (number > 0).then(|| "daemon".to_owned()),
        }),
    };
    Publication {
        place,
        builder: format!("builder-of-{name}"),
        manifest: Document::new(manifest.to_string().into()),
        config,
        uploaded: layers.iter().map(|layer| Digest::of(layer)).collect(),
        steps: (0..layers.len()).map(step).collect(),
        readable: None,
        began: None,
    }
}

/// A layer that can't be compressed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    use rand::{Rng as _, SeedableRng as _};
    let mut bytes = vec![0; size];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// An archive taken apart by other means than ours.
#[derive(Clone, Debug)]
struct Taken {
    entries: Vec<(String, Vec<u8>)>,
}

impl Taken {
    fn of(mut archive: File) -> Self {
        archive.rewind().unwrap();
        let mut tar = tar::Archive::new(zstd::Decoder::new(archive).unwrap());
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        });
        Self {
            entries: entries.collect(),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let entry = self.entries.iter().find(|(known, _)| known == name);
        serde_json::from_slice(&entry.unwrap().1).unwrap()
    }

    fn blob(&self, digest: &str) -> Option<&[u8]> {
        let name = format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
        let entry = self.entries.iter().find(|(known, _)| *known == name);
        entry.map(|(_, bytes)| bytes.as_slice())
    }

    /// Put together again.
    fn archive(&self) -> File {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.entries {
            tar.append(&header(name, bytes.len() as u64), bytes.as_slice())
                .unwrap();
        }
        compressed(&tar.into_inner().unwrap())
    }
}

/// The header of a plain file, whatever its name.
fn header(name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn compressed(tar: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = zstd::encode_all(tar, 1).unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    file
}
