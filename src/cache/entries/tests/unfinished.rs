//! Uploads that end late, or never.

use std::time::Duration;

use super::builds::{blob, buildkit, config, index};
use super::*;
use crate::cache::retention::Limits;
use crate::cache::{Cache as _, Flush};
use crate::catalog::Entries as _;
use crate::catalog::entries::{BLOCK_PINNED, UPLOAD_ALIVE, UPLOAD_KEPT};
use crate::catalog::ledger::{Actor, Origin};

const SECOND: Duration = Duration::from_secs(1);

async fn flush(hub: &Hub, git_ref: &str) {
    let flush = Flush {
        project: project(),
        git_ref: Some(self::git_ref(git_ref)),
        scope: None,
    };
    let flushed = hub.local.flush(&flush, &Origin::here(Actor::Layerd)).await;
    flushed.unwrap();
}

fn exhausted(put: &Result<(), EntryError>) -> bool {
    let full = |error: &CacheError| {
        matches!(
            error,
            CacheError::Exhausted(_) | CacheError::Blob(crate::blobs::BlobError::Refused(_))
        )
    };
    matches!(put, Err(EntryError::Cache(error)) if full(error))
}

#[tokio::test]
async fn what_was_reserved_before_a_flush_becomes_no_entry() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let [before, beside] = [("main", "k"), ("dev", "k")];
    let late = reserved(&guard, before.0, &name(before.1)).await;
    let other = reserved(&guard, beside.0, &name(beside.1)).await;
    for id in [late, other] {
        hub.put(id, Piece::Whole, b"content").await.unwrap();
    }
    flush(&hub, "main").await;
    let refused = finalized(&guard, late, 7).await;
    let flushed = matches!(&refused, Err(EntryError::Cache(CacheError::Flushed(why))) if why.contains("flushed"));
    assert!(flushed, "{refused:?}");
    assert!(find(&hub, "main", "k").await.is_none());
    finalized(&guard, other, 7).await.unwrap();
    assert!(find(&hub, "dev", "k").await.is_some(), "it is elsewhere");
    // Its name is free, for what is new.
    save(&hub, "main", "k", b"anew").await;
    let found = find(&hub, "main", "k").await.unwrap();
    assert_eq!(hub.read(&found).await, b"anew");
}

#[tokio::test]
async fn a_build_that_began_to_save_before_a_flush_ends_well_and_leaves_nothing() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let layer = reserved(&guard, "main", &blob("one")).await;
    hub.put(layer, Piece::Whole, b"one").await.unwrap();
    finalized(&guard, layer, 3).await.unwrap();
    let document = config(&["one"]);
    let signature = buildkit("index-buildkit-1-01234567-sig#1");
    for (name, content) in [
        (index("main", "#1"), &document[..]),
        (signature, b"signature"),
    ] {
        let id = reserved(&guard, "main", &name).await;
        hub.put(id, Piece::Whole, content).await.unwrap();
        flush(&hub, "main").await;
        // Twice, as clients do that heard no answer.
        for _ in 0..2 {
            let ended = finalized(&guard, id, content.len()).await.unwrap();
            assert_eq!(ended.became, Became::Flushed, "{name:?}");
        }
    }
    assert!(lab.listed().await.is_empty());
    let id = reserved(&guard, "main", &index("main", "#1")).await;
    hub.put(id, Piece::Whole, &document).await.unwrap();
    let ended = finalized(&guard, id, document.len()).await.unwrap();
    assert!(matches!(ended.became, Became::Cache(_)), "{ended:?}");
}

#[tokio::test]
async fn what_nobody_goes_on_with_ends_within_hours_and_what_somebody_does_stays() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let abandoned = reserved(&guard, "main", &name("abandoned")).await;
    hub.put(abandoned, Piece::At(0), b"abandoned")
        .await
        .unwrap();
    let slow = reserved(&guard, "main", &name("slow")).await;
    for at in 0..6_u64 {
        let put = hub.put(slow, Piece::At(at), &[b'0' + at as u8]).await;
        put.unwrap();
        lab.passes(UPLOAD_KEPT - SECOND).await;
        hub.local.collect(&Limits::default()).await.unwrap();
    }
    let gone = hub.put(abandoned, Piece::At(9), b"more").await;
    assert!(matches!(gone, Err(EntryError::NoUpload)), "{gone:?}");
    assert_eq!(lab.stored().len(), 6, "those of the slow one");
    finalized(&guard, slow, 6).await.unwrap();
    let found = find(&hub, "main", "slow").await.unwrap();
    assert_eq!(hub.read(&found).await, b"012345");
    let last = reserved(&guard, "main", &name("last")).await;
    hub.put(last, Piece::At(0), b"last").await.unwrap();
    lab.passes(BLOCK_PINNED).await;
    hub.local.collect(&Limits::default()).await.unwrap();
    assert_eq!(lab.stored().len(), 6);
}

