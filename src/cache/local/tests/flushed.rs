//! What is told where something was flushed.

use super::*;
use crate::catalog::ledger::{Actor, Origin};
use crate::moment::Moment;

async fn flush(cache: &LocalCache, git_ref: Option<&str>, subject: &str) -> u64 {
    let flush = Flush {
        project: "p".parse().unwrap(),
        git_ref: git_ref.map(|git_ref| git_ref.parse().unwrap()),
        scope: None,
    };
    let actor = Actor::Token {
        subject: subject.to_owned(),
        id: "1".to_owned(),
    };
    cache.flush(&flush, &Origin::here(actor)).await.unwrap()
}

/// Who has flushed what the want would see.
async fn told(cache: &LocalCache, want: Want) -> Option<String> {
    match cache.look_up(&[want], &ALL).await.unwrap() {
        LookedUp::Import(_) => panic!("there is something"),
        LookedUp::Nothing(flushed) => flushed.map(|flushed| flushed.by),
    }
}

#[tokio::test]
async fn a_flush_is_told_to_those_who_would_have_seen_what_went() {
    let (_dir, cache) = cache();
    assert_eq!(told(&cache, want("main", &[])).await, None);
    publish(&cache, place("p", "main"), &["base"]).await;
    assert_eq!(flush(&cache, Some("main"), "alice").await, 1);
    let by_alice = Some("alice".to_owned());
    assert_eq!(told(&cache, want("main", &[])).await, by_alice);
    assert_eq!(told(&cache, want("dev", &["main"])).await, by_alice);
    let narrow = |git_ref: &str, fallbacks: &[&str]| Want {
        narrowed: true,
        ..want(git_ref, fallbacks)
    };
    assert_eq!(told(&cache, narrow("dev", &["main"])).await, by_alice);
    assert_eq!(told(&cache, narrow("dev", &[])).await, None);
    let readable = Want {
        readable: Some(vec!["dev".parse().unwrap()]),
        ..want("main", &["main"])
    };
    assert_eq!(told(&cache, readable).await, None, "it may not know");
    let mut other = want("main", &[]);
    other.place.project = "q".parse().unwrap();
    assert_eq!(told(&cache, other).await, None);

    publish(&cache, place("p", "main"), &["base"]).await;
    assert!(found(&cache, &[want("main", &[])]).await.is_some());
    assert_eq!(flush(&cache, None, "bob").await, 1);
    let by_bob = Some("bob".to_owned());
    assert_eq!(told(&cache, want("main", &[])).await, by_bob);
    assert_eq!(told(&cache, narrow("dev", &[])).await, by_bob);
}

/// Who has flushed what could be in what the want gets.
async fn told_beside(cache: &LocalCache, want: Want) -> Option<String> {
    match cache.look_up(&[want], &ALL).await.unwrap() {
        LookedUp::Import(import) => import.flushed.map(|flushed| flushed.by),
        LookedUp::Nothing(_) => panic!("there is nothing"),
    }
}

#[tokio::test]
async fn who_gets_the_cache_of_another_ref_is_told_of_a_flush_until_that_place_is_written() {
    let (_dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;
    publish(&cache, place("p", "dev"), &["base"]).await;
    assert_eq!(told_beside(&cache, want("main", &[])).await, None);
    assert_eq!(flush(&cache, Some("main"), "alice").await, 1);
    let by_alice = Some("alice".to_owned());
    for git_ref in ["main", "dev", "topic"] {
        assert_eq!(told_beside(&cache, want(git_ref, &[])).await, by_alice);
    }
    let narrow = Want {
        narrowed: true,
        ..want("dev", &[])
    };
    assert_eq!(told_beside(&cache, narrow).await, None);
    let readable = Want {
        readable: Some(vec!["refs/heads/dev".parse().unwrap()]),
        ..want("dev", &["main"])
    };
    assert_eq!(told_beside(&cache, readable).await, None, "it may not know");
    publish(&cache, place("p", "dev"), &["base"]).await;
    assert_eq!(told_beside(&cache, want("dev", &[])).await, by_alice);
    publish(&cache, place("p", "main"), &["base"]).await;
    for git_ref in ["main", "dev", "topic"] {
        assert_eq!(told_beside(&cache, want(git_ref, &[])).await, None);
    }
    // One that took nothing cost nobody anything.
    assert_eq!(flush(&cache, Some("other"), "bob").await, 0);
    assert_eq!(told_beside(&cache, want("main", &[])).await, None);
}

#[tokio::test]
async fn what_was_flushed_does_not_come_back_by_a_build_that_began_before() {
    let (_dir, cache) = cache();
    let began = |git_ref: &str, began: Moment| {
        let mut publication = export(place("p", git_ref), &["base"]);
        publication.began = Some(began);
        publication
    };
    publish(&cache, place("p", "main"), &["base"]).await;
    publish(&cache, place("p", "dev"), &["base"]).await;
    let before = Moment::now();
    cache.publish(began("main", before)).await.unwrap();
    flush(&cache, Some("main"), "alice").await;
    let refused = cache.publish(began("main", before)).await.unwrap_err();
    assert!(matches!(refused, CacheError::Flushed(_)), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        "refs/heads/main of project p was flushed just now by alice, after this build began: \
         its export would bring that back"
    );
    let only = Want {
        narrowed: true,
        ..want("main", &[])
    };
    assert_eq!(told(&cache, only).await, Some("alice".to_owned()));
    cache.publish(began("dev", before)).await.unwrap();
    cache.publish(began("main", Moment::now())).await.unwrap();
    // A client of an earlier version says nothing.
    cache
        .publish(export(place("p", "main"), &["base"]))
        .await
        .unwrap();
}
