//! Savers of the same keys, in both versions at once, with the steps of all of
//! them in an order that chance decides.

use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Barrier;
use tokio::task::yield_now;

use super::ask::{Answer, Ask, VERSION};
use crate::harness::{Hub, Lab, Metrics};
use crate::hub::noise;

const SAVERS: u64 = 32;
const KEYS: u64 = 5;
const ROUNDS: u64 = 3;

/// Which version a saver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

/// One that saves: who it is, and what it was told.
struct Saver {
    key: String,
    content: Bytes,
    version: Version,
    chance: StdRng,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Won,
    Exists,
}

/// "Already there", as the version says it.
#[track_caller]
fn exists(version: Version, answer: Answer) -> Told {
    let body = answer.is(409).json();
    match version {
        Version::First => {
            assert_eq!(body["typeKey"], "ArtifactCacheItemAlreadyExistsException");
            assert!(body["message"].is_string(), "{body}");
        }
        Version::Second => {
            assert_eq!(body["code"], "already_exists", "{body}");
            assert!(body["msg"].is_string(), "{body}");
        }
    }
    Told::Exists
}

impl Saver {
    /// Lets the others go on for a while.
    async fn pause(&mut self) {
        for _ in 0..self.chance.random_range(0..20) {
            yield_now().await;
        }
    }

    /// Parts of the content and where they begin, in any order.
    fn parts(&mut self) -> Vec<(usize, Bytes)> {
        let size = self.chance.random_range(2_000..20_000);
        let parts = self.content.chunks(size).enumerate();
        let mut parts = Vec::from_iter(parts.map(|(part, bytes)| {
            let bytes = self.content.slice_ref(bytes);
            (part * size, bytes)
        }));
        for at in (1..parts.len()).rev() {
            parts.swap(at, self.chance.random_range(0..=at));
        }
        parts
    }

    async fn save(&mut self, ask: &Ask, start: &Barrier) -> Told {
        start.wait().await;
        self.pause().await;
        match self.version {
            Version::First => self.first(ask).await,
            Version::Second => self.second(ask).await,
        }
    }

    async fn first(&mut self, ask: &Ask) -> Told {
        let reserved = ask.reserve(&self.key, VERSION).await;
        if reserved.status == 409 {
            return exists(self.version, reserved);
        }
        let id = reserved.is(201).json()["cacheId"].as_i64().unwrap();
        for (at, bytes) in self.parts() {
            self.pause().await;
            let range = format!("bytes {at}-{}/*", at + bytes.len() - 1);
            ask.chunk(id, &range, bytes).await.is(204);
        }
        self.pause().await;
        let ended = ask.commit(id, self.content.len()).await;
        match ended.status {
            409 => exists(self.version, ended),
            _ => {
                ended.is(204);
                Told::Won
            }
        }
    }

    async fn second(&mut self, ask: &Ask) -> Told {
        let created = ask.create(&self.key, VERSION).await;
        if created.status == 409 {
            return exists(self.version, created);
        }
        let created = created.is(200).json();
        let url = created["signed_upload_url"].as_str().unwrap();
        let mut names = Vec::new();
        for (at, bytes) in self.parts() {
            self.pause().await;
            let name = format!("{at:09}");
            ask.put_block(url, &name, bytes).await.is(201);
            names.push(name);
        }
        names.sort();
        self.pause().await;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ask.put_list(url, &names).await.is(201);
        self.pause().await;
        let ended = ask.finalize(&self.key, VERSION, self.content.len()).await;
        match ended.status {
            409 => exists(self.version, ended),
            _ => {
                assert_eq!(ended.is(200).json()["ok"], true);
                Told::Won
            }
        }
    }
}

/// All of a round at once; each key is one saver's, and whoever restores it has
/// that one's bytes.
async fn race(hub: &Hub, round: u64, seed: u64, versions: &[Version]) {
    let ask = Ask::new(hub.url(), None);
    let mut savers = Vec::from_iter((0..SAVERS).map(|saver| {
        let mut chance = StdRng::seed_from_u64(seed ^ (round << 32) ^ saver);
        let size = chance.random_range(1..60_000);
        let which = chance.random_range(0..versions.len());
        Saver {
            key: format!("key-{round}-{}", chance.random_range(0..KEYS)),
            content: noise(seed ^ (round << 32) ^ saver, size),
            version: versions[which],
            chance,
        }
    }));
    let start = Barrier::new(savers.len());
    let saving = savers.iter_mut().map(|saver| saver.save(&ask, &start));
    let told = join_all(saving).await;
    for key in 0..KEYS {
        let key = format!("key-{round}-{key}");
        let of_key = || {
            savers
                .iter()
                .zip(&told)
                .filter(|(saver, _)| saver.key == key)
        };
        let winners = Vec::from_iter(of_key().filter(|(_, told)| **told == Told::Won));
        if of_key().next().is_none() {
            continue;
        }
        assert_eq!(winners.len(), 1, "of {key}");
        let (winner, _) = winners[0];
        let restored = ask.restored(&[&key], VERSION).await.unwrap();
        assert!(restored == winner.content, "{key} has what nobody said");
        let first = format!("cache?keys={key}&version={VERSION}");
        let first = ask.first(http::Method::GET, &first, None).await;
        let place = first.is(200).json()["archiveLocation"]
            .as_str()
            .unwrap()
            .to_owned();
        let restored = ask.get(&place, &[]).await.is(200).body;
        assert!(restored == winner.content, "{key} is another in version 1");
        // Whoever comes later is told the same, in both versions.
        exists(Version::First, ask.reserve(&key, VERSION).await);
        exists(Version::Second, ask.create(&key, VERSION).await);
    }
}

async fn races(versions: &[Version]) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    for round in 0..ROUNDS {
        race(&hub, round, seed, versions).await;
    }
    let metrics = Metrics::at(hub.metrics_address()).await;
    let entries = metrics.value("layerd_gha_entries_total{kind=\"entry\"}");
    assert!(entries <= (KEYS * ROUNDS) as f64, "{entries} entries");
}

#[tokio::test]
async fn of_many_savers_in_the_first_version_one_wins_each_key() {
    races(&[Version::First]).await;
}

#[tokio::test]
async fn of_many_savers_in_the_second_version_one_wins_each_key() {
    races(&[Version::Second]).await;
}

#[tokio::test]
async fn of_many_savers_in_both_versions_one_wins_each_key() {
    races(&[Version::First, Version::Second]).await;
}
