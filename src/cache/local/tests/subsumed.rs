//! What leaves the log for a newer export.

use std::time::Duration;

use super::*;
use crate::catalog::Filter;

/// The log, once all publications were compared.
async fn log(cache: &LocalCache) -> Vec<ExportId> {
    cache.subsuming.settled().await;
    let opened = cache.opener.opened().await.unwrap();
    let heads = opened.catalog.list(&Filter::default()).await.unwrap();
    heads.into_iter().map(|head| head.id).collect()
}

#[tokio::test]
async fn of_the_same_export_again_and_again_the_newest_is_left() {
    let (_dir, cache) = cache();
    let subsumed = Subsumed::default();
    let cache = cache.counting(subsumed.clone());
    let mut newest = ExportId(0);
    for _ in 0..4 {
        newest = publish(&cache, place("p", "main"), &["base", "top"]).await;
    }
    assert_eq!(log(&cache).await, [newest]);
    assert_eq!(subsumed.count(), 3);
    assert_eq!(found(&cache, &[want("main", &[])]).await, Some(newest));
}

#[tokio::test]
async fn an_export_of_another_place_or_with_more_in_it_stays() {
    let (_dir, cache) = cache();
    let mut all = Vec::new();
    for (place, layers) in [
        (place("p", "main"), &["base", "top"][..]),
        (place("p", "dev"), &["base", "top"]),
        (place("q", "main"), &["base", "top"]),
        (place("p", "main"), &["base", "other"]),
        (place("p", "main"), &["base"]),
    ] {
        all.insert(0, publish(&cache, place, layers).await);
    }
    assert_eq!(log(&cache).await, all);
    let whole = publish(&cache, place("p", "main"), &["base", "top", "more"]).await;
    let [base, other, q, dev, _] = all[..] else {
        unreachable!()
    };
    assert_eq!(log(&cache).await, [whole, other, q, dev]);
    assert!(base < whole);
}

#[tokio::test]
async fn an_export_that_has_lost_a_layer_takes_no_others_place() {
    let (dir, cache) = cache();
    let first = publish(&cache, place("p", "main"), &["base"]).await;
    let second = publish(&cache, place("p", "dev"), &["base", "top"]).await;
    assert_eq!(log(&cache).await, [second, first]);
    let opened = cache.opener.opened().await.unwrap();
    let newer = opened.catalog.get(second).await.unwrap().unwrap();
    let moved = crate::catalog::NewExport {
        place: place("p", "main"),
        time: newer.head.time,
        builder: newer.head.builder,
        records: newer.head.records,
        config: newer.config,
        layers: newer.layers,
        steps: newer.steps,
        began: None,
    };
    fs::remove_file(blob_file(&dir, "top")).unwrap();
    let third = opened.catalog.append(moved).await.unwrap();
    let compare = || {
        let opened = Arc::clone(&opened);
        cache.subsuming.begin(opened, place("p", "main"), third);
    };
    compare();
    assert_eq!(log(&cache).await, [third, second, first]);
    upload(&cache, "p", "top").await;
    compare();
    assert_eq!(log(&cache).await, [third, second]);
}

#[tokio::test]
async fn writers_of_one_place_at_once_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let caches: Vec<LocalCache> = (0..4)
        .map(|_| LocalCache::new(dir.path().join("data")))
        .collect();
    let contents = ["a", "b", "c", "d"];
    let writing = (0..4).map(async |writer| {
        for round in 1..=4 {
            publish(&caches[writer], place("p", "main"), &contents[..round]).await;
        }
    });
    futures::future::join_all(writing).await;
    let mut left = Vec::new();
    for cache in &caches {
        left = log(cache).await;
    }
    assert!(!left.is_empty());
    assert_eq!(
        seen(&caches[0], &[want("main", &[])], &contents).await,
        "abcd"
    );
    // The next one settles what was compared too early.
    let last = publish(&caches[0], place("p", "main"), &contents).await;
    assert_eq!(log(&caches[0]).await, [last]);
}

#[tokio::test]
async fn a_blob_that_a_running_export_was_told_of_stays_held() {
    let (_dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;
    let lease = cache.lease().await;
    let base = Digest::of(b"base");
    assert!(
        cache
            .holds(&place("p", "main"), &base)
            .await
            .unwrap()
            .is_some()
    );
    let opened = cache.opener.opened().await.unwrap();
    let first = opened.catalog.list(&Filter::default()).await.unwrap();
    opened.catalog.retire(&[first[0].id]).await.unwrap();
    let told = export(place("p", "dev"), &["base"]);
    cache.publish(told).await.unwrap();
    drop(lease);
}

impl Subsuming {
    /// When nothing is left to be compared.
    async fn settled(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let left = || {
            let mut running = self.running();
            while running.try_join_next().is_some() {}
            running.len()
        };
        while left() > 0 {
            assert!(Instant::now() < deadline, "still comparing");
            tokio::task::yield_now().await;
        }
    }
}
