//! Neither the size of blocks nor their number shows in the memory of a hub.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::ask::{Ask, VERSION};
use crate::harness::{HubSpec, Lab, objects};
use crate::hub::noise;

/// Blocks at a time.
const BLOCKS: usize = 32;
/// What a hub may have.
const LIMIT: u64 = 256 << 20;

/// A body of a block that is made as it is sent: noise, with the block's number
/// in each piece.
pub fn made(noise: &Bytes, block: usize, size: usize) -> reqwest::Body {
    let noise = noise.clone();
    let pieces = (0..size / noise.len()).map(move |piece| {
        let mark = ((block << 32) + piece).to_le_bytes();
        Ok::<_, std::io::Error>(Bytes::from([&mark[..], &noise[mark.len()..]].concat()))
    });
    reqwest::Body::wrap_stream(futures::stream::iter(pieces))
}

async fn stays_small(spec: HubSpec, size: usize) {
    let hub = spec.start().await;
    let ask = Ask::new(hub.url(), None);
    let noise = noise(7, 256 << 10);
    let url: Arc<str> = ask.reserved("key", VERSION).await.into();
    let mut putting = JoinSet::new();
    for block in 0..BLOCKS {
        let (ask, url, body) = (ask.clone(), Arc::clone(&url), made(&noise, block, size));
        putting.spawn(async move {
            ask.put_block(&url, &block.to_string(), body).await.is(201);
        });
    }
    while let Some(put) = putting.join_next().await {
        put.unwrap();
    }
    let up = hub.peak_memory();
    println!(
        "{BLOCKS} blocks of {} MiB at a time: {} MiB",
        size >> 20,
        up >> 20
    );
    assert!(up < LIMIT, "uploads took {} MiB", up >> 20);
    let names: Vec<String> = (0..BLOCKS).map(|block| block.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ask.put_list(&url, &names).await.is(201);
    ask.finalize("key", VERSION, BLOCKS * size).await.is(200);
    let (_, url) = ask.find(&["key"], VERSION).await.unwrap();
    // Parts of it by several at a time, over the borders of blocks.
    let mut reading = JoinSet::new();
    for block in 1..BLOCKS {
        let (ask, url) = (ask.clone(), url.clone());
        reading.spawn(async move {
            let at = block * size;
            let range = format!("bytes={}-{}", at - 8, at + (1 << 20) - 1);
            let part = ask.get(&url, &[("range", &range)]).await.is(206);
            assert_eq!(part.body.len(), 8 + (1 << 20));
            let mark = (block << 32).to_le_bytes();
            assert_eq!(part.body[8..8 + mark.len()], mark);
            let total = BLOCKS * size;
            let expected = format!("bytes {}-{}/{total}", at - 8, at + (1 << 20) - 1);
            assert_eq!(part.header("content-range"), expected);
        });
    }
    while let Some(read) = reading.join_next().await {
        read.unwrap();
    }
    let down = hub.peak_memory();
    println!("and read: {} MiB", down >> 20);
    assert!(down < LIMIT, "downloads took {} MiB", down >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_many_clients_fit_a_hub_on_disk() {
    let lab = Lab::new();
    stays_small(lab.hub("hub"), 64 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_many_clients_fit_a_hub_on_a_bucket() {
    let lab = Lab::new();
    let store = objects::s3().await.s3_store("gha-memory");
    // Two parts at least, so that all that an upload holds is held.
    let size = match std::env::var("LAYERD_HUB_FULL").is_ok() {
        true => 64 << 20,
        false => 18 << 20,
    };
    let hub = lab.hub("hub").arguments(["--blobs", &store]);
    stays_small(hub, size).await;
}
