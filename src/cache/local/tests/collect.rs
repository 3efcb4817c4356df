//! What is kept no longer goes, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::cache::check::Report;
use crate::cache::collecting;
use crate::cache::quotas::Quotas;
use crate::cache::repair::repair;
use crate::cache::retention::{Limits as Kept, ProjectLimits, Reason};
use crate::catalog::{KeptFilter, PinHolder};

/// The files of all blobs.
pub(super) fn stored(dir: &TempDir) -> BTreeSet<String> {
    let files = fs::read_dir(dir.path().join("data/blobs/sha256")).unwrap();
    let names = files.map(|file| file.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

pub(super) fn hexes(contents: &[&str]) -> BTreeSet<String> {
    let digests = contents
        .iter()
        .map(|content| Digest::of(content.as_bytes()));
    digests.map(|digest| digest.hex()).collect()
}

pub(super) async fn settled(cache: &LocalCache) {
    loop {
        let next = std::mem::take(&mut *cache.subsuming.running());
        if next.is_empty() {
            return;
        }
        next.join_all().await;
    }
}

pub(super) async fn collect(cache: &LocalCache, limits: &Kept) -> Collected {
    settled(cache).await;
    cache
        .collect(limits)
        .await
        .unwrap()
        .expect("nobody else does")
}

fn limited(bytes: u64) -> Kept {
    Kept {
        max_bytes: Some(bytes),
        ..Kept::default()
    }
}

pub(super) fn with_quota(bytes: u64) -> (TempDir, LocalCache) {
    with_quota_and(bytes, "main")
}

/// Where `keep` is the default branch.
fn with_quota_and(bytes: u64, keep: &str) -> (TempDir, LocalCache) {
    let (dir, cache) = cache();
    let limits = ProjectLimits {
        max_bytes: Some(bytes),
        max_age: None,
    };
    let quotas = Quotas(BTreeMap::from([("p".parse().unwrap(), limits)]));
    let keep = vec![keep.parse().unwrap()];
    let cache = cache.keeping(quotas, keep, collecting::Metrics::default());
    (dir, cache)
}

#[tokio::test]
async fn what_goes_leaves_the_log_and_its_blobs_the_store() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "old"), &["shared", "first"]).await;
    let kept = publish(&cache, place("p", "new"), &["shared", "second"]).await;
    let outlook = cache.outlook(&limited(12)).await.unwrap();
    assert_eq!(outlook.plan.victims.len(), 1);
    let victim = &outlook.plan.victims[0];
    assert_eq!((victim.reason, victim.frees), (Reason::Size, 5));
    assert_eq!(stored(&dir).len(), 3, "that was only asked");
    let collected = collect(&cache, &limited(12)).await;
    assert_eq!((collected.swept.blobs, collected.swept.bytes), (1, 5));
    assert_eq!(collected.plan, outlook.plan);
    assert_eq!(stored(&dir), hexes(&["shared", "second"]));
    assert_eq!(found(&cache, &[want("old", &[])]).await, Some(kept));
    assert_eq!(collect(&cache, &limited(12)).await.swept.blobs, 0);
}

#[tokio::test]
async fn what_an_import_named_is_there_until_it_is_dropped() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["first", "second"]).await;
    let import = cache
        .look_up(&[want("main", &[])], &ALL)
        .await
        .unwrap()
        .import()
        .unwrap();
    assert_eq!(collect(&cache, &limited(0)).await.plan.victims.len(), 1);
    for digest in import.layers.keys() {
        let bytes = cache.read(digest, 0, u64::MAX).await.unwrap();
        bytes.try_collect::<Vec<_>>().await.unwrap();
    }
    assert!(
        cache
            .look_up(&[want("main", &[])], &ALL)
            .await
            .unwrap()
            .import()
            .is_none()
    );
    drop(import);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !stored(&dir).is_empty() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it is kept for nobody"
        );
        collect(&cache, &limited(0)).await;
    }
}

