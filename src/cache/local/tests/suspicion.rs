//! Blobs that are looked at again because one was found wrong.

use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::blobs::{Origin, Tier, TierMetrics, TierOptions, TieredBlobs};

/// A store whose reads give nothing until they are let go.
struct Held {
    store: Arc<dyn BlobStore>,
    asked: watch::Sender<u64>,
    open: watch::Sender<bool>,
}

#[async_trait]
impl Origin for Held {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.size(digest).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, BlobError> {
        self.asked.send_modify(|asked| *asked += 1);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        self.store.read(digest, offset, length).await
    }
}

#[tokio::test]
async fn a_look_up_that_hashes_holds_no_other_up() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::open(dir.path().join("store")).await.unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(store);
    let front = DiskStore::open(dir.path().join("front")).await.unwrap();
    let held = Arc::new(Held {
        store: Arc::clone(&store),
        asked: watch::Sender::new(0),
        open: watch::Sender::new(false),
    });
    let origin: Arc<dyn Origin> = held.clone();
    let options = TierOptions::default();
    let tier = Tier::open(front, origin, options, TierMetrics::default()).await;
    let catalog = SqliteCatalog::open(&dir.path().join("store")).await;
    let blobs = Arc::new(TieredBlobs::new(tier, store));
    let cache = Arc::new(LocalCache::over(Arc::new(catalog.unwrap()), blobs));
    let id = publish(&cache, place("p", "main"), &["a layer"]).await;

    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        cache.verified.suspect();
        let first = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.look_up(&[want("main", &[])], &ALL).await })
        };
        let mut asked = held.asked.subscribe();
        asked.wait_for(|asked| *asked > 0).await.unwrap();
        let second = cache.look_up(&[want("main", &[])], &ALL).await;
        assert_eq!(second.unwrap().import().unwrap().export, Some(id));
        let met = !first.is_finished();
        assert_eq!(
            first.await.unwrap().unwrap().import().unwrap().export,
            Some(id)
        );
        // The first hashes for a while only: on a slow machine it may be over.
        if met {
            break;
        }
        assert!(Instant::now() < deadline, "the second waits for the first");
    }
    held.open.send_replace(true);
}
