//! Several hubs at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures::TryStreamExt as _;
use tokio::task::JoinSet;

use super::*;
use crate::catalog::conformance::owned;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_that_start_at_once_make_the_tables_once() {
    let url = database();
    let mut starting = JoinSet::new();
    for _ in 0..3 {
        let catalog = connect(&url);
        starting.spawn(async move {
            catalog.ready().await?;
            append(&catalog).await
        });
    }
    for appended in starting.join_all().await {
        appended.unwrap();
    }
    let heads = connect(&url).list(&Filter::default()).await.unwrap();
    assert_eq!(heads.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_misses_no_export_of_two_hubs() {
    const WRITERS: usize = 8;
    const EACH: usize = 50;
    let url = database();
    let hubs = [Arc::new(connect(&url)), Arc::new(connect(&url))];
    let left = Arc::new(AtomicUsize::new(WRITERS));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (hub, left) = (Arc::clone(&hubs[writer % 2]), Arc::clone(&left));
        writers.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..EACH {
                ids.push(append(&hub).await.unwrap());
            }
            left.fetch_sub(1, Ordering::SeqCst);
            ids
        });
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let last = left.load(Ordering::SeqCst) == 0;
        let filter = Filter {
            after,
            ..Filter::default()
        };
        let heads = hubs[0].list(&filter).await.unwrap();
        after = heads.first().map(|head| head.id).or(after);
        seen.extend(heads.iter().rev().map(|head| head.id));
        if last {
            break;
        }
    }
    let written = writers.join_all().await.into_iter();
    for ids in written.clone() {
        assert!(ids.is_sorted(), "of one writer, later means greater");
    }
    let written = BTreeSet::from_iter(written.flatten());
    assert_eq!(written.len(), WRITERS * EACH);
    // Those that appear later are never smaller.
    assert!(seen.iter().eq(written.iter()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_was_granted_keeps_what_was_in_the_log() {
    let url = database();
    let hubs = [Arc::new(connect(&url)), Arc::new(connect(&url))];
    let retiring = Arc::clone(&hubs[1]);
    let mut collector = JoinSet::new();
    let (send, mut exports) = tokio::sync::mpsc::unbounded_channel();
    collector.spawn(async move {
        while let Some(export) = exports.recv().await {
            retiring.retire(&[export]).await.unwrap();
        }
    });
    for round in 0..100 {
        let content = format!("layer {round}");
        let new = export(place("p", "main"), &[&content]);
        let id = hubs[0].append(new).await.unwrap();
        send.send(id).unwrap();
        let lease = hubs[0].take_lease(Duration::from_secs(60)).await.unwrap();
        let heads = hubs[0].list(&Filter::default()).await.unwrap();
        if heads.iter().any(|head| head.id == id) {
            // Until the other hub is through with it, and after.
            let digest = Digest::of(content.as_bytes());
            while hubs[0].get(id).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
            let held = hubs[0]
                .held(&"p".parse().unwrap(), &[digest])
                .await
                .unwrap();
            assert_eq!(held, [digest], "round {round}");
        }
        hubs[0].end_lease(lease).await.unwrap();
    }
    drop(send);
    collector.join_all().await;
    let left: Vec<_> = hubs[0].referenced().try_collect().await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_the_same_blobs_are_noted_by_many_at_once() {
    let url = database();
    let hub = Arc::new(connect(&url));
    let mut uploads = JoinSet::new();
    for writer in 0..8_usize {
        let hub = Arc::clone(&hub);
        uploads.spawn(async move {
            for _ in 0..10 {
                let mut blobs: Vec<_> = (0..200_u32)
                    .map(|at| (Digest::of(&at.to_le_bytes()), 4))
                    .collect();
                blobs.rotate_left(writer * 20);
                let ttl = Duration::from_millis(writer as u64);
                hub.possess(&"p".parse().unwrap(), &GitRef::default(), &blobs, ttl)
                    .await?;
            }
            Ok::<_, CatalogError>(())
        });
    }
    for noted in uploads.join_all().await {
        noted.unwrap();
    }
}

#[tokio::test]
async fn a_task_is_owned_by_one_hub_and_freed_with_it() {
    let url = database();
    let hubs = [connect(&url), connect(&url)];
    let first = hubs[0].try_own("collect").await.unwrap().unwrap();
    assert!(hubs[1].try_own("collect").await.unwrap().is_none());
    // Its pool has nothing to do with it.
    hubs[0].close().await;
    assert!(first.holds());
    drop(first);
    let second = owned(&hubs[1], "collect").await;
    // As when its process dies: the session ends.
    execute(
        &hubs[1],
        // Other tests have databases of their own on this server.
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    let third = connect(&url);
    let third = owned(&third, "collect").await;
    assert!(third.holds());
    second.lost().await;
    assert!(!second.holds());
}