#[tokio::test]
async fn an_upload_is_kept_for_its_export_and_goes_with_it() {
    let (dir, cache) = cache();
    let mut publication = export(place("p", "main"), &["layer"]);
    publication
        .uploaded
        .insert(upload(&cache, "p", "layer").await);
    collect(&cache, &limited(0)).await;
    cache.remove_orphans().await.unwrap().unwrap();
    assert_eq!(stored(&dir), hexes(&["layer"]));
    cache.publish(publication).await.unwrap();
    collect(&cache, &limited(0)).await;
    assert_eq!(stored(&dir), BTreeSet::new());
}

#[tokio::test]
async fn what_nothing_ever_named_is_found_in_the_store() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["layer"]).await;
    settled(&cache).await;
    fs::write(blob_file(&dir, "orphan"), "orphan").unwrap();
    collect(&cache, &Kept::default()).await;
    let nominated = cache.nominate_orphans().await.unwrap();
    assert_eq!((nominated.found.blobs, nominated.removed.blobs), (1, 0));
    collect(&cache, &Kept::default()).await;
    assert_eq!(
        stored(&dir).len(),
        2,
        "an older layerd may be about to name it"
    );
    let orphans = cache.remove_orphans().await.unwrap().unwrap();
    assert_eq!((orphans.found.bytes, orphans.removed.bytes), (6, 6));
    assert_eq!(stored(&dir), hexes(&["layer"]));
}

#[tokio::test]
async fn one_collects_at_a_time() {
    let (_dir, cache) = cache();
    publish(&cache, place("p", "main"), &["layer"]).await;
    settled(&cache).await;
    let opened = cache.opener.opened().await.unwrap();
    let owned = opened.catalog.try_own("collect").await.unwrap();
    assert!(cache.collect(&Kept::default()).await.unwrap().is_none());
    assert!(cache.remove_orphans().await.unwrap().is_none());
    drop(owned);
    assert!(cache.collect(&Kept::default()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_blob_that_is_being_removed_is_stored_when_it_is_gone() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["other"]).await;
    let blob = [Digest::of(b"layer")];
    let opened = cache.opener.opened().await.unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(opened.catalog.condemn(&blob, hour).await.unwrap(), blob);
    let mut uploading = Box::pin(upload(&cache, "p", "layer"));
    let waiting = async {
        // The pin is there before it waits.
        let other = PinHolder::random();
        while opened
            .catalog
            .nominate(&blob, hour)
            .await
            .unwrap()
            .contains(&blob[0])
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(opened.catalog.pin(other, &blob, hour).await.unwrap(), blob);
    };
    tokio::select! {
        _ = &mut uploading => panic!("it waits"),
        () = waiting => {}
    }
    assert_eq!(stored(&dir), hexes(&["other"]));
    opened.catalog.acquit(&blob).await.unwrap();
    uploading.await;
    assert_eq!(stored(&dir), hexes(&["other", "layer"]));
}

#[tokio::test]
async fn what_is_read_or_hit_is_young_again() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "dev"), &["read"]).await;
    publish(&cache, place("p", "main"), &["hit"]).await;
    settled(&cache).await;
    let opened = cache.opener.opened().await.unwrap();
    let all = KeptFilter {
        limit: 9,
        ..KeptFilter::default()
    };
    let used = async || {
        let all = opened.catalog.kept(&all).await.unwrap();
        all.iter()
            .map(|export| export.used.is_some())
            .collect::<Vec<_>>()
    };
    // As if both had been written long ago.
    let file = SqliteCatalog::path(&dir.path().join("data"));
    let database = sqlx::sqlite::SqlitePool::connect(file.to_str().unwrap())
        .await
        .unwrap();
    sqlx::query("UPDATE export SET time = 1")
        .execute(&database)
        .await
        .unwrap();
    database.close().await;
    let blob = Digest::of(b"read");
    drop(cache.read(&blob, 0, 1).await.unwrap());
    cache.note_uses().await.unwrap();
    assert_eq!(used().await, [true, false]);
    let saving = Saving {
        project: "p".parse().unwrap(),
        git_ref: "refs/pull/1/merge".parse().unwrap(),
        day: jiff::civil::date(2026, 11, 22),
        builds: 1,
        steps: 2,
        cached: 0,
        saved_ms: 0,
        estimated_ms: 0,
    };
    cache.report(&saving).await.unwrap();
    cache.note_uses().await.unwrap();
    assert_eq!(used().await, [true, false], "it had no hit");
    cache
        .report(&Saving {
            cached: 1,
            ..saving
        })
        .await
        .unwrap();
    cache.note_uses().await.unwrap();
    assert_eq!(used().await, [true, true]);
}

