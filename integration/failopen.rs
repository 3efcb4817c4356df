//! Whatever is wrong with the cache costs hits only: the build succeeds, and
//! its own progress says what and why.

use std::path::PathBuf;
use std::str::FromStr as _;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Executor as _};

use crate::harness::store::{blobs, rot};
use crate::harness::{Build, Lab, MULTISTAGE_STEPS, Mount, Runner, tree};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// A data directory with one export of `multistage` in it.
async fn filled(lab: &Lab) -> PathBuf {
    let data = lab.path("data");
    let writer = lab.runner("writer", &data).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    lab.buildx(writer.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
    data
}

#[tokio::test]
async fn a_read_only_store_takes_no_export_and_says_so() {
    let lab = Lab::new();
    let data = filled(&lab).await;
    let at = lab.path("read-only");
    let _mount = Mount::read_only(&data, &at);
    let runner = lab.runner("one", &at).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO);
    let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
    outcome.assert_warned("read-only");
}

#[tokio::test]
async fn a_full_disk_takes_no_export_and_says_so() {
    let lab = Lab::new();
    let disk = lab.path("disk");
    let _mount = Mount::small_disk(&disk, 2 << 20);
    let runner = lab.runner("one", &disk).await;
    let context = lab.context("multistage");
    let client = lab.buildx(runner.address()).await;
    let build = Build::of(&context).cache_to(&format!("{TO},compression=uncompressed"));
    client
        .build(&build)
        .await
        .ok()
        .assert_warned("no space left");
    // The daemon and the sidecar go on.
    client
        .build(&Build::of(&context))
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn a_strict_export_fails_the_build_when_it_cannot_be_stored() {
    let lab = Lab::new();
    let disk = lab.path("disk");
    let _mount = Mount::small_disk(&disk, 2 << 20);
    let runner = lab.runner("one", &disk).await;
    let entry = format!("{TO},compression=uncompressed,ignore-error=false");
    let outcome = lab
        .buildx(runner.address())
        .await
        .build(&Build::of(&lab.context("multistage")).cache_to(&entry))
        .await;
    assert!(outcome.failed().verdict().contains("no space left"));
}

#[tokio::test]
async fn a_blob_that_is_gone_costs_the_steps_that_need_it() {
    let lab = Lab::new();
    let data = filled(&lab).await;
    let context = lab.context("multistage");
    for (number, blob) in blobs(&data).into_iter().enumerate() {
        let aside = lab.path("aside");
        std::fs::rename(&blob, &aside).unwrap();
        let runner = lab.runner(&format!("without-{number}"), &data).await;
        let build = Build::of(&context)
            .cache_from(FROM)
            .output_folder(&lab.path(&format!("out-{number}")));
        lab.buildx(runner.address()).await.build(&build).await.ok();
        std::fs::rename(&aside, &blob).unwrap();
    }
    let runner = lab.runner("with-all", &data).await;
    let build = Build::of(&context)
        .cache_from(FROM)
        .output_folder(&lab.path("out"));
    lab.buildx(runner.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&lab.path("out")));
}

#[tokio::test]
async fn a_truncated_blob_is_not_served() {
    let lab = Lab::new();
    let data = filled(&lab).await;
    for blob in blobs(&data) {
        let file = std::fs::OpenOptions::new().write(true).open(blob).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }
    let runner = lab.runner("one", &data).await;
    let build = Build::of(&lab.context("multistage")).cache_from(FROM);
    let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    assert!(
        !outcome.progress.warnings().is_empty(),
        "{:#?}",
        outcome.progress.lines()
    );
}

#[tokio::test]
async fn blobs_that_have_rotted_fail_one_build_over_the_session_at_most() {
    let lab = Lab::new();
    let data = filled(&lab).await;
    rot(&data);
    let spec = lab.sidecar("one").data_dir(&data);
    let spec = spec.arguments(["--import-carrier=session"]);
    let runner = Runner::start(lab.buildkitd("one"), spec).await;
    let build = Build::of(&lab.context("multistage")).cache_from(FROM);
    let client = lab.buildx(runner.address()).await;
    let first = client.build(&build).await;
    first.assert_warned("can't be used");
    let again = client.build(&build.cache_to(TO)).await.ok();
    assert!(again.progress.with(crate::harness::Fate::Failed).is_empty());

    // What that build exported is whole again.
    let runner = lab.runner("two", &data).await;
    let build = Build::of(&lab.context("multistage")).cache_from(FROM);
    let third = lab.buildx(runner.address()).await.build(&build).await.ok();
    third.assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn a_locked_catalog_holds_no_build_up() {
    let lab = Lab::new();
    let data = filled(&lab).await;
    let file = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.is_file()
                && std::fs::read(path)
                    .unwrap()
                    .starts_with(b"SQLite format 3\0")
        })
        .expect("the catalog is an SQLite file in the data directory");
    let runner = lab.runner("one", &data).await;
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", file.display())).unwrap();
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO);
    let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
    outcome.assert_warned("cache not exported");
    other.execute("ROLLBACK").await.unwrap();
    lab.buildx(runner.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
}

#[tokio::test]
async fn a_catalog_of_garbage_holds_no_build_up() {
    let lab = Lab::new();
    let data = filled(&lab).await;
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"this is no database".repeat(1000)).unwrap();
        }
    }
    let runner = lab.runner("one", &data).await;
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO);
    let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    assert!(
        !outcome.progress.warnings().is_empty(),
        "{:#?}",
        outcome.progress.lines()
    );
}
