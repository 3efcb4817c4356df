//! The Content service as BuildKit's client sees it, over a real store.

mod model;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use tempfile::TempDir;
use tonic::{Code, Status};

use super::super::build::{Build, Builds};
use super::super::proto::content as api;
use super::super::proto::content::content_client::ContentClient;
use super::super::proto::content::content_server::ContentServer;
use super::{Attached, ExportStore, ImportStore, Store};
use crate::blobs::BlobStore as _;
use crate::cache::{Cache, Documents, Form, Lease, Limits, LocalCache, Want};
use crate::digest::Digest;
use crate::doors::buildkit::metrics::Metrics;
use crate::place::Place;

type Client = ContentClient<ContentServer<Attached>>;

/// A data directory, and stores on it.
struct Fixture {
    dir: TempDir,
    cache: Arc<dyn Cache>,
    build: Arc<Build>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(LocalCache::new(dir.path()));
        Self {
            dir,
            cache,
            build: Builds::default().join("build"),
        }
    }

    fn export(&self) -> Client {
        let store = ExportStore::new(
            place(),
            "host".to_owned(),
            self.cache.clone(),
            self.build.clone(),
            Digest::of(b"vertex"),
            Metrics::default().export(),
            Lease::default(),
        );
        client(Store::Export(store))
    }

    async fn import(&self) -> Option<(crate::cache::Import, Client)> {
        let want = Want {
            place: place(),
            fallbacks: Vec::new(),
            narrowed: false,
            not_before: None,
            compression: None,
            readable: None,
        };
        let limits = Limits {
            records: u64::MAX,
            form: Form::Parts {
                max_bytes: usize::MAX,
            },
        };
        let import = self
            .cache
            .look_up(&[want], &limits)
            .await
            .unwrap()
            .import()?;
        let store = ImportStore::new(import.clone(), self.cache.clone());
        Some((import, client(Store::Import(store))))
    }

    /// What has become of the blobs: their digests.
    async fn blobs(&self) -> Vec<Digest> {
        let store = crate::blobs::DiskStore::open(self.dir.path())
            .await
            .unwrap();
        let blobs: Vec<_> = futures::StreamExt::collect(store.list().await.unwrap()).await;
        blobs.into_iter().map(|blob| blob.unwrap().0).collect()
    }
}

fn place() -> Place {
    Place {
        project: "p".parse().unwrap(),
        git_ref: "main".parse().unwrap(),
        scope: "s".parse().unwrap(),
    }
}

fn client(store: Store) -> Client {
    ContentClient::new(ContentServer::new(Attached(Arc::new(store))))
}

fn message(action: api::WriteAction, name: &str) -> api::WriteContentRequest {
    api::WriteContentRequest {
        action: action.into(),
        r#ref: name.to_owned(),
        ..Default::default()
    }
}

/// A blob's messages as BuildKit sends them: STAT, data, COMMIT.
fn upload(name: &str, bytes: &[u8]) -> Vec<api::WriteContentRequest> {
    let total = bytes.len() as i64;
    let expected = Digest::of(bytes).to_string();
    let stat = api::WriteContentRequest {
        total,
        expected: expected.clone(),
        ..message(api::WriteAction::Stat, name)
    };
    let write = api::WriteContentRequest {
        data: Bytes::copy_from_slice(bytes),
        ..message(api::WriteAction::Write, name)
    };
    let commit = api::WriteContentRequest {
        total,
        expected,
        offset: total,
        ..message(api::WriteAction::Commit, name)
    };
    vec![stat, write, commit]
}

/// Sends messages; what was answered, or the error that ended it.
async fn send(
    client: &mut Client,
    messages: Vec<api::WriteContentRequest>,
) -> Result<Vec<api::WriteContentResponse>, Status> {
    let mut answers = client.write(stream::iter(messages)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

async fn code(client: &mut Client, messages: Vec<api::WriteContentRequest>) -> Code {
    send(client, messages)
        .await
        .err()
        .map_or(Code::Ok, |status| status.code())
}

/// A layer, its config and its manifest.
fn export_of(layer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let blob = Digest::of(layer);
    let record = Digest::of(b"RUN");
    let config = serde_json::json!({
        "layers": [{ "blob": blob, "parent": -1 }],
        "records": [{ "digest": record, "layers": [{ "layer": 0, "createdAt": "2026-01-01T00:00:00Z" }] }],
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": crate::graph::CONFIG_MEDIA_TYPE, "digest": Digest::of(&config), "size": config.len() },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob, "size": layer.len(),
            "annotations": { "containerd.io/uncompressed": Digest::of(b"diff") },
        }],
    });
    (config, serde_json::to_vec(&manifest).unwrap())
}

