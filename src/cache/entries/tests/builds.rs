//! What BuildKit saves is what any other door stores.

use serde_json::{Value, json};

use super::*;
use crate::cache::{Cache as _, Form, Limits, Want};
use crate::catalog::Kind;
use crate::graph::{Config, Manifest};
use crate::place::Place;

pub(super) fn buildkit(key: &str) -> EntryName {
    EntryName {
        key: key.parse().unwrap(),
        version: BUILDKIT_VERSION.parse().unwrap(),
    }
}

pub(super) fn blob(content: &str) -> EntryName {
    let digest = Digest::of(content.as_bytes());
    buildkit(&format!("buildkit-blob-1-{digest}"))
}

pub(super) fn index(git_ref: &str, rest: &str) -> EntryName {
    let hash = Digest::of(self::git_ref(git_ref).as_str().as_bytes()).hex();
    buildkit(&format!("index-buildkit-1-{}{rest}", &hash[..8]))
}

/// As BuildKit writes it: each layer stands on the one before.
pub(super) fn config(layers: &[&str]) -> Vec<u8> {
    let layer = |(at, content): (usize, &&str)| {
        json!({
            "blob": Digest::of(content.as_bytes()),
            "parent": at as i64 - 1,
            "annotations": {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "diffID": Digest::of(b"diff"),
                "size": content.len(),
                "createdAt": "2026-11-22T05:23:18.5Z",
            },
        })
    };
    let record = |(at, content): (usize, &&str)| {
        let digest = Digest::of(format!("record {content}").as_bytes());
        json!({
            "digest": digest,
            "layers": [{"layer": at, "createdAt": "2026-11-22T05:23:18.5Z"}],
        })
    };
    let layers_of: Vec<Value> = layers.iter().enumerate().map(layer).collect();
    let records: Vec<Value> = layers.iter().enumerate().map(record).collect();
    json!({"layers": layers_of, "records": records})
        .to_string()
        .into_bytes()
}

async fn save_as(
    hub: &Hub,
    guard: &Guard,
    git_ref: &str,
    name: &EntryName,
    content: &[u8],
) -> Result<Finalized, EntryError> {
    let id = reserved(guard, git_ref, name).await;
    hub.put(id, Piece::Whole, content).await?;
    finalized(guard, id, content.len()).await
}

async fn export(
    hub: &Hub,
    guard: &Guard,
    git_ref: &str,
    layers: &[&str],
) -> Result<Finalized, EntryError> {
    for layer in layers {
        if find_as(guard, &[git_ref], &blob(layer)).await.is_none() {
            save_as(hub, guard, git_ref, &blob(layer), layer.as_bytes()).await?;
        }
    }
    let name = index(git_ref, "#1");
    save_as(hub, guard, git_ref, &name, &config(layers)).await
}

fn blobs(document: &[u8]) -> Vec<Digest> {
    let config = Config::parse(document).unwrap();
    let mut blobs: Vec<Digest> = config.blobs().into_iter().collect();
    blobs.sort_unstable();
    blobs
}

fn digests(contents: &[&str]) -> Vec<Digest> {
    let digests = contents
        .iter()
        .map(|content| Digest::of(content.as_bytes()));
    let mut digests: Vec<Digest> = digests.collect();
    digests.sort_unstable();
    digests
}

#[tokio::test]
async fn an_index_becomes_an_export_like_that_of_any_door() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let done = export(&hub, &guard, "main", &["one", "two"]).await.unwrap();
    let Became::Cache(id) = done.became else {
        panic!("{done:?}")
    };
    let listed = lab.listed().await;
    assert_eq!((listed.len(), listed[0].id), (1, id));
    assert_eq!((listed[0].kind, listed[0].records), (Kind::Cache, 2));
    assert_eq!(listed[0].place.scope.as_str(), "buildkit");
    // Any door serves it.
    let want = Want::all_of(listed[0].place.clone());
    let limits = Limits {
        records: u64::MAX,
        form: Form::Parts {
            max_bytes: usize::MAX,
        },
    };
    let import = hub.local.look_up(&[want], &limits).await.unwrap();
    let import = import.import().unwrap();
    assert_eq!(import.layers.len(), 2);
    // And this one what any door has exported, of every ref.
    export(&hub, &guard, "dev", &["two", "three"])
        .await
        .unwrap();
    let refs = ["topic", "main"];
    let Some(Found::Index(found)) = find_as(&guard, &refs, &index("topic", "")).await else {
        panic!("there is a union")
    };
    assert_eq!(found.key.as_str(), format!("{}#1", index("topic", "").key));
    assert_eq!(blobs(&found.document), digests(&["one", "two", "three"]));
    Manifest::of_whole(&found.document).unwrap();
    // Once only, or BuildKit loses hits; and no number is taken.
    assert!(find_as(&guard, &refs, &index("main", "")).await.is_none());
    assert!(find_as(&guard, &refs, &index("topic", "#")).await.is_none());
    let layer = find_as(&guard, &refs, &blob("three")).await.unwrap();
    assert_eq!(hub.read(&layer).await, b"three");
}