#[tokio::test]
async fn a_name_that_somebody_reserved_and_left_is_free_after_minutes() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let left = reserved(&guard, "main", &name("k")).await;
    let reserve = async || {
        let (project, git_ref) = (project(), git_ref("main"));
        let reserved = guard.reserve(&project, &git_ref, &name("k")).await;
        reserved.unwrap()
    };
    lab.passes(UPLOAD_ALIVE - SECOND).await;
    assert_eq!(reserve().await, Reserved::Exists);
    // Bytes on their way are a sign of life, also before a block is whole.
    assert!(lab.catalog().await.touch_upload(left).await.unwrap());
    lab.passes(UPLOAD_ALIVE - SECOND).await;
    assert_eq!(reserve().await, Reserved::Exists);
    lab.passes(SECOND).await;
    let Reserved::Upload(next) = reserve().await else {
        panic!("nobody goes on with it")
    };
    // The first to end is the one who saved.
    for id in [left, next] {
        hub.put(id, Piece::Whole, b"content").await.unwrap();
    }
    finalized(&guard, left, 7).await.unwrap();
    let late = finalized(&guard, next, 7).await;
    assert!(matches!(late, Err(EntryError::Exists)), "{late:?}");
}

#[tokio::test]
async fn chunks_that_overlap_free_their_name_at_once() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("k")).await;
    for start in [0, 5] {
        hub.put(id, Piece::At(start), b"0123456789").await.unwrap();
    }
    let refused = finalized(&guard, id, 15).await;
    assert!(matches!(refused, Err(EntryError::Invalid(_))));
    save(&hub, "main", "k", b"content").await;
}

#[tokio::test]
async fn to_end_it_once_more_with_another_size_is_refused() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = save(&hub, "main", "k", b"content").await.upload;
    let project = project();
    for which in [Which::Upload(id), Which::Named(name("k"))] {
        let same = guard.finalize(&project, &which, Some(7)).await.unwrap();
        assert_eq!(same.upload, id);
        let other = guard.finalize(&project, &which, Some(8)).await;
        let wrong = matches!(
            other,
            Err(EntryError::WrongSize {
                expected: 8,
                actual: 7
            })
        );
        assert!(wrong, "{other:?}");
    }
}

#[tokio::test]
async fn what_is_sent_again_counts_once_against_a_quota() {
    let lab = Lab::new();
    let hub = lab.hub_with_quota(100);
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("k")).await;
    for content in [[1; 60], [1; 60], [2; 60], [2; 60]] {
        hub.put(id, Piece::Whole, &content).await.unwrap();
    }
    let chunked = reserved(&guard, "main", &name("chunks")).await;
    for _ in 0..2 {
        hub.put(chunked, Piece::At(0), &[3; 30]).await.unwrap();
    }
    let full = hub.put(chunked, Piece::At(30), &[4; 30]).await;
    assert!(exhausted(&full), "{full:?}");
    finalized(&guard, id, 60).await.unwrap();
    // What the last one took the place of is gone.
    hub.local.collect(&Limits::default()).await.unwrap();
    assert_eq!(lab.stored().len(), 2);
}

#[tokio::test]
async fn what_others_upload_counts_against_a_quota_while_they_live() {
    let lab = Lab::new();
    let first = lab.hub_with_quota(100);
    let id = reserved(&first.open().await, "main", &name("k")).await;
    first.put(id, Piece::At(0), &[1; 60]).await.unwrap();
    // Another hub, or the same after a restart.
    let put = async || {
        let hub = lab.hub_with_quota(100);
        let guard = hub.open().await;
        let id = reserved(&guard, "main", &name(&format!("{}", rand::random::<u32>()))).await;
        hub.put(id, Piece::At(0), &[2; 60]).await
    };
    let full = put().await;
    assert!(exhausted(&full), "{full:?}");
    lab.passes(UPLOAD_ALIVE).await;
    put().await.unwrap();
}

#[tokio::test]
async fn what_is_being_uploaded_counts_with_all_that_is_kept() {
    let lab = Lab::new();
    let local = LocalCache::new(lab.data()).bounding_uploads(Some(100));
    let hub = Hub::over(local);
    save(&hub, "main", "old", &[1; 60]).await;
    let limits = Limits {
        max_bytes: Some(100),
        ..Limits::default()
    };
    hub.local.collect(&limits).await.unwrap();
    assert!(find(&hub, "main", "old").await.is_some(), "there is room");
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("new")).await;
    let large = hub.put(id, Piece::At(0), &[2; 101]).await;
    assert!(exhausted(&large), "{large:?}");
    hub.put(id, Piece::At(0), &[2; 60]).await.unwrap();
    hub.local.collect(&limits).await.unwrap();
    assert!(find(&hub, "main", "old").await.is_none(), "it made room");
    let other = Hub::over(LocalCache::new(lab.data()).bounding_uploads(Some(100)));
    let full = other.put(id, Piece::At(60), &[3; 60]).await;
    assert!(exhausted(&full), "{full:?}");
    finalized(&guard, id, 60).await.unwrap();
}
