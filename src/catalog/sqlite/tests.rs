//! What the file promises beyond the suite: to other processes, over crashes,
//! and where it is damaged or locked.

use std::fs;

use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use tempfile::TempDir;

use super::*;
use crate::catalog::Collecting as _;
use crate::catalog::Entries as _;
use crate::catalog::conformance::{catalog_conformance, export, place};
use crate::catalog::entries::{Became, MAX_OPEN, NewUpload, Reserved, UPLOAD_ALIVE};
use crate::catalog::ledger::Ledger as _;
use crate::entry::EntryName;

async fn open() -> (TempDir, SqliteCatalog) {
    let dir = TempDir::new().unwrap();
    let catalog = SqliteCatalog::open(dir.path()).await.unwrap();
    (dir, catalog)
}

catalog_conformance!(open);

async fn newest(catalog: &SqliteCatalog) -> Option<ExportId> {
    let heads = catalog.list(&Filter::default()).await.unwrap();
    heads.first().map(|head| head.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_open_one_new_directory_at_once_and_no_append_is_lost() {
    let dir = TempDir::new().unwrap();
    let catalogs = try_join_all((0..8).map(|_| SqliteCatalog::open(dir.path())))
        .await
        .unwrap();
    let appended = join_all(catalogs.iter().flat_map(|catalog| {
        (0..10).map(|_| catalog.append(export(place("p", "main"), &["a", "b", "c"])))
    }))
    .await;
    let mut ids: Vec<ExportId> = appended.into_iter().map(Result::unwrap).collect();
    ids.sort_unstable();
    for catalog in &catalogs {
        let listed = catalog.list(&Filter::default()).await.unwrap();
        assert!(
            listed
                .iter()
                .rev()
                .map(|head| head.id)
                .eq(ids.iter().copied())
        );
        assert_eq!(catalog.get(ids[0]).await.unwrap().unwrap().layers.len(), 3);
    }
}

#[tokio::test]
async fn what_was_appended_is_there_after_opening_anew() {
    let (dir, catalog) = open().await;
    let id = catalog
        .append(export(place("p", "main"), &["a"]))
        .await
        .unwrap();
    // Not closed: as after a kill.
    let again = SqliteCatalog::open(dir.path()).await.unwrap();
    assert_eq!(newest(&again).await, Some(id));
}

#[tokio::test]
async fn a_locked_catalog_is_busy_for_writers_and_open_for_readers() {
    let (dir, catalog) = open().await;
    let id = catalog
        .append(export(place("p", "main"), &["a"]))
        .await
        .unwrap();
    let other = SqliteCatalog::open(dir.path()).await.unwrap();
    let mut turn = Turn::of(other.writers().unwrap()).await.unwrap();
    let lock = turn.write().await.unwrap();
    let appended = catalog.append(export(place("p", "main"), &["b"])).await;
    assert!(
        matches!(appended, Err(CatalogError::Busy(_))),
        "{appended:?}"
    );
    assert_eq!(newest(&catalog).await, Some(id));
    // Also for one that comes just now.
    let late = SqliteCatalog::open(dir.path()).await.unwrap();
    assert_eq!(newest(&late).await, Some(id));
    drop(lock);
}

#[tokio::test]
async fn a_full_disk_costs_only_the_appends_that_meet_it() {
    let (_dir, catalog) = open().await;
    let small = || catalog.append(export(place("p", "main"), &["a"]));
    let mut large = export(place("p", "main"), &["a"]);
    // Noise, so that it needs pages however it is compressed.
    large.config = (0..20_000_u32)
        .flat_map(|at| *Digest::of(&at.to_le_bytes()).as_bytes())
        .collect();
    let mut kept = vec![small().await.unwrap()];
    for _ in 0..3 {
        // Less than there is already means: no page more. Only the connection
        // that it is said to knows of it.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(catalog.writers().unwrap())
            .await
            .unwrap();
        let appended = catalog.append(large.clone()).await;
        assert!(
            matches!(appended, Err(CatalogError::Full(_))),
            "{appended:?}"
        );
        for _ in 0..10 {
            catalog.writable().await.unwrap();
            kept.push(small().await.unwrap());
        }
    }
    kept.push(catalog.append(large).await.unwrap());
    let listed = catalog.list(&Filter::default()).await.unwrap();
    assert!(listed.iter().rev().map(|head| head.id).eq(kept));
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_itself_spoils_no_later_one() {
    let (_dir, catalog) = open().await;
    for _ in 0..3 {
        let mut turn = Turn::of(catalog.writers().unwrap()).await.unwrap();
        let mut tx = turn.write().await.unwrap();
        // Unknown to sqlx, as when the disk is full.
        sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
        assert!(tx.commit().await.is_err());
        drop(turn);
        catalog
            .append(export(place("p", "main"), &["a"]))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn readers_are_answered_while_writers_wait_for_the_lock() {
    let (dir, catalog) = open().await;
    let append = |catalog: SqliteCatalog| async move {
        catalog.append(export(place("p", "main"), &["a"])).await
    };
    let id = append(catalog.clone()).await.unwrap();
    let other = SqliteCatalog::open(dir.path()).await.unwrap();
    let mut turn = Turn::of(other.writers().unwrap()).await.unwrap();
    let lock = turn.write().await.unwrap();
    let mut appends = tokio::task::JoinSet::new();
    for _ in 0..8 {
        appends.spawn(append(catalog.clone()));
    }
    while catalog.writers().unwrap().num_idle() > 0 {
        tokio::task::yield_now().await;
    }
    let reads = async {
        for _ in 0..50 {
            assert_eq!(newest(&catalog).await, Some(id));
            assert!(catalog.get(id).await.unwrap().is_some());
        }
    };
    tokio::select! {
        biased;
        appended = appends.join_next() => panic!("the lock is held: {appended:?}"),
        () = reads => {}
    }
    lock.rollback().await.unwrap();
    for appended in appends.join_all().await {
        appended.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() {
    let dir = TempDir::new().unwrap();
    fs::write(SqliteCatalog::path(dir.path()), vec![b'x'; 8192]).unwrap();
    let opened = SqliteCatalog::open(dir.path()).await;
    assert!(
        matches!(opened, Err(CatalogError::Corrupt { .. })),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_changed_config_is_corrupt_and_not_served() {
    let (_dir, catalog) = open().await;
    let id = catalog
        .append(export(place("p", "main"), &["a"]))
        .await
        .unwrap();
    let other = packed::pack(&[b'y'; 10]).unwrap();
    sqlx::query("UPDATE export SET config = ?1")
        .bind(other)
        .execute(catalog.writers().unwrap())
        .await
        .unwrap();
    assert!(matches!(
        catalog.get(id).await,
        Err(CatalogError::Corrupt { .. })
    ));
}

#[tokio::test]
async fn a_catalog_of_a_newer_version_is_told_apart() {
    let (dir, catalog) = open().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)",
    )
    .execute(catalog.writers().unwrap())
    .await
    .unwrap();
    let opened = SqliteCatalog::open(dir.path()).await;
    assert!(matches!(opened, Err(CatalogError::Newer(_))), "{opened:?}");
}

#[tokio::test]
async fn a_catalog_that_an_older_version_left_is_read() {
    let (_dir, catalog) = open().await;
    let id = catalog
        .append(export(place("p", "main"), &["a"]))
        .await
        .unwrap();
    for table in [
        "step",
        "saving",
        "possession",
        "audit",
        "flush_answer",
        "flush",
        "revocation",
        "setting",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {table}")))
            .execute(catalog.writers().unwrap())
            .await
            .unwrap();
    }
    assert_eq!(catalog.savings(&Default::default()).await.unwrap(), []);
    assert_eq!(catalog.audit(&Default::default()).await.unwrap(), []);
    assert_eq!(catalog.flushes(&place("p", "main")).await.unwrap(), []);
    assert_eq!(catalog.revocations(Default::default()).await.unwrap(), []);
    assert_eq!(catalog.all_settings(None, 10).await.unwrap(), []);
    let (project, absent) = (place("p", "main").project, Digest::of(b"absent"));
    assert_eq!(catalog.holds(&project, &absent).await.unwrap(), None);
    assert_eq!(catalog.referenced().count().await, 1);
    let read = catalog.get(id).await.unwrap().unwrap();
    assert_eq!((read.layers.len(), read.steps.len()), (1, 0));
}

#[tokio::test]
async fn what_an_older_version_left_is_listed_where_nobody_may_write() {
    let (dir, catalog) = open().await;
    let new = export(place("p", "main"), &["a"]);
    let id = catalog.append(new).await.unwrap();
    for statement in ["DROP TABLE entry", "ALTER TABLE export DROP COLUMN kind"] {
        let writers = catalog.writers().unwrap();
        sqlx::query(statement).execute(writers).await.unwrap();
    }
    catalog.close().await;
    let file = SqliteCatalog::path(dir.path());
    let context = errors::context(&file);
    let readers = open::open_for_reading(&file, &context).await.unwrap();
    let pools = Pools {
        readers,
        writers: Err(open::Refusal::ReadOnly),
    };
    let older = SqliteCatalog {
        file,
        pools,
        context,
    };
    let caches = Filter {
        kind: Some(Kind::Cache),
        ..Filter::default()
    };
    assert_eq!(older.list(&caches).await.unwrap()[0].id, id);
    assert_eq!(older.count(&caches).await.unwrap(), 1);
    assert_eq!(older.get(id).await.unwrap().unwrap().layers.len(), 1);
    let (project, keys) = ("p".parse().unwrap(), ["k".parse().unwrap()]);
    let (refs, version) = ([GitRef::default()], "v".parse().unwrap());
    let found = older.find_entry(&project, &refs, &keys, &version);
    assert_eq!(found.await.unwrap(), None);
}

#[tokio::test]
async fn the_last_to_close_leaves_one_file() {
    let (dir, catalog) = open().await;
    catalog
        .append(export(place("p", "main"), &["a"]))
        .await
        .unwrap();
    catalog.close().await;
    let files: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["catalog.db"]);
}

#[tokio::test]
async fn a_glance_at_a_catalog_changes_nothing() {
    let nothing = TempDir::new().unwrap();
    assert!(SqliteCatalog::peek(nothing.path()).await.unwrap().is_none());
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
    let (dir, catalog) = open().await;
    let new = || export(place("p", "main"), &["a"]);
    catalog.append(new()).await.unwrap();
    let count = async || {
        let peeked = SqliteCatalog::peek(dir.path()).await.unwrap().unwrap();
        let count = peeked.count(&Filter::default()).await.unwrap();
        assert!(peeked.append(new()).await.is_err());
        assert_eq!(peeked.store().await.unwrap(), None);
        peeked.close().await;
        count
    };
    assert_eq!(count().await, 1, "beside one that writes");
    catalog.close().await;
    let modified = || {
        fs::metadata(SqliteCatalog::path(dir.path()))
            .unwrap()
            .modified()
    };
    let before = modified().unwrap();
    assert_eq!(count().await, 1);
    assert_eq!(modified().unwrap(), before);
    let files = fs::read_dir(dir.path()).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["catalog.db"]);
    let nowhere = SqliteCatalog::nowhere().await.unwrap();
    nowhere.append(new()).await.unwrap();
    assert_eq!(nowhere.count(&Filter::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn look_ups_that_every_build_does_use_an_index() {
    let (_dir, catalog) = open().await;
    for (query, index) in [
        (holding::HOLDS, "layer_by_digest"),
        (holding::VISIBLE, "layer_by_digest"),
        (holding::REFS, "export_by_"),
        (holding::NAMED_IN_LOG, "layer_by_digest"),
        (holding::PAGE_AFTER, "layer_by_digest"),
        (holding::POSSESSED_AFTER, "possession_by_digest"),
        (steps::OF_RESULTS, "step_by_record"),
    ] {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
            .fetch_all(catalog.writers().unwrap())
            .await
            .unwrap();
        let steps: Vec<String> = plan
            .iter()
            .map(|step| sqlx::Row::get(step, "detail"))
            .collect();
        let searched = |step: &String| step.starts_with("SEARCH") && step.contains(index);
        assert!(steps.iter().any(searched), "{query}: {steps:?}");
        assert!(
            !steps.iter().any(|step| step.starts_with("SCAN")
                && !["CONSTANT", "result", "readable", "known"]
                    .iter()
                    .any(|row| step.contains(row))),
            "{query}: {steps:?}"
        );
        assert!(
            !steps.iter().any(|step| step.contains("TEMP B-TREE")),
            "{query}: {steps:?}"
        );
    }
}

#[tokio::test]
async fn a_task_is_owned_across_processes_and_freed_with_its_file() {
    let (dir, catalog) = open().await;
    let other = SqliteCatalog::open(dir.path()).await.unwrap();
    let owned = catalog.try_own("collect").await.unwrap();
    assert!(owned.is_some());
    assert!(other.try_own("collect").await.unwrap().is_none());
    drop(owned);
    assert!(other.try_own("collect").await.unwrap().is_some());
}

#[tokio::test]
async fn a_lease_of_an_older_version_keeps_what_it_reads() {
    let (_dir, catalog) = open().await;
    let id = catalog
        .append(export(place("p", "main"), &["a"]))
        .await
        .unwrap();
    let of_old = "INSERT INTO lease (expires) VALUES (9000000000000000) RETURNING id";
    let lease: i64 = sqlx::query_scalar(of_old)
        .fetch_one(catalog.writers().unwrap())
        .await
        .unwrap();
    catalog.retire(&[id]).await.unwrap();
    assert_eq!(catalog.referenced().count().await, 1);
    catalog.end_lease(LeaseId(lease)).await.unwrap();
    assert_eq!(catalog.referenced().count().await, 1, "its id is no name");
}

#[tokio::test]
async fn of_uploads_that_nobody_ends_a_ref_and_a_project_have_so_many() {
    let (_dir, catalog) = open().await;
    let upload = |project: &str, git_ref: &str| NewUpload {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        name: EntryName {
            key: "k".parse().unwrap(),
            version: "v".parse().unwrap(),
        },
        alone: false,
    };
    let first = catalog.reserve(&upload("p", "main")).await.unwrap();
    let copy = async |many: u64, git_ref: &str| {
        sqlx::query(
            "WITH RECURSIVE more (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM more WHERE id < ?1)
             INSERT INTO upload (id, project, ref, key, version, touched, expires)
             SELECT -more.id - (SELECT count(*) FROM upload), project, ?2, key, version, touched, expires
             FROM more, upload WHERE upload.id = ?3",
        )
        .bind(i64::try_from(many).unwrap())
        .bind(git_ref)
        .bind(first.upload().unwrap().0)
        .execute(catalog.writers().unwrap())
        .await
        .unwrap();
    };
    let reserve = async |project, git_ref| {
        let reserved = catalog.reserve(&upload(project, git_ref)).await;
        reserved.unwrap()
    };
    let [all, of_ref] = MAX_OPEN;
    copy(of_ref - 2, "refs/heads/main").await;
    let last = reserve("p", "main").await.upload().unwrap();
    assert_eq!(reserve("p", "main").await, Reserved::TooMany);
    let beside = reserve("p", "dev").await.upload().unwrap();
    copy(all - of_ref - 2, "refs/heads/other").await;
    let other = reserve("p", "third").await.upload().unwrap();
    assert_eq!(reserve("p", "dev").await, Reserved::TooMany);
    assert!(reserve("q", "main").await.upload().is_some());
    // What ends makes room.
    for id in [last, beside] {
        catalog.drop_upload(id).await.unwrap();
    }
    catalog.close_upload(other, Became::Blob, 0).await.unwrap();
    assert!(reserve("p", "main").await.upload().is_some());
    // Of a ref, those that jobs have left do not count.
    assert_eq!(reserve("p", "main").await, Reserved::TooMany);
    sqlx::query("UPDATE upload SET touched = touched - ?1 WHERE ref = 'refs/heads/main'")
        .bind(i64::try_from(UPLOAD_ALIVE.as_micros()).unwrap())
        .execute(catalog.writers().unwrap())
        .await
        .unwrap();
    catalog.drop_upload(first.upload().unwrap()).await.unwrap();
    assert!(reserve("p", "main").await.upload().is_some());
}
