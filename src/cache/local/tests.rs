//! The embedded cache from the outside, on a real directory.

mod bound;
mod collect;
mod copies;
mod faults;
mod flushed;
mod isolated;
mod named;
mod pinned;
mod repaired;
mod steps;
mod subsumed;
mod suspicion;
mod unions;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::cache::check::{Problem, check};
use crate::cache::{Documents, Form};
use crate::catalog::{ExportId, SqliteCatalog};
use crate::graph::{CONFIG_MEDIA_TYPE, Descriptor};
use crate::place::Place;

fn cache() -> (TempDir, LocalCache) {
    let dir = TempDir::new().unwrap();
    let cache = LocalCache::new(dir.path().join("data"));
    (dir, cache)
}

fn place(project: &str, git_ref: &str) -> Place {
    Place {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        scope: Default::default(),
    }
}

fn want(git_ref: &str, fallbacks: &[&str]) -> Want {
    Want {
        place: place("p", git_ref),
        fallbacks: fallbacks
            .iter()
            .map(|git_ref| git_ref.parse().unwrap())
            .collect(),
        narrowed: false,
        not_before: None,
        compression: None,
        readable: None,
    }
}

/// Whatever there is, as a session carries it.
const ALL: Limits = Limits {
    records: u64::MAX,
    form: Form::Parts {
        max_bytes: usize::MAX,
    },
};

/// The manifest of an import, and its config.
fn parts(import: &Import) -> (Manifest, Config) {
    let Documents::Parts { manifest, config } = &import.documents else {
        panic!("it was asked for in parts")
    };
    let manifest = Manifest::parse(&manifest.bytes).unwrap();
    let config = manifest.parse_config(&config.bytes).unwrap();
    (manifest, config)
}

fn blob_file(dir: &TempDir, content: &str) -> std::path::PathBuf {
    dir.path()
        .join("data/blobs/sha256")
        .join(Digest::of(content.as_bytes()).hex())
}

async fn upload(cache: &LocalCache, project: &str, content: &str) -> Digest {
    upload_to(cache, place(project, "main"), content).await
}

async fn upload_to(cache: &LocalCache, place: Place, content: &str) -> Digest {
    let mut ingest = cache.ingest(&place, content, None).await.unwrap();
    ingest
        .write(Bytes::copy_from_slice(content.as_bytes()))
        .await
        .unwrap();
    ingest.commit(None, None).await.unwrap().0
}

/// An export whose layers stand on each other, none of them uploaded yet.
fn export(place: Place, layers: &[&str]) -> Publication {
    let digests: Vec<Digest> = layers
        .iter()
        .map(|content| Digest::of(content.as_bytes()))
        .collect();
    let chain: Vec<_> = digests
        .iter()
        .enumerate()
        .map(|(at, digest)| json!({"blob": digest, "parent": at as i64 - 1}))
        .collect();
    let record = |(at, digest): (usize, &Digest)| match at {
        0 => json!({"digest": digest, "layers": [{"layer": 0}]}),
        _ => json!({"digest": digest, "layers": [{"layer": at}], "inputs": [[{"link": at - 1}]]}),
    };
    let records: Vec<_> = digests.iter().enumerate().map(record).collect();
    let config = Document::new(
        json!({"layers": chain, "records": records})
            .to_string()
            .into(),
    );
    let descriptor = |content: &&str| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(content.as_bytes()), "size": content.len(),
            "annotations": {"containerd.io/uncompressed": Digest::of(b"diff"), "buildkit/createdat": "2026-11-22T05:23:18.5Z"},
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": config.digest, "size": config.bytes.len()},
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    let manifest = Document::new(manifest.to_string().into());
    Publication {
        place,
        builder: "runner-1".to_owned(),
        manifest,
        config,
        uploaded: BTreeSet::new(),
        steps: Vec::new(),
        readable: None,
        began: None,
    }
}

async fn publish(cache: &LocalCache, place: Place, layers: &[&str]) -> ExportId {
    let mut publication = export(place, layers);
    for content in layers {
        publication
            .uploaded
            .insert(upload(cache, publication.place.project.as_str(), content).await);
    }
    cache.publish(publication).await.unwrap().id.unwrap()
}

async fn found(cache: &LocalCache, wants: &[Want]) -> Option<ExportId> {
    cache
        .look_up(wants, &ALL)
        .await
        .unwrap()
        .import()
        .and_then(|import| import.export)
}

/// The layers that an import names, by their content.
async fn seen(cache: &LocalCache, wants: &[Want], contents: &[&str]) -> String {
    let import = cache.look_up(wants, &ALL).await.unwrap().import();
    let layers = import.map(|import| import.layers).unwrap_or_default();
    let named = contents
        .iter()
        .filter(|content| layers.contains_key(&Digest::of(content.as_bytes())));
    let named: String = named.copied().collect();
    assert_eq!(named.len(), layers.len(), "{layers:?}");
    named
}