#[tokio::test]
async fn older_exports_make_room_in_a_quota_and_what_never_fits_is_refused() {
    let (dir, cache) = with_quota(12);
    let first = publish(&cache, place("p", "dev"), &["123456"]).await;
    let second = publish(&cache, place("p", "dev"), &["abcdef"]).await;
    let opened = cache.opener.opened().await.unwrap();
    assert!(opened.catalog.get(first).await.unwrap().is_some());
    publish(&cache, place("p", "dev"), &["x"]).await;
    assert!(opened.catalog.get(first).await.unwrap().is_none());
    assert!(opened.catalog.get(second).await.unwrap().is_some());
    publish(&cache, place("q", "dev"), &["another project has no quota"]).await;

    let mut ingest = cache
        .ingest(&place("p", "dev"), "large", None)
        .await
        .unwrap();
    let refused = ingest.write(Bytes::from_static(b"1234567890abc")).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.starts_with("project p is at its quota of 12 B: "),
        "{text}"
    );
    ingest.abort().await.unwrap();
    assert_eq!(cache.watch.metrics.refusals(), 1);

    // The newest of a default branch goes for no other.
    publish(&cache, place("p", "main"), &["main branch"]).await;
    let mut publication = export(place("p", "dev"), &["two"]);
    publication
        .uploaded
        .insert(upload(&cache, "p", "two").await);
    let refused = cache.publish(publication).await.unwrap_err();
    assert!(matches!(refused, CacheError::Exhausted(_)), "{refused}");
    let kept = found(&cache, &[want("main", &[])]).await;
    assert!(kept.is_some());
    collect(&cache, &Kept::default()).await;
    let left = hexes(&["main branch", "x", "another project has no quota"]);
    assert_eq!(stored(&dir), left);
}

#[tokio::test]
async fn uploads_that_came_to_nothing_keep_no_smaller_export_out_nor_one_of_another_ref() {
    let (_dir, cache) = with_quota(12);
    for content in ["12345", "67890"] {
        upload(&cache, "p", content).await;
    }
    let mut ingest = cache
        .ingest(&place("p", "main"), "third", None)
        .await
        .unwrap();
    ingest
        .write(Bytes::from_static(b"abcde"))
        .await
        .unwrap_err();
    ingest.abort().await.unwrap();
    publish(&cache, place("p", "main"), &["abcdefgh"]).await;
    for content in ["54321", "09876"] {
        upload_to(&cache, place("p", "dev"), content).await;
    }
    publish(&cache, place("p", "main"), &["main branch"]).await;
}

#[tokio::test]
async fn a_quota_of_nothing_takes_nothing() {
    let (_dir, cache) = with_quota(0);
    let refused = cache.writable(&place("p", "main")).await.unwrap_err();
    assert!(refused.to_string().contains("quota"), "{refused}");
    cache.writable(&place("q", "main")).await.unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_sound_after_a_repair() {
    let (dir, cache) = cache();
    for content in ["rotten", "missing", "short", "sound"] {
        publish(&cache, place("p", content), &[content]).await;
    }
    settled(&cache).await;
    fs::write(blob_file(&dir, "rotten"), "ROTTEN").unwrap();
    fs::write(blob_file(&dir, "short"), "sh").unwrap();
    fs::remove_file(blob_file(&dir, "missing")).unwrap();
    fs::write(blob_file(&dir, "orphan"), "orphan").unwrap();
    fs::write(dir.path().join("data/ingest/left"), "half").unwrap();
    let data = dir.path().join("data");
    let disk = DiskStore::at(&data);
    let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(&data).await.unwrap());
    let blobs: Arc<dyn BlobStore> = Arc::new(disk.clone());
    let checked = async || -> Report {
        let checking = check(&disk, Some(&disk), &*catalog, 2, &|_| ());
        checking.await.unwrap()
    };
    let report = checked().await;
    assert_eq!(report.problems.len(), 3, "{report:?}");
    let repairs = repair(&catalog, &blobs, Some(&disk), &report)
        .await
        .unwrap();
    assert_eq!(repairs.retired.len(), 3, "{repairs:?}");
    assert_eq!(repairs.orphans.blobs, 1, "{repairs:?}");
    assert_eq!((repairs.uploads, repairs.left.len()), (1, 0));
    let report = checked().await;
    assert_eq!((report.problems.len(), report.unreferenced.len()), (0, 0));
    assert_eq!((report.exports, report.stale_ingests.len()), (1, 0));
    assert_eq!(stored(&dir), hexes(&["sound"]));
}