#[tokio::test]
async fn layers_in_blocks_become_one_blob() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let content = "0123456789".repeat(1000);
    let name = blob(&content);
    let id = reserved(&guard, "main", &name).await;
    // Who uploads the same at the same time is not in the way.
    let beside = reserved(&guard, "main", &name).await;
    hub.put(id, Piece::At(4000), &content.as_bytes()[4000..])
        .await
        .unwrap();
    assert!(find_as(&guard, &["main"], &name).await.is_none());
    hub.put(id, Piece::At(0), &content.as_bytes()[..4000])
        .await
        .unwrap();
    let done = guard
        .finalize(&project(), &Which::Named(name.clone()), Some(10_000))
        .await
        .unwrap();
    assert_eq!((done.upload, done.became), (id, Became::Blob));
    let found = find_as(&guard, &["main"], &name).await.unwrap();
    assert_eq!(hub.read(&found).await, content.as_bytes());
    let again = guard.reserve(&project(), &git_ref("main"), &name).await;
    assert_eq!(again.unwrap(), Reserved::Exists);
    // The blocks go.
    hub.local.collect(&Default::default()).await.unwrap();
    assert_eq!(lab.stored(), [Digest::of(content.as_bytes()).hex()]);
    hub.put(beside, Piece::Whole, content.as_bytes())
        .await
        .unwrap();
    finalized(&guard, beside, 10_000).await.unwrap();
    assert!(lab.listed().await.is_empty());
}

#[tokio::test]
async fn a_layer_that_is_not_what_its_key_says_is_refused() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    for pieces in [1, 2] {
        let id = reserved(&guard, "main", &blob("wanted")).await;
        match pieces {
            1 => hub.put(id, Piece::Whole, b"poison").await.unwrap(),
            _ => {
                hub.put(id, Piece::At(0), b"poi").await.unwrap();
                hub.put(id, Piece::At(3), b"son").await.unwrap();
            }
        }
        let refused = finalized(&guard, id, 6).await;
        assert!(
            matches!(refused, Err(EntryError::WrongDigest { .. })),
            "{refused:?}"
        );
        let gone = finalized(&guard, id, 6).await;
        assert!(matches!(gone, Err(EntryError::NoUpload)), "{gone:?}");
    }
    assert!(find_as(&guard, &["main"], &blob("wanted")).await.is_none());
    assert!(find_as(&guard, &["main"], &blob("poison")).await.is_none());
    hub.local.collect(&Default::default()).await.unwrap();
    assert!(lab.stored().is_empty());
}

#[tokio::test]
async fn an_index_that_is_none_or_names_what_is_not_there_is_refused() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    for content in [
        &b"not json"[..],
        b"{}",
        &config(&["never uploaded"]),
        br#"{"layers":[{"blob":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","parent":-1}],"records":[]}"#,
    ] {
        let refused = save_as(&hub, &guard, "main", &index("main", "#1"), content).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert!(lab.listed().await.is_empty());
}

#[tokio::test]
async fn a_layer_that_others_may_not_read_is_not_there_for_them() {
    let lab = Lab::new();
    let hub = lab.hub();
    export(&hub, &hub.open().await, "secret", &["secret"])
        .await
        .unwrap();
    let guard = hub.to(&lab, &["main"], &["main"]).await;
    assert!(find_as(&guard, &["main"], &blob("secret")).await.is_none());
    let refused = save_as(
        &hub,
        &guard,
        "main",
        &index("main", "#1"),
        &config(&["secret"]),
    )
    .await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(
        find_as(&guard, &["main"], &index("main", ""))
            .await
            .is_none()
    );
    // Who has its bytes may upload them.
    let done = export(&hub, &guard, "main", &["secret"]).await.unwrap();
    assert!(matches!(done.became, Became::Cache(_)));
    let found = find_as(&guard, &["main"], &index("main", "")).await;
    assert!(matches!(found, Some(Found::Index(_))));
}

#[tokio::test]
async fn an_index_goes_to_the_ref_that_its_key_means() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.to(&lab, &["**"], &["topic", "main"]).await;
    save_as(&hub, &guard, "topic", &blob("one"), b"one")
        .await
        .unwrap();
    let name = index("main", "#7");
    save_as(&hub, &guard, "topic", &name, &config(&["one"]))
        .await
        .unwrap();
    let listed = lab.listed().await;
    assert_eq!(
        listed[0].place,
        Place {
            project: project(),
            git_ref: git_ref("main"),
            scope: Default::default(),
        }
    );
}

#[tokio::test]
async fn what_is_signed_is_served_as_it_was_saved() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let name = index("main", "-sig#1");
    let signed = config(&["anything"]);
    let done = save_as(&hub, &guard, "main", &name, &signed).await.unwrap();
    assert!(matches!(done.became, Became::Entry(_)));
    let twin = buildkit(&format!("{}-sig", blob("index").key));
    save_as(&hub, &guard, "main", &twin, b"signature")
        .await
        .unwrap();
    for (asked, expected) in [
        (index("main", "-sig"), signed),
        (twin, b"signature".to_vec()),
    ] {
        let found = find_as(&guard, &["main"], &asked).await.unwrap();
        assert_eq!(hub.read(&found).await, expected);
    }
    assert!(
        find_as(&guard, &["main"], &index("main", ""))
            .await
            .is_none()
    );
    assert!(find_as(&guard, &["main"], &blob("index")).await.is_none());
}