#[tokio::test]
async fn a_published_export_is_served_with_all_that_it_holds() {
    let (_dir, cache) = cache();
    cache.writable(&Place::default()).await.unwrap();
    assert_eq!(found(&cache, &[want("main", &[])]).await, None);
    let id = publish(&cache, place("p", "main"), &["base", "top"]).await;

    let import = cache
        .look_up(&[want("main", &[])], &ALL)
        .await
        .unwrap()
        .import()
        .unwrap();
    let made_of = (import.export, import.exports, import.builders);
    assert_eq!(made_of, (Some(id), 1, 1));
    assert_eq!((import.records, import.withdrawn.len()), (2, 0));
    let exported = export(place("p", "main"), &["base", "top"]);
    let exported = Manifest::parse(&exported.manifest.bytes).unwrap();
    let (manifest, config) = parts(&import);
    let by_digest = |layers: &[Descriptor]| {
        let layers = layers.iter().map(|layer| (layer.digest, layer.clone()));
        layers.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(by_digest(&manifest.layers), by_digest(&exported.layers));
    assert_eq!(config.records.len(), 2);
    let layers = BTreeMap::from([(Digest::of(b"base"), 4), (Digest::of(b"top"), 3)]);
    assert_eq!(*import.layers, layers);
    let stream = cache.read(&Digest::of(b"base"), 1, 2).await.unwrap();
    assert_eq!(stream.try_collect::<BytesMut>().await.unwrap(), "as");
}

#[tokio::test]
async fn layers_that_cannot_be_delivered_are_withdrawn() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base", "gone", "short"]).await;
    fs::remove_file(blob_file(&dir, "gone")).unwrap();
    fs::write(blob_file(&dir, "short"), "s").unwrap();
    let import = cache
        .look_up(&[want("main", &[])], &ALL)
        .await
        .unwrap()
        .import()
        .unwrap();
    let withdrawn = BTreeSet::from([Digest::of(b"gone"), Digest::of(b"short")]);
    assert_eq!(
        BTreeSet::from_iter(import.withdrawn.iter().copied()),
        withdrawn
    );
    assert_eq!(*import.layers, BTreeMap::from([(Digest::of(b"base"), 4)]));
    assert_eq!(parts(&import).0.layers.len(), 1);
    assert_eq!(import.records, 1, "what leads to no result is not served");
    assert!(
        cache
            .holds(&place("p", "main"), &Digest::of(b"gone"))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        cache
            .holds(&place("p", "main"), &Digest::of(b"short"))
            .await
            .unwrap()
            .is_none(),
        "so that it is uploaded anew"
    );
    assert!(
        cache
            .holds(&place("p", "main"), &Digest::of(b"base"))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn an_export_whose_blobs_are_all_gone_is_passed_over() {
    let (dir, cache) = cache();
    let older = publish(&cache, place("p", "main"), &["old"]).await;
    let elsewhere = publish(&cache, place("p", "dev"), &["dev"]).await;
    let newer = publish(&cache, place("p", "main"), &["new"]).await;
    fs::remove_file(blob_file(&dir, "new")).unwrap();
    assert_eq!(
        found(&cache, &[want("main", &["dev"])]).await,
        Some(elsewhere)
    );
    fs::remove_file(blob_file(&dir, "old")).unwrap();
    let narrowed = Want {
        narrowed: true,
        ..want("main", &[])
    };
    let lost = cache.look_up(&[narrowed], &ALL).await;
    assert!(matches!(lost, Err(CacheError::Lost(exports)) if exports == [older, newer]));
    fs::remove_file(blob_file(&dir, "dev")).unwrap();
    let lost = cache.look_up(&[want("main", &["dev"])], &ALL).await;
    assert!(matches!(lost, Err(CacheError::Lost(exports)) if exports.len() == 3));
}

#[tokio::test]
async fn an_export_names_only_what_was_uploaded_or_is_held() {
    let (_dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;

    // Held by the project: nothing has to be uploaded.
    cache
        .publish(export(place("p", "dev"), &["base"]))
        .await
        .unwrap();

    // Held by another project only: its existence buys nothing.
    let refused = cache.publish(export(place("q", "main"), &["base"])).await;
    assert!(
        matches!(refused, Err(CacheError::Missing(missing)) if missing == [Digest::of(b"base")])
    );
    assert!(
        cache
            .holds(&place("q", "main"), &Digest::of(b"base"))
            .await
            .unwrap()
            .is_none()
    );

    // Said to be uploaded, but not there.
    let mut lie = export(place("p", "main"), &["base", "never"]);
    lie.uploaded.insert(Digest::of(b"never"));
    assert!(
        matches!(cache.publish(lie).await, Err(CacheError::Missing(missing)) if missing == [Digest::of(b"never")])
    );
    assert_eq!(
        cache
            .look_up(
                &[Want {
                    place: place("q", "main"),
                    fallbacks: vec![],
                    narrowed: false,
                    not_before: None,
                    compression: None,
                    readable: None,
                }],
                &ALL
            )
            .await
            .unwrap()
            .import()
            .map(|_| ()),
        None
    );
}

#[tokio::test]
async fn what_is_no_cache_export_is_refused_and_nothing_stored() {
    let (_dir, cache) = cache();
    let mut other_config = export(place("p", "main"), &["base"]);
    other_config.config = Document::new(Bytes::from_static(b"{}"));
    assert!(matches!(
        cache.publish(other_config).await,
        Err(CacheError::Graph(GraphError::WrongConfig { .. }))
    ));
    let mut no_manifest = export(place("p", "main"), &["base"]);
    no_manifest.manifest = Document::new(Bytes::from_static(b"{}"));
    assert!(matches!(
        cache.publish(no_manifest).await,
        Err(CacheError::Graph(GraphError::NotACacheManifest))
    ));
    assert_eq!(found(&cache, &[want("main", &[])]).await, None);
}

#[tokio::test]
async fn uploads_of_two_projects_never_meet() {
    let (_dir, cache) = cache();
    let mut ingest = cache
        .ingest(&place("p", "main"), "layer", None)
        .await
        .unwrap();
    ingest.write(Bytes::from_static(b"secret")).await.unwrap();
    drop(ingest);
    assert_eq!(
        cache
            .ingest(&place("q", "main"), "layer", None)
            .await
            .unwrap()
            .offset(),
        0
    );
    assert_eq!(
        cache
            .ingest(&place("p", "main"), "layer", None)
            .await
            .unwrap()
            .offset(),
        6
    );
}

async fn problems(dir: &Path) -> (Vec<Problem>, usize, usize) {
    let (blobs, catalog) = (DiskStore::at(dir), SqliteCatalog::open(dir).await.unwrap());
    let report = check(&blobs, Some(&blobs), &catalog, 4, &|_| ())
        .await
        .unwrap();
    (
        report.problems,
        report.unreferenced.len(),
        report.stale_ingests.len(),
    )
}

#[tokio::test]
async fn a_check_of_a_sound_directory_finds_nothing() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base", "top"]).await;
    publish(&cache, place("q", "main"), &["base"]).await;
    upload(&cache, "p", "never exported").await;
    let mut left = cache
        .ingest(&place("p", "main"), "left", None)
        .await
        .unwrap();
    left.write(Bytes::from_static(b"behind")).await.unwrap();
    let data = dir.path().join("data");
    assert_eq!(
        problems(&data).await,
        (vec![], 1, 0),
        "an upload that is under way is not stale"
    );
    drop(left);
    assert_eq!(problems(&data).await, (vec![], 1, 1));
}

#[tokio::test]
async fn a_check_tells_what_is_corrupt_short_or_missing_and_who_names_it() {
    let (dir, cache) = cache();
    let first = publish(&cache, place("p", "main"), &["aaaa", "bbbb"]).await;
    let second = publish(&cache, place("p", "dev"), &["bbbb", "cccc"]).await;
    fs::write(blob_file(&dir, "aaaa"), "aaab").unwrap();
    fs::write(blob_file(&dir, "bbbb"), "b").unwrap();
    fs::remove_file(blob_file(&dir, "cccc")).unwrap();
    let (found, ..) = problems(&dir.path().join("data")).await;
    let digest = |content: &str| Digest::of(content.as_bytes());
    let expected = [
        Problem::Corrupt {
            digest: digest("aaaa"),
            actual: digest("aaab"),
            exports: vec![first],
        },
        Problem::WrongSize {
            digest: digest("bbbb"),
            expected: 4,
            actual: 1,
            exports: vec![first, second],
        },
        Problem::Missing {
            digest: digest("cccc"),
            size: 4,
            exports: vec![second],
        },
    ];
    assert_eq!(found.len(), expected.len());
    assert!(
        expected.iter().all(|problem| found.contains(problem)),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_blob_that_has_rotted_is_withdrawn_and_mended_by_the_next_upload() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["layer"]).await;
    let digest = Digest::of(b"layer");
    let file = blob_file(&dir, "layer");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "LAYER").unwrap();
    let found = cache.verify(&digest).await;
    assert!(matches!(
        found,
        Err(CacheError::Blob(BlobError::WrongDigest { .. }))
    ));
    let held = cache.holds(&place("p", "main"), &digest).await.unwrap();
    assert_eq!(held, None, "so that it is uploaded again");
    publish(&cache, place("p", "main"), &["layer"]).await;
    cache.verify(&digest).await.unwrap();
}
