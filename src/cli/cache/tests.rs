//! The commands as they are typed, on real directories.

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::blobs::{BlobStore as _, DiskStore};
use crate::catalog::entries::{Entries as _, NewUpload};
use crate::catalog::{Layer, NewExport};
use crate::digest::Digest;
use crate::entry::EntryName;
use crate::place::Place;

#[derive(Debug, Parser)]
struct Typed {
    #[command(flatten)]
    args: CacheArgs,
}

async fn typed(dir: &TempDir, command: &[&str]) -> anyhow::Result<ExitCode> {
    let dir = dir.path().to_str().unwrap();
    let words = ["cache"]
        .into_iter()
        .chain(command.iter().copied())
        .chain(["--data-dir", dir]);
    run(Typed::try_parse_from(words)?.args).await
}

/// A data directory with one export of one layer.
async fn one_export() -> (TempDir, Digest) {
    let dir = TempDir::new().unwrap();
    let blobs = DiskStore::open(dir.path()).await.unwrap();
    let mut ingest = blobs.ingest("layer", None).await.unwrap();
    ingest.write(b"layer".as_slice().into()).await.unwrap();
    let (digest, size) = ingest.commit(None, None).await.unwrap();
    let layer = Layer {
        digest,
        size,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        diff_id: None,
        created_at: None,
        annotations: Default::default(),
    };
    let config = format!(
        r#"{{"layers":[{{"blob":"{digest}","parent":-1}}],"records":[{{"digest":"{digest}","layers":[{{"layer":0}}]}}]}}"#
    );
    let export = NewExport {
        place: Place {
            project: Default::default(),
            git_ref: Default::default(),
            scope: Default::default(),
        },
        time: jiff::Timestamp::UNIX_EPOCH,
        builder: "runner-1".to_owned(),
        records: 1,
        config: config.into(),
        layers: vec![layer],
        steps: Vec::new(),
        began: None,
    };
    let catalog = SqliteCatalog::open(dir.path()).await.unwrap();
    catalog.append(export).await.unwrap();
    catalog.close().await;
    (dir, digest)
}

#[tokio::test]
async fn a_sound_directory_is_listed_shown_and_checked() {
    let (dir, _) = one_export().await;
    for command in [
        &["ls"][..],
        &[
            "ls",
            "--json",
            "--project",
            "default",
            "--ref",
            "main",
            "--scope",
            "buildkit",
            "--limit",
            "0",
        ],
        &["ls", "--ref", "nothing-here"],
        &["show", "1"],
        &["show", "1", "--json"],
        &["graph"],
        &[
            "graph", "--ref", "main", "--scope", "buildkit", "--limit", "0",
        ],
        &["graph", "--format", "dot"],
        &["graph", "--json"],
        &["diff", "1", "1"],
        &["diff", "1", "1", "--json"],
        &["savings"],
        &["savings", "--json", "--project", "default", "--ref", "main"],
        &["fsck"],
        &["fsck", "--json", "--parallel", "1"],
    ] {
        assert_eq!(
            typed(&dir, command).await.unwrap(),
            ExitCode::SUCCESS,
            "{command:?}"
        );
    }
}

#[tokio::test]
async fn a_project_that_is_mistyped_is_not_flushed() {
    let (dir, _) = one_export().await;
    let flush = async |more: &[&str]| typed(&dir, &[&["flush"], more].concat()).await;
    let error = flush(&["--project", "defualt"]).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no project defualt");
    for place in [&["--ref", "none"][..], &[], &[]] {
        let flushed = flush(&[&["--project", "default"], place].concat()).await;
        assert_eq!(flushed.unwrap(), ExitCode::SUCCESS, "{place:?}");
    }
}

#[tokio::test]
async fn an_entry_is_listed_shown_and_checked_and_has_no_steps() {
    let (dir, digest) = one_export().await;
    let catalog = SqliteCatalog::open(dir.path()).await.unwrap();
    let layer = catalog.get(ExportId(1)).await.unwrap().unwrap().layers;
    let upload = NewUpload {
        project: Default::default(),
        git_ref: Default::default(),
        name: EntryName {
            key: "npm-1".parse().unwrap(),
            version: "v1".parse().unwrap(),
        },
        alone: true,
    };
    let entry = NewExport {
        place: Place {
            project: Default::default(),
            git_ref: Default::default(),
            scope: "actions-cache".parse().unwrap(),
        },
        time: jiff::Timestamp::UNIX_EPOCH,
        builder: "gha".to_owned(),
        records: 0,
        config: "{\"layers\":1}".into(),
        layers: layer,
        steps: Vec::new(),
        began: None,
    };
    let id = catalog.reserve(&upload).await.unwrap().upload().unwrap();
    catalog.append_entry(id, entry, 5).await.unwrap();
    catalog.close().await;
    for command in [
        &["ls"][..],
        &["ls", "--kind", "gha"],
        &["ls", "--kind", "cache", "--json"],
        &["show", "2"],
        &["show", "2", "--json"],
        &["graph"],
        &["fsck"],
    ] {
        let ended = typed(&dir, command).await.unwrap();
        assert_eq!(ended, ExitCode::SUCCESS, "{command:?}");
    }
    let error = typed(&dir, &["diff", "1", "2"]).await.unwrap_err();
    assert!(
        error.to_string().starts_with("export 2 is an entry"),
        "{error}"
    );
    // Nothing but an entry is there.
    let graph = ["graph", "--scope", "actions-cache"];
    assert!(typed(&dir, &graph).await.is_err());
    std::fs::remove_file(dir.path().join("blobs/sha256").join(digest.hex())).unwrap();
    assert_eq!(typed(&dir, &["fsck"]).await.unwrap(), ExitCode::FAILURE);
}

#[tokio::test]
async fn a_check_that_finds_a_problem_fails() {
    let (dir, digest) = one_export().await;
    std::fs::remove_file(dir.path().join("blobs/sha256").join(digest.hex())).unwrap();
    assert_eq!(typed(&dir, &["fsck"]).await.unwrap(), ExitCode::FAILURE);
}

#[tokio::test]
async fn a_wrong_path_is_told_and_nothing_is_created_there() {
    let dir = TempDir::new().unwrap();
    for command in [
        &["ls"][..],
        &["show", "1"],
        &["fsck"],
        &["graph"],
        &["diff", "1", "2"],
    ] {
        let error = typed(&dir, command).await.unwrap_err().to_string();
        assert!(
            error.contains("is not a data directory of layerd"),
            "{command:?}: {error}"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_export_that_is_not_there_is_told() {
    let (dir, _) = one_export().await;
    for command in [&["show", "2"][..], &["diff", "1", "2"], &["diff", "2", "1"]] {
        let error = typed(&dir, command).await.unwrap_err().to_string();
        assert!(error.starts_with("there is no export 2"), "{error}");
    }
    let graph = ["graph", "--project", "other"];
    let error = typed(&dir, &graph).await.unwrap_err().to_string();
    assert!(error.starts_with("project other has no"), "{error}");
}
