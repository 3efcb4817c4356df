//! A store with a disk in front of it.

use super::*;
use crate::blobs::{StoreOrigin, Tier, TierMetrics, TierOptions, TieredBlobs};

#[tokio::test]
async fn a_copy_that_has_rotted_costs_no_blob() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::open(dir.path().join("store")).await.unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(store);
    let front = DiskStore::open(dir.path().join("front")).await.unwrap();
    let origin = Arc::new(StoreOrigin(Arc::clone(&store)));
    let metrics = TierMetrics::default();
    let tier = Tier::open(front, origin, TierOptions::default(), metrics).await;
    let tiered = Arc::new(TieredBlobs::new(tier.clone(), Arc::clone(&store)));
    let catalog = SqliteCatalog::open(&dir.path().join("store")).await;
    let cache = LocalCache::over(Arc::new(catalog.unwrap()), tiered);
    let blob = upload(&cache, "p", "a layer").await;
    for rotten in ["A layer", "a lay"] {
        tier.fetch(&blob).await.unwrap();
        let copy = dir.path().join("front/blobs/sha256").join(blob.hex());
        std::fs::remove_file(&copy).unwrap();
        std::fs::write(&copy, rotten).unwrap();
        assert!(!cache.doubt(&blob).await.unwrap(), "{rotten}");
        assert_eq!(store.size(&blob).await.unwrap(), Some(7), "{rotten}");
    }
    // One that has rotted in the store itself is withdrawn.
    tier.remove(&blob).await.unwrap();
    let file = dir.path().join("store/blobs/sha256").join(blob.hex());
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "A layer").unwrap();
    assert!(cache.doubt(&blob).await.unwrap());
    assert_eq!(store.size(&blob).await.unwrap(), None);
}
