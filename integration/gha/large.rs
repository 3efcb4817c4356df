//! An entry of gigabytes, in blocks that come all at once: 5 GB with
//! LAYERD_HUB_FULL=1, on a disk and in a bucket.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::ask::{Ask, VERSION};
use super::memory::made;
use crate::harness::{HubSpec, Lab, layerd, objects};
use crate::hub::noise;

/// Blocks, all at a time.
const BLOCKS: usize = 32;
/// What a hub may have.
const LIMIT: u64 = 256 << 20;

fn block_size() -> usize {
    match std::env::var("LAYERD_HUB_FULL").is_ok() {
        true => 160 << 20,
        false => 6 << 20,
    }
}

/// Reads a block of what is there, and compares all of it.
async fn verify(ask: Ask, url: Arc<str>, noise: Bytes, block: usize, size: usize) {
    let range = format!("bytes={}-{}", block * size, (block + 1) * size - 1);
    let mut answer = ask.open(&url, &[("range", &range)]).await;
    assert_eq!(answer.status(), 206);
    let mut expected = (0..size / noise.len()).flat_map(|piece| {
        let mark = ((block << 32) + piece).to_le_bytes();
        [Bytes::copy_from_slice(&mark), noise.slice(mark.len()..)]
    });
    let mut piece = Bytes::new();
    let mut left = size;
    while let Some(mut bytes) = answer.chunk().await.unwrap() {
        left -= bytes.len();
        while !bytes.is_empty() {
            if piece.is_empty() {
                piece = expected.next().unwrap();
            }
            let length = piece.len().min(bytes.len());
            assert!(
                bytes.split_to(length) == piece.split_to(length),
                "block {block}"
            );
        }
    }
    assert_eq!(left, 0, "block {block} ends too early");
}

async fn all(mut tasks: JoinSet<()>) {
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn comes_and_goes(spec: HubSpec, fsck: &[&str]) {
    let size = block_size();
    let mut hub = spec.start().await;
    let ask = Ask::new(hub.url(), None);
    let noise = noise(7, 256 << 10);
    let url: Arc<str> = ask.reserved("large", VERSION).await.into();
    let started = Instant::now();
    let told = |what: &str, peak: u64| {
        println!(
            "{BLOCKS} blocks of {} MiB {what}: {:.1} s, {} MiB",
            size >> 20,
            started.elapsed().as_secs_f64(),
            peak >> 20
        );
        assert!(peak < LIMIT, "{what}: it took {} MiB", peak >> 20);
    };
    let mut putting = JoinSet::new();
    for block in 0..BLOCKS {
        let (ask, url, noise) = (ask.clone(), Arc::clone(&url), noise.clone());
        putting.spawn(async move {
            let name = block.to_string();
            // One that has waited for a minute is told to come again, as all
            // clients do.
            let send = async || {
                let body = made(&noise, block, size);
                ask.put_block(&url, &name, body).await
            };
            let mut answer = send().await;
            while answer.status == 503 {
                println!("block {block} comes again");
                answer = send().await;
            }
            answer.is(201);
        });
    }
    all(putting).await;
    told("sent", hub.peak_memory());
    let names: Vec<String> = (0..BLOCKS).map(|block| block.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ask.put_list(&url, &names).await.is(201);
    for _ in 0..2 {
        let ended = ask.finalize("large", VERSION, BLOCKS * size).await;
        assert_eq!(ended.is(200).json()["ok"], true);
    }
    told("finished", hub.peak_memory());
    let (_, url) = ask.find(&["lar"], VERSION).await.unwrap();
    let url: Arc<str> = url.into();
    let mut reading = JoinSet::new();
    for block in 0..BLOCKS {
        let (ask, url, noise) = (ask.clone(), Arc::clone(&url), noise.clone());
        reading.spawn(verify(ask, url, noise, block, size));
    }
    all(reading).await;
    told("read", hub.peak_memory());
    assert_eq!(hub.terminate().await.code(), Some(0));
    layerd(["cache", "fsck"].iter().chain(fsck)).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_many_blocks_at_once_passes_a_hub_on_disk() {
    let lab = Lab::new();
    let hub = lab.hub("hub");
    let data = lab.path("hub").join("data").display().to_string();
    comes_and_goes(hub, &["--data-dir", &data]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_many_blocks_at_once_passes_a_hub_on_a_bucket() {
    let lab = Lab::new();
    let store = objects::s3().await.s3_store("gha-large");
    let hub = lab.hub("hub").arguments(["--blobs", &store]);
    let data = lab.path("hub").join("data").display().to_string();
    comes_and_goes(hub, &["--data-dir", &data, "--blobs", &store]).await;
}
