//! What is kept for exports that are not there yet, and what can't be removed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::collect::{collect, hexes, settled, stored, with_quota};
use super::*;
use crate::cache::collecting;
use crate::cache::quotas::Quotas;
use crate::cache::retention::{Limits as Kept, ProjectLimits};

/// An export of what was uploaded for it.
async fn ready(cache: &LocalCache, place: Place, layers: &[&str]) -> Publication {
    let mut publication = export(place.clone(), layers);
    for content in layers {
        let uploaded = upload(cache, place.project.as_str(), content).await;
        publication.uploaded.insert(uploaded);
    }
    publication
}

#[tokio::test]
async fn a_refused_export_takes_nothing_from_others_of_its_process() {
    let (dir, cache) = with_quota(20);
    publish(&cache, place("p", "main"), &["default branch 16"]).await;
    let refused = ready(&cache, place("p", "dev"), &["shared"]).await;
    let same = ready(&cache, place("p", "main"), &["shared"]).await;
    let other = ready(&cache, place("q", "main"), &["shared"]).await;
    let error = cache.publish(refused).await.unwrap_err();
    assert!(matches!(error, CacheError::Exhausted(_)), "{error}");
    collect(&cache, &Kept::default()).await;
    assert!(stored(&dir).is_superset(&hexes(&["shared"])));
    drop(same);
    cache.publish(other).await.unwrap();
}

#[tokio::test]
async fn an_export_that_makes_room_holds_no_other_projects_up() {
    let (_dir, cache) = cache();
    let limits = ProjectLimits {
        max_bytes: Some(100),
        max_age: None,
    };
    let projects = ["p", "q"].map(|project| (project.parse().unwrap(), limits));
    let metrics = collecting::Metrics::default();
    let cache = cache.keeping(Quotas(BTreeMap::from(projects)), Vec::new(), metrics);
    let opened = cache.opener.opened().await.unwrap();
    let sizes = BTreeMap::from([(Digest::of(b"layer"), 5)]);
    let room = async |project| {
        cache
            .make_room(&opened, &place(project, "main"), &sizes)
            .await
    };
    let held = room("p").await.unwrap();
    assert!(room("q").await.unwrap().is_some());
    let mut next = Box::pin(room("p"));
    tokio::select! {
        biased;
        _ = &mut next => panic!("it has its turn already"),
        () = tokio::task::yield_now() => {}
    }
    drop(held);
    assert!(next.await.unwrap().is_some());
}

#[tokio::test]
async fn of_two_that_uploaded_the_same_the_second_has_it_though_the_first_has_gone() {
    let (dir, cache) = cache();
    let first = ready(&cache, place("p", "main"), &["shared"]).await;
    let second = ready(&cache, place("p", "main"), &["shared"]).await;
    cache.publish(first).await.unwrap();
    let none = Kept {
        max_bytes: Some(0),
        ..Kept::default()
    };
    collect(&cache, &none).await;
    assert_eq!(stored(&dir), hexes(&["shared"]));
    cache.publish(second).await.unwrap();
    collect(&cache, &none).await;
    assert_eq!(stored(&dir), BTreeSet::new());
}

#[tokio::test]
async fn an_export_that_misses_something_names_nothing_and_keeps_what_it_uploaded() {
    let (dir, cache) = cache();
    let mut publication = ready(&cache, place("p", "main"), &["there"]).await;
    let there = std::mem::take(&mut publication.uploaded);
    publication = export(place("p", "main"), &["there", "absent"]);
    publication.uploaded = there;
    let error = cache.publish(publication.clone()).await.unwrap_err();
    assert!(matches!(error, CacheError::Missing(_)), "{error}");
    settled(&cache).await;
    let opened = cache.opener.opened().await.unwrap();
    let absent = [Digest::of(b"absent")];
    let unnamed = opened.catalog.nominate(&absent, Duration::ZERO).await;
    assert_eq!(unnamed.unwrap(), absent);
    collect(&cache, &Kept::default()).await;
    assert_eq!(stored(&dir), hexes(&["there"]));
    publication
        .uploaded
        .insert(upload(&cache, "p", "absent").await);
    cache.publish(publication).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_removed_holds_no_others_up() {
    // More than a sweep tries of such.
    const STUCK: u64 = 1100;
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["layer"]).await;
    settled(&cache).await;
    let opened = cache.opener.opened().await.unwrap();
    let blobs = dir.path().join("data/blobs/sha256");
    let stuck: BTreeMap<Digest, ()> = (0..STUCK)
        .map(|number| (Digest::of(&number.to_be_bytes()), ()))
        .collect();
    let stuck: Vec<Digest> = stuck.into_keys().collect();
    for digest in &stuck {
        fs::create_dir(blobs.join(digest.hex())).unwrap();
    }
    opened
        .catalog
        .nominate(&stuck, Duration::ZERO)
        .await
        .unwrap();
    fs::write(blob_file(&dir, "orphan"), "orphan").unwrap();
    let orphan = [Digest::of(b"orphan")];
    opened
        .catalog
        .nominate(&orphan, Duration::from_millis(1))
        .await
        .unwrap();
    let mut removed = 0;
    for _ in 0..2 {
        removed += collect(&cache, &Kept::default()).await.swept.blobs;
    }
    assert_eq!(removed, 1);
    assert!(!blob_file(&dir, "orphan").exists());
}
