//! To which catalog a store belongs.

use super::*;
use crate::blobs::StoreId;
use crate::cache::retention;

/// A catalog of its own, and an engine over it and the store in `store`.
async fn over(store: &TempDir) -> (TempDir, Arc<dyn Catalog>, LocalCache) {
    let dir = TempDir::new().unwrap();
    let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
    let blobs = DiskStore::open(store.path().join("data")).await.unwrap();
    let cache = LocalCache::over(Arc::clone(&catalog), Arc::new(blobs));
    (dir, catalog, cache)
}

fn assert_foreign<T: std::fmt::Debug>(done: Result<T, CacheError>) {
    match done {
        Err(CacheError::Foreign(why)) => {
            assert!(why.contains("layerd cache fsck --adopt"), "{why}");
        }
        done => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn of_two_catalogs_on_one_store_the_second_is_refused_until_it_takes_it_over() {
    let store = TempDir::new().unwrap();
    let (_dir, _, first) = over(&store).await;
    let (_dir, _, second) = over(&store).await;
    publish(&first, place("p", "main"), &["base"]).await;
    let limits = retention::Limits::default();
    assert_foreign(second.writable(&place("p", "main")).await);
    assert_foreign(
        second
            .ingest(&place("p", "main"), "layer", None)
            .await
            .map(drop),
    );
    assert_foreign(second.collect(&limits).await);
    assert_foreign(second.remove_orphans().await);
    assert_foreign(second.bind().await);
    assert!(blob_file(&store, "base").exists());

    second.adopt().await.unwrap();
    publish(&second, place("p", "main"), &["other"]).await;
    // The first learns of it at once where it would remove something.
    assert_foreign(first.collect(&limits).await);
    assert_foreign(first.writable(&place("p", "main")).await);
    second.collect(&limits).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_binding_would_say_is_known_without_binding() {
    let store = TempDir::new().unwrap();
    let (_dir, own, first) = over(&store).await;
    let (_dir, other, second) = over(&store).await;
    let disk = DiskStore::at(store.path().join("data"));
    let id = store.path().join("data/blobs/store-id");
    let would = async |catalog: &Arc<dyn Catalog>| would_bind(&**catalog, &disk).await;
    for catalog in [&own, &other] {
        would(catalog).await.unwrap();
        assert_eq!(catalog.store().await.unwrap(), None);
        assert!(!id.exists());
    }
    publish(&first, place("p", "main"), &["base"]).await;
    would(&own).await.unwrap();
    assert_foreign(would(&other).await);
    assert_foreign(second.bind().await);
    // Of an older version.
    fs::remove_file(&id).unwrap();
    would(&own).await.unwrap();
    assert_foreign(would(&other).await);
    assert!(!id.exists());
}

#[tokio::test]
async fn two_catalogs_that_come_to_a_new_store_at_once_do_not_both_have_it() {
    for _ in 0..10 {
        let store = TempDir::new().unwrap();
        let (_one, _, first) = over(&store).await;
        let (_two, _, second) = over(&store).await;
        let (first, second) = tokio::join!(first.bind(), second.bind());
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn a_store_of_an_older_version_is_its_catalogs_and_nobody_elses() {
    let (dir, cache) = cache();
    let hub = |catalog: &Arc<dyn Catalog>| {
        LocalCache::over(
            Arc::clone(catalog),
            Arc::new(DiskStore::at(dir.path().join("data"))),
        )
    };
    publish(&cache, place("p", "main"), &["base"]).await;
    let id = dir.path().join("data/blobs/store-id");
    fs::remove_file(&id).unwrap();
    // One that has had nothing to do with it.
    let (_new, stranger, _) = over(&TempDir::new().unwrap()).await;
    assert_foreign(hub(&stranger).bind().await);
    assert!(!id.exists());
    let data = dir.path().join("data");
    let own: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(&data).await.unwrap());
    hub(&own).bind().await.unwrap();
    let there = fs::read_to_string(&id).unwrap();
    let noted: StoreId = own.store().await.unwrap().unwrap();
    assert_eq!(there.trim(), noted.to_string());

    // All that it named has gone, and a blob was left behind.
    fs::remove_file(&id).unwrap();
    let exports = own.list(&Filter::default()).await.unwrap();
    let ids: Vec<_> = exports.iter().map(|head| head.id).collect();
    own.retire(&ids).await.unwrap();
    own.purge().await.unwrap();
    assert!(blob_file(&dir, "base").exists());
    hub(&own).bind().await.unwrap();

    // What is there is none.
    fs::write(&id, "who knows").unwrap();
    let wrong = hub(&own).bind().await.unwrap_err();
    assert!(wrong.to_string().contains("which store"), "{wrong}");
    hub(&own).adopt().await.unwrap();
    hub(&own).bind().await.unwrap();
}