#[tokio::test]
async fn the_newest_export_of_the_default_branch_that_was_configured_stays() {
    let (_dir, cache) = with_quota_and(12, "trunk");
    let kept = publish(&cache, place("p", "trunk"), &["trunk"]).await;
    let goes = publish(&cache, place("p", "main"), &["main"]).await;
    publish(&cache, place("p", "dev"), &["abcdef"]).await;
    let opened = cache.opener.opened().await.unwrap();
    assert!(opened.catalog.get(kept).await.unwrap().is_some());
    assert!(opened.catalog.get(goes).await.unwrap().is_none());
}

#[tokio::test]
async fn a_store_that_is_not_the_one_of_the_log_is_left_alone() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["layer"]).await;
    settled(&cache).await;
    let own = cache.opener.opened().await.unwrap();
    let elsewhere = TempDir::new().unwrap();
    let none: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(elsewhere.path()).await.unwrap());
    let absent: Arc<dyn BlobStore> = Arc::new(DiskStore::at(elsewhere.path().join("absent")));
    let empty = DiskStore::open(elsewhere.path().join("empty")).await;
    let empty: Arc<dyn BlobStore> = Arc::new(empty.unwrap());
    for (catalog, blobs) in [
        (&none, &own.blobs),
        (&own.catalog, &absent),
        (&own.catalog, &empty),
    ] {
        let report = check(&**blobs, None, &**catalog, 2, &|_| ()).await.unwrap();
        repair(catalog, blobs, None, &report).await.unwrap_err();
        let slip = LocalCache::over(Arc::clone(catalog), Arc::clone(blobs));
        match slip.remove_orphans().await {
            Ok(orphans) => assert_eq!(orphans.unwrap(), Orphans::default()),
            Err(error) => assert!(matches!(error, CacheError::Foreign(_)), "{error}"),
        }
    }
    assert_eq!(stored(&dir), hexes(&["layer"]));
    assert!(found(&cache, &[want("main", &[])]).await.is_some());
}

#[tokio::test]
async fn a_blob_that_was_mended_since_the_check_stays() {
    let (dir, cache) = cache();
    for content in ["rotten", "missing", "short", "sound"] {
        publish(&cache, place("p", content), &[content]).await;
    }
    settled(&cache).await;
    fs::write(blob_file(&dir, "rotten"), "ROTTEN").unwrap();
    fs::write(blob_file(&dir, "short"), "sh").unwrap();
    fs::remove_file(blob_file(&dir, "missing")).unwrap();
    let opened = cache.opener.opened().await.unwrap();
    let (catalog, blobs) = (&opened.catalog, &opened.blobs);
    let report = check(&**blobs, None, &**catalog, 2, &|_| ()).await.unwrap();
    assert_eq!(report.problems.len(), 3, "{report:?}");
    for content in ["rotten", "missing", "short"] {
        fs::write(blob_file(&dir, content), content).unwrap();
    }
    let repairs = repair(catalog, blobs, None, &report).await.unwrap();
    assert_eq!(repairs, Default::default());
    assert_eq!(stored(&dir).len(), 4);
}