async fn send_document(
    client: &mut Client,
    bytes: &[u8],
) -> Result<Vec<api::WriteContentResponse>, Status> {
    send(client, upload(&Digest::of(bytes).to_string(), bytes)).await
}

#[tokio::test]
async fn what_was_exported_is_imported() {
    let fixture = Fixture::new();
    let (config, manifest) = export_of(b"layer");
    let mut export = fixture.export();
    let answers = send(&mut export, upload("layer-1", b"layer"))
        .await
        .unwrap();
    assert_eq!(
        answers.last().unwrap().digest,
        Digest::of(b"layer").to_string()
    );
    send_document(&mut export, &config).await.unwrap();
    assert!(
        fixture.import().await.is_none(),
        "nothing is visible before the manifest"
    );
    send_document(&mut export, &manifest).await.unwrap();

    let (import, mut client) = fixture.import().await.unwrap();
    let Documents::Parts { config, .. } = import.documents else {
        panic!("it was asked for in parts")
    };
    for (digest, bytes) in [
        (config.digest, config.bytes.to_vec()),
        (Digest::of(b"layer"), b"layer".to_vec()),
    ] {
        let info = client
            .info(api::InfoRequest {
                digest: digest.to_string(),
            })
            .await
            .unwrap()
            .into_inner()
            .info
            .unwrap();
        assert_eq!(info.size as usize, bytes.len());
        assert_eq!(read(&mut client, digest, 0, 0).await.unwrap(), bytes);
        assert_eq!(read(&mut client, digest, 1, 2).await.unwrap(), bytes[1..3]);
        assert_eq!(
            read(&mut client, digest, 1, 1 << 40).await.unwrap(),
            bytes[1..]
        );
        assert_eq!(
            read(&mut client, digest, bytes.len() as i64, 1)
                .await
                .unwrap(),
            b""
        );
        assert_eq!(
            read(&mut client, digest, 1 << 40, 1)
                .await
                .unwrap_err()
                .code(),
            Code::OutOfRange
        );
    }
    assert_eq!(
        read(&mut client, Digest::of(b"other"), 0, 0)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    assert_eq!(
        code(&mut client, upload("layer-1", b"layer")).await,
        Code::FailedPrecondition
    );
}

async fn read(
    client: &mut Client,
    digest: Digest,
    offset: i64,
    size: i64,
) -> Result<Vec<u8>, Status> {
    let request = api::ReadContentRequest {
        digest: digest.to_string(),
        offset,
        size,
    };
    let mut answers = client.read(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        assert_eq!(answer.offset, offset.max(0) + all.len() as i64);
        all.extend_from_slice(&answer.data);
    }
    Ok(all)
}

#[tokio::test]
async fn a_blob_that_the_project_holds_is_refused_at_the_first_message() {
    let fixture = Fixture::new();
    let (config, manifest) = export_of(b"layer");
    let mut export = fixture.export();
    send(&mut export, upload("layer-1", b"layer"))
        .await
        .unwrap();
    assert_eq!(
        code(&mut export, upload("layer-1", b"layer")).await,
        Code::AlreadyExists,
        "in one export"
    );
    assert_eq!(
        code(&mut fixture.export(), upload("layer-1", b"layer")).await,
        Code::Ok,
        "not held before it is published"
    );
    send_document(&mut export, &config).await.unwrap();
    send_document(&mut export, &manifest).await.unwrap();

    let mut second = fixture.export();
    assert_eq!(
        code(&mut second, upload("layer-1", b"layer")).await,
        Code::AlreadyExists
    );
    send_document(&mut second, &config).await.unwrap();
    send_document(&mut second, &manifest).await.unwrap();
}

#[tokio::test]
async fn what_is_announced_must_come() {
    let fixture = Fixture::new();
    let mut export = fixture.export();
    let good = upload("layer-1", b"layer");
    let commit = |edit: fn(&mut api::WriteContentRequest)| {
        let mut messages = good.clone();
        edit(&mut messages[2]);
        messages
    };
    let wrong_digest = Digest::of(b"other").to_string();
    let mut messages = good.clone();
    messages
        .iter_mut()
        .filter(|message| !message.expected.is_empty())
        .for_each(|message| message.expected.clone_from(&wrong_digest));
    assert_eq!(code(&mut export, messages).await, Code::FailedPrecondition);
    assert_eq!(
        code(&mut export, commit(|m| m.total = 6)).await,
        Code::FailedPrecondition
    );
    assert_eq!(
        code(&mut export, commit(|m| m.offset = 3)).await,
        Code::OutOfRange
    );
    assert_eq!(
        code(&mut export, commit(|m| m.total = -1)).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(
            &mut export,
            commit(|m| m.expected = "sha256:../../etc".into())
        )
        .await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(
            &mut export,
            commit(|m| m.data = Bytes::from_static(b"more"))
        )
        .await,
        Code::FailedPrecondition
    );
    assert_eq!(
        code(&mut export, vec![message(api::WriteAction::Stat, "")]).await,
        Code::InvalidArgument
    );
    assert_eq!(code(&mut export, Vec::new()).await, Code::InvalidArgument);
    assert!(fixture.blobs().await.is_empty());
}

#[tokio::test]
async fn documents_that_are_no_cache_are_refused_and_leave_nothing() {
    let fixture = Fixture::new();
    let (config, manifest) = export_of(b"layer");
    let cycle = serde_json::json!({
        "layers": [{ "blob": Digest::of(b"layer"), "parent": -1 }],
        "records": [{ "digest": Digest::of(b"a"), "inputs": [[{ "link": 0 }]] }],
    });
    let out_of_range = serde_json::json!({
        "layers": [{ "blob": Digest::of(b"layer"), "parent": 7 }],
        "records": [],
    });
    let image = serde_json::json!({ "schemaVersion": 2, "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b""), "size": 0 }, "layers": [] });
    let mut export = fixture.export();
    for document in [
        cycle.to_string(),
        out_of_range.to_string(),
        image.to_string(),
        "{".to_owned(),
        "[]".to_owned(),
    ] {
        let refused = send_document(&mut export, document.as_bytes())
            .await
            .unwrap_err();
        assert_eq!(
            refused.code(),
            Code::InvalidArgument,
            "{document}: {refused}"
        );
    }
    let refused = send_document(&mut export, &manifest).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "a manifest whose config was never sent"
    );
    send_document(&mut export, &config).await.unwrap();
    let refused = send_document(&mut export, &manifest).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "a manifest whose layer was never sent"
    );
    assert!(fixture.import().await.is_none());
    assert!(fixture.blobs().await.is_empty());
    assert!(!fixture.build.notices(0).is_empty(), "the user is told");
}

#[tokio::test]
async fn an_upload_that_broke_off_is_seen_resumed_and_aborted() {
    let fixture = Fixture::new();
    let mut export = fixture.export();
    let [stat, mut write, mut commit]: [_; 3] = upload("layer-1", b"layer").try_into().unwrap();
    write.data = Bytes::from_static(b"lay");
    send(&mut export, vec![stat.clone(), write]).await.unwrap();
    let status = export
        .status(api::StatusRequest {
            r#ref: "layer-1".into(),
        })
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    assert_eq!((status.offset, status.total), (3, 5));
    assert_eq!(
        export
            .list_statuses(api::ListStatusesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .statuses
            .len(),
        1
    );

    let answers = send(&mut export, vec![stat.clone()]).await.unwrap();
    assert_eq!(
        answers[0].offset, 3,
        "another writer goes on where the first one stopped"
    );
    commit.offset = 3;
    commit.data = Bytes::from_static(b"er");
    send(&mut export, vec![stat.clone(), commit]).await.unwrap();
    assert_eq!(fixture.blobs().await, [Digest::of(b"layer")]);

    send(&mut export, upload("layer-2", b"x")[..2].to_vec())
        .await
        .unwrap();
    export
        .abort(api::AbortRequest {
            r#ref: "layer-2".into(),
        })
        .await
        .unwrap();
    let gone = export
        .abort(api::AbortRequest {
            r#ref: "layer-2".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let answers = send(&mut export, upload("layer-2", b"x")[..1].to_vec())
        .await
        .unwrap();
    assert_eq!(answers[0].offset, 0);
}
