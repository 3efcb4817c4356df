//! What the database promises beyond the suite: to several hubs, and while it
//! is down or restarts.

mod faults;
mod hubs;
#[path = "../../../integration/harness/postgres.rs"]
mod server;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use self::server::Postgres;
use super::*;
use crate::catalog::conformance::{catalog_conformance, export, place};
use crate::catalog::entries::{Block, NewUpload};
use crate::catalog::{Collecting as _, Entries as _};
use crate::entry::EntryName;

/// One server for all tests; each has a database of its own.
static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// The URL of a new database.
fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    SERVER.database(&format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn connect(url: &str) -> PostgresCatalog {
    PostgresCatalog::connect(url, PostgresOptions::default()).unwrap()
}

async fn open() -> ((), PostgresCatalog) {
    ((), connect(&database()))
}

catalog_conformance!(open);

async fn append(catalog: &PostgresCatalog) -> Result<ExportId, CatalogError> {
    catalog
        .append(export(place("p", "main"), &["a", "b"]))
        .await
}

async fn execute(catalog: &PostgresCatalog, statement: &'static str) {
    let mut connection = catalog.connections.one().await.unwrap();
    sqlx::query(statement)
        .execute(&mut *connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_that_is_shown_has_a_secret() {
    let url = "postgres://layerd:hunter2@127.0.0.1:1/cache?password=hunter2";
    let catalog = connect(url);
    let error = catalog.ready().await.unwrap_err();
    let shown = format!("{catalog:?} {error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("127.0.0.1:1/cache"), "{shown}");
}

#[tokio::test]
async fn text_with_a_zero_byte_is_kept_without_it() {
    let (_, catalog) = open().await;
    let mut odd = export(place("p", "main"), &["a"]);
    odd.builder = "run\0ner".to_owned();
    let id = catalog.append(odd).await.unwrap();
    let read = catalog.get(id).await.unwrap().unwrap();
    assert_eq!(read.head.builder, "run\u{fffd}ner");
}

#[tokio::test]
async fn a_changed_config_is_corrupt_and_not_served() {
    let (_, catalog) = open().await;
    let id = append(&catalog).await.unwrap();
    execute(&catalog, "UPDATE export SET config_digest = sha256('')").await;
    let read = catalog.get(id).await;
    assert!(
        matches!(read, Err(CatalogError::Corrupt { .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn uploads_that_nobody_finishes_are_purged_with_their_blocks() {
    let (_, catalog) = open().await;
    let upload = NewUpload {
        project: "p".parse().unwrap(),
        git_ref: GitRef::default(),
        name: EntryName {
            key: "k".parse().unwrap(),
            version: "v".parse().unwrap(),
        },
        alone: true,
    };
    let block = Block {
        name: "a".to_owned(),
        digest: Digest::of(b"a"),
        size: 1,
        start: None,
        position: None,
    };
    for _ in 0..40 {
        let id = catalog.reserve(&upload).await.unwrap().expect("it is free");
        catalog.put_block(id, &block, false).await.unwrap();
        execute(&catalog, "UPDATE upload SET touched = '-infinity'").await;
    }
    let kept = catalog.reserve(&upload).await.unwrap().unwrap();
    execute(
        &catalog,
        "UPDATE upload SET expires = statement_timestamp() WHERE blocks > 0",
    )
    .await;
    catalog.purge().await.unwrap();
    let found = catalog.uploads(&upload.project, &upload.name).await;
    let found: Vec<_> = found.unwrap().iter().map(|upload| upload.id).collect();
    assert_eq!(found, [kept]);
    let mut connection = catalog.connections.one().await.unwrap();
    for (statement, left) in [
        ("SELECT count(*) FROM upload", 1),
        ("SELECT count(*) FROM block", 0),
    ] {
        let count: i64 = sqlx::query_scalar(statement)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        assert_eq!(count, left, "{statement}");
    }
}

#[tokio::test]
async fn a_catalog_of_a_newer_version_is_told_apart() {
    let url = database();
    let catalog = connect(&url);
    catalog.ready().await.unwrap();
    execute(
        &catalog,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', true, '', 0)",
    )
    .await;
    append(&catalog).await.expect("who runs already goes on");
    let late = connect(&url).ready().await;
    assert!(matches!(late, Err(CatalogError::Newer(_))), "{late:?}");
}

#[tokio::test]
async fn what_is_committed_is_on_a_disk_unless_the_server_is_stricter() {
    for (wanted, expected) in [("off", "on"), ("remote_apply", "remote_apply")] {
        let url = database();
        let catalog = connect(&format!("{url}&options=-c%20synchronous_commit%3D{wanted}"));
        let mut connection = catalog.connections.one().await.unwrap();
        let set: String = sqlx::query_scalar("SHOW synchronous_commit")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        assert_eq!(set, expected);
    }
}

#[tokio::test]
async fn a_transaction_that_was_left_open_takes_nothing_with_it() {
    let url = database();
    let one_connection = PostgresOptions {
        connections: 1,
        ..PostgresOptions::default()
    };
    let catalog = PostgresCatalog::connect(&url, one_connection).unwrap();
    append(&catalog).await.unwrap();
    // As a call that is given up at the wrong moment does.
    execute(&catalog, "BEGIN").await;
    let (project, git_ref) = ("p".parse().unwrap(), GitRef::default());
    let blob = Digest::of(b"uploaded");
    let (uploads, hour) = ([(blob, 8)], Duration::from_secs(3600));
    let possessed = catalog.possess(&project, &git_ref, &uploads, hour);
    possessed.await.unwrap();
    let seen = connect(&url).holds(&project, &blob).await.unwrap();
    assert_eq!(seen, Some(8));
}

#[tokio::test]
async fn connections_are_counted() {
    let (_, catalog) = open().await;
    let mut registry = Registry::default();
    catalog.register(&mut registry);
    let held = catalog.connections.one().await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "layerd_catalog_connections{state=\"used\"} 1",
        "layerd_catalog_connections{state=\"idle\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    drop(held);
}

#[tokio::test]
async fn look_ups_that_every_build_does_use_an_index() {
    let (_, catalog) = open().await;
    catalog.ready().await.unwrap();
    let mut connection = catalog.connections.one().await.unwrap();
    // Tables are empty: only where no index fits, one is read from end to end.
    sqlx::query("SET enable_seqscan = off")
        .execute(&mut *connection)
        .await
        .unwrap();
    let list = |narrowed: &str| {
        format!(
            "SELECT id FROM export WHERE retired IS NULL AND project = 1 {narrowed} ORDER BY id DESC LIMIT 5"
        )
    };
    for (query, index) in [
        (list(""), "export_by_project"),
        (list("AND ref = 'r'"), "export_by_ref"),
        (list("AND ref = 'r' AND scope = 's'"), "export_by_place"),
        (given(holding::HOLDS), "layer_by_digest"),
        (given(holding::HELD), "layer_by_digest"),
        (given(holding::HELD), "possession_pkey"),
        (given(holding::VISIBLE), "layer_by_digest"),
        (given(holding::VISIBLE), "possession_pkey"),
        (given(holding::REFS), "export_by_"),
        (given(holding::REFS), "export_retired_by_ref"),
        (given(holding::REFS), "possession_pkey"),
        (given(holding::PAGES[1]), "layer_by_digest"),
        (given(holding::PAGES[0]), "possession_by_digest"),
        (given(steps::OF_RESULTS), "step_by_record"),
    ] {
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN {query}")))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query}:\n{plan}");
        assert!(!plan.contains("Seq Scan"), "{query}:\n{plan}");
    }
}

/// A statement with values in it, of any plausible kind.
fn given(statement: &str) -> String {
    let (one, two) = if statement.contains("WHERE name = $1") {
        ("'p'", "'\\x00'::bytea")
    } else if statement.contains("digest > $1") {
        ("'\\x00'::bytea", "10")
    } else {
        ("1", "NULL")
    };
    statement
        .replace("$1", one)
        .replace("$2", two)
        .replace("$3::text[]", "'{r}'::text[]")
        .replace("$3", "NULL")
        .replace("$4", "NULL")
}
