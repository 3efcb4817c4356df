//! A hub that is killed at any moment loses nothing that it acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::ask::{described, noise};
use super::blobs::{begin, commit, open, piece};
use super::model::{Actor, World, leased, seed};
use super::{place, read};
use crate::harness::hub::lazy_client;
use crate::harness::{Hub, Lab, layerd, until};

/// What a client sees of a hub that is gone.
pub const GONE: &[Code] = &[
    Code::Unavailable,
    Code::Unknown,
    Code::Internal,
    Code::Cancelled,
];

async fn assert_sound(hub: &Hub) {
    let data = hub.data_dir().to_str().unwrap();
    layerd(["cache", "fsck", "--data-dir", data]).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_killed_again_and_again_keeps_its_promises() {
    let rounds = match std::env::var("LAYERD_HUB_FULL").is_ok() {
        true => 50,
        false => 4,
    };
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::new();
    let mut hub = lab.hub("one").data_dir(&lab.path("data")).start().await;
    let world = Arc::new(World::new(seed, 200, 2));
    let over = CancellationToken::new();
    let _lease = leased(vec![lazy_client(hub.url())]).await;
    let mut acting = JoinSet::new();
    for number in 0..16 {
        let clients = vec![lazy_client(hub.url())];
        let mut actor = Actor::new(&world, number, seed, clients).tolerating(GONE);
        let over = over.clone();
        acting.spawn(async move {
            while !over.is_cancelled() {
                actor.act().await;
            }
            actor
        });
    }
    for _ in 0..rounds {
        let published = world.state().exports.len();
        until("the clients go on", async || {
            (world.state().exports.len() > published).then_some(())
        })
        .await;
        // Not to wait for anything: any moment may be the one.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        hub.kill().await;
        assert_sound(&hub).await;
        hub = hub.restart().await;
    }
    over.cancel();
    let mut actors = acting.join_all().await;
    for actor in &mut actors {
        until("the hub is reached again", async || {
            let failed = actor.failed;
            actor.act().await;
            (actor.failed == failed).then_some(())
        })
        .await;
        actor.find_all().await;
    }
    hub.terminate().await;
    assert_sound(&hub).await;
    println!("{} exports", world.state().exports.len());
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_when_the_hub_was_killed() {
    let lab = Lab::new();
    let mut hub = lab.hub("one").start().await;
    let main = place("p", "main");
    let content = noise(1, 1 << 20);
    let (digest, size) = described(&content);
    let mut client = hub.client(None).await;
    let mut cut = begin(&mut client, open(&main, &digest)).await.unwrap();
    assert_eq!(cut.offset().await.unwrap(), Some(0));
    for bytes in content.slice(..768 << 10).chunks(128 << 10) {
        let next = piece(Bytes::copy_from_slice(bytes));
        cut.pieces.send(next).await.unwrap();
    }
    let ingest = hub.data_dir().join("ingest");
    let written = || {
        let files = std::fs::read_dir(&ingest).into_iter().flatten().flatten();
        let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
        sizes.max().unwrap_or_default()
    };
    until("it is written", async || {
        (written() >= 512 << 10).then_some(())
    })
    .await;
    hub.kill().await;
    let hub = hub.restart().await;
    let mut client = hub.client(None).await;
    let mut resumed = begin(&mut client, open(&main, &digest)).await.unwrap();
    let offset = resumed.offset().await.unwrap().expect("it is not whole");
    assert!((512 << 10..=768 << 10).contains(&offset), "{offset}");
    let rest = content.slice(offset as usize..);
    resumed.pieces.send(piece(rest)).await.unwrap();
    resumed.pieces.send(commit(&digest, size)).await.unwrap();
    assert_eq!(resumed.stored().await.unwrap(), size);
    assert!(read(&mut client, "p", &digest, 0).await.unwrap() == content);
    assert_sound(&hub).await;
}
