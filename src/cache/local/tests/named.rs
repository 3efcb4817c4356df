//! Names that look like others: nothing new, and what is there stays.

use super::*;
use crate::cache::Flush;
use crate::catalog::ledger::{Actor, Origin};
use crate::entry::EntryName;

const CYRILLIC: &str = "m\u{430}in";

fn assert_refused<T: std::fmt::Debug>(done: Result<T, CacheError>) {
    match done {
        Err(CacheError::Refused(why)) => {
            assert!(why.contains("nothing new is written to"), "{why}");
            assert!(why.contains("U+0430"), "{why}");
        }
        done => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn nothing_is_written_under_a_name_that_looks_like_another_and_nothing_half_done() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;
    for place in [place("p", CYRILLIC), place(CYRILLIC, "main")] {
        assert_refused(cache.writable(&place).await);
        assert_refused(cache.ingest(&place, "layer", None).await.map(drop));
        let digest = Digest::of(b"base");
        let ttl = std::time::Duration::from_secs(60);
        assert_refused(cache.possess(&place, digest, 4, ttl).await);
        assert_refused(cache.publish(export(place.clone(), &["base"])).await);
        let name = EntryName {
            key: "npm".parse().unwrap(),
            version: "1".parse().unwrap(),
        };
        assert_refused(cache.reserve_entry(&place, &name, true).await);
    }
    assert_eq!(problems(&dir.path().join("data")).await, (vec![], 0, 0));
}

#[tokio::test]
async fn what_stands_under_such_a_name_can_be_read_and_flushed() {
    let (_dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;
    // As an older version has written it.
    let old = export(place("p", CYRILLIC), &["base"]);
    cache.append(old).await.unwrap();
    let narrowed = Want {
        narrowed: true,
        ..want(CYRILLIC, &[])
    };
    let found = cache
        .look_up(std::slice::from_ref(&narrowed), &ALL)
        .await
        .unwrap();
    assert_eq!(found.import().unwrap().records, 1);
    let flush = Flush {
        project: "p".parse().unwrap(),
        git_ref: Some(CYRILLIC.parse().unwrap()),
        scope: None,
    };
    let origin = Origin::here(Actor::Anybody);
    assert_eq!(cache.flush(&flush, &origin).await.unwrap(), 1);
    let found = cache.look_up(&[narrowed], &ALL).await.unwrap();
    assert!(found.import().is_none());
}
