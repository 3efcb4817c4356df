//! Many who save at once, and what was saved twice.

use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::ask::{Ask, VERSION};
use crate::harness::{Lab, Metrics};
use crate::hub::noise;

const SAVERS: u64 = 32;
const KEYS: u64 = 5;

/// Saves in blocks; whether it was the one whose bytes count.
async fn save(ask: &Ask, key: &str, content: Bytes) -> bool {
    let created = ask.create(key, VERSION).await;
    if created.status == 409 {
        assert_eq!(created.json()["code"], "already_exists");
        return false;
    }
    let url = created.is(200).json()["signed_upload_url"]
        .as_str()
        .unwrap()
        .to_owned();
    let blocks: Vec<Bytes> = content
        .chunks(9000)
        .map(|at| content.slice_ref(at))
        .collect();
    let names: Vec<String> = (0..blocks.len()).map(|block| block.to_string()).collect();
    let putting = names.iter().zip(blocks).rev();
    let putting = putting.map(|(name, block)| ask.put_block(&url, name, block));
    for put in join_all(putting).await {
        put.is(201);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ask.put_list(&url, &names).await.is(201);
    let ended = ask.finalize(key, VERSION, content.len()).await;
    match ended.status {
        409 => false,
        _ => ended.is(200).json()["ok"] == true,
    }
}

#[tokio::test]
async fn of_many_savers_of_a_key_one_wins_and_the_others_are_told() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    let mut chance = StdRng::seed_from_u64(seed);
    let jobs: Vec<(String, Bytes)> = (0..SAVERS)
        .map(|saver| {
            let size = chance.random_range(1..60_000);
            (format!("key-{}", saver % KEYS), noise(seed ^ saver, size))
        })
        .collect();
    let saving = jobs
        .iter()
        .map(|(key, content)| save(&ask, key, content.clone()));
    let won = join_all(saving).await;
    for key in 0..KEYS {
        let key = format!("key-{key}");
        let of_key = jobs
            .iter()
            .zip(&won)
            .filter(|((other, _), _)| *other == key);
        let winners: Vec<_> = of_key.filter(|(_, won)| **won).collect();
        assert_eq!(winners.len(), 1, "of {key}");
        let restored = ask.restored(&[&key], VERSION).await.unwrap();
        assert!(restored == winners[0].0.1, "{key} has what nobody said");
    }
    let metrics = Metrics::at(hub.metrics_address()).await;
    assert_eq!(
        metrics.value("layerd_gha_entries_total{kind=\"entry\"}"),
        KEYS as f64
    );
}

#[tokio::test]
async fn what_is_said_twice_is_done_once() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    let url = ask.reserved("key", VERSION).await;
    // Taken as long as nobody finishes it, and seen by nobody.
    ask.create("key", VERSION).await.is(409);
    ask.reserve("key", VERSION).await.is(409);
    assert_eq!(ask.find(&["key"], VERSION).await, None);
    for _ in 0..2 {
        ask.put_block(&url, "a", "first ").await.is(201);
        ask.put_block(&url, "left out", "never").await.is(201);
        ask.put_block(&url, "b", "second").await.is(201);
        ask.put_list(&url, &["a", "b"]).await.is(201);
    }
    let first = ask.finalize("key", VERSION, 12).await.is(200).json();
    let second = ask.finalize("key", VERSION, 12).await.is(200).json();
    assert_eq!(first, second);
    assert_eq!(
        ask.restored(&["key"], VERSION).await.unwrap(),
        "first second"
    );
    let taken = ask.create("key", VERSION).await.is(409).json();
    assert_eq!(taken["code"], "already_exists");
    assert!(
        taken["msg"].is_string() && taken.get("message").is_none(),
        "{taken}"
    );
    let taken = ask.reserve("key", VERSION).await.is(409).json();
    assert_eq!(taken["typeKey"], "ArtifactCacheItemAlreadyExistsException");
}

#[tokio::test]
async fn the_newest_that_begins_with_a_key_is_found_and_that_very_key_before_it() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let ask = Ask::new(hub.url(), None);
    for (key, version) in [
        ("go-9", VERSION),
        ("go-1", VERSION),
        ("go-1-more", VERSION),
        ("Go-1-upper", VERSION),
        ("go-2", "another"),
    ] {
        ask.save(key, version, format!("of {key}").into()).await;
    }
    for (keys, expected) in [
        (&["go-1"][..], Some("go-1")),
        (&["go-"], Some("go-1-more")),
        (&["rust-", "go-9", "go-1"], Some("go-9")),
        (&["GO-"], None),
        (&["rust-"], None),
        (&["o-"], None),
    ] {
        let found = ask.find(keys, VERSION).await.map(|(key, _)| key);
        assert_eq!(found.as_deref(), expected, "{keys:?}");
        let first = format!("cache?keys={}&version={VERSION}", keys.join(","));
        let first = ask.first(http::Method::GET, &first, None).await;
        match expected {
            None => {
                let miss = first.is(204);
                assert!(miss.body.is_empty());
            }
            Some(key) => assert_eq!(first.is(200).json()["cacheKey"], key),
        }
    }
}
