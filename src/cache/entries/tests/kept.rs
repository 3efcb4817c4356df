//! What of it is kept, and what goes.

use super::*;
use crate::blobs::DiskStore;
use crate::cache::check::check;
use crate::cache::retention::{Limits, Reason};
use crate::cache::{Cache as _, Flush};
use crate::catalog::ledger::{Actor, Origin};

#[tokio::test]
async fn what_nobody_finishes_is_collected() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("k")).await;
    hub.put(id, Piece::At(0), b"abandoned").await.unwrap();
    hub.local.collect(&Limits::default()).await.unwrap();
    assert_eq!(lab.stored().len(), 1, "somebody may go on");
    lab.a_day_passes().await;
    hub.local.collect(&Limits::default()).await.unwrap();
    assert!(lab.stored().is_empty());
    let gone = finalized(&guard, id, 9).await;
    assert!(matches!(gone, Err(EntryError::NoUpload)), "{gone:?}");
    reserved(&guard, "main", &name("k")).await;
}

#[tokio::test]
async fn what_was_finished_is_kept_as_long_as_its_entry() {
    let lab = Lab::new();
    let hub = lab.hub();
    save(&hub, "main", "k", b"content").await;
    lab.a_day_passes().await;
    hub.local.collect(&Limits::default()).await.unwrap();
    let found = find(&hub, "main", "k").await.unwrap();
    assert_eq!(hub.read(&found).await, b"content");
    let catalog = lab.catalog().await;
    let disk = DiskStore::at(lab.data());
    let report = check(&disk, Some(&disk), &catalog, 1, &|_| {})
        .await
        .unwrap();
    assert_eq!(
        (report.exports, report.problems.len()),
        (1, 0),
        "{report:?}"
    );
    std::fs::remove_file(
        lab.data()
            .join("blobs/sha256")
            .join(Digest::of(b"content").hex()),
    )
    .unwrap();
    let report = check(&disk, Some(&disk), &catalog, 1, &|_| {})
        .await
        .unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
}

#[tokio::test]
async fn a_flush_takes_entries_and_leaves_them_to_who_reads() {
    let lab = Lab::new();
    let hub = lab.hub();
    save(&hub, "main", "k", b"content").await;
    save(&hub, "dev", "k", b"other").await;
    let found = find(&hub, "main", "k").await.unwrap();
    let flush = Flush {
        project: project(),
        git_ref: Some(git_ref("main")),
        scope: None,
    };
    let gone = hub.local.flush(&flush, &Origin::here(Actor::Layerd)).await;
    assert_eq!(gone.unwrap(), 1);
    assert!(find(&hub, "main", "k").await.is_none());
    assert!(find(&hub, "dev", "k").await.is_some());
    hub.local.collect(&Limits::default()).await.unwrap();
    assert_eq!(hub.read(&found).await, b"content", "it was found before");
    save(&hub, "main", "k", b"anew").await;
}

#[tokio::test]
async fn old_entries_go_for_new_ones_where_there_is_a_quota() {
    let lab = Lab::new();
    let hub = lab.hub_with_quota(100);
    let guard = hub.open().await;
    save(&hub, "main", "old", &[1; 60]).await;
    save(&hub, "main", "new", &[2; 60]).await;
    assert!(find(&hub, "main", "old").await.is_none());
    assert!(find(&hub, "main", "new").await.is_some());
    let id = reserved(&guard, "main", &name("large")).await;
    let refused = hub.put(id, Piece::Whole, &[3; 101]).await;
    assert!(
        matches!(&refused, Err(EntryError::Cache(error)) if error.to_string().contains("quota")),
        "{refused:?}"
    );
    // Blocks count once, also when they become one blob.
    let layer = [4; 90];
    let key = format!("buildkit-blob-1-{}", Digest::of(&layer));
    let name = EntryName {
        key: key.parse().unwrap(),
        version: BUILDKIT_VERSION.parse().unwrap(),
    };
    let id = reserved(&guard, "main", &name).await;
    hub.put(id, Piece::At(0), &layer[..45]).await.unwrap();
    hub.put(id, Piece::At(45), &layer[45..]).await.unwrap();
    finalized(&guard, id, 90).await.unwrap();
}

#[tokio::test]
async fn the_newest_entry_of_a_default_branch_is_no_special_case() {
    let lab = Lab::new();
    let hub = lab.hub();
    save(&hub, "main", "k", b"content").await;
    let limits = Limits {
        max_bytes: Some(0),
        ..Limits::default()
    };
    let outlook = hub.local.outlook(&limits).await.unwrap();
    assert_eq!(outlook.plan.victims.len(), 1);
    assert_eq!(outlook.plan.victims[0].reason, Reason::Size);
    hub.local.collect(&limits).await.unwrap();
    assert!(find(&hub, "main", "k").await.is_none());
}
