//! Many clients at once move large blobs: neither their size nor their number
//! shows in the hub's memory.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use layerd::cache::wire::{PIECE, checksum, v1};
use layerd::digest::{Digest, Hasher};
use tokio::task::JoinSet;
use tonic::Status;

use super::blobs::{begin, commit, open, piece};
use super::place;
use crate::harness::{Hub, HubClient, HubSpec, Lab, objects};

/// Clients, each on its own connection.
const CLIENTS: u64 = 64;
/// What a hub may have, whatever they do.
const LIMIT: u64 = 256 << 20;

/// Bytes of a blob: 100 MB with LAYERD_HUB_FULL=1. Two parts of a bucket at
/// least, so that all that an upload holds is held.
fn blob_bytes() -> u64 {
    let pieces = match std::env::var("LAYERD_HUB_FULL").is_ok() {
        true => 382,
        false => 76,
    };
    pieces * PIECE as u64
}

/// A blob that is made as it is needed: noise, with each piece's number in it.
struct Made {
    noise: Bytes,
    client: u64,
}

impl Made {
    fn piece(&self, number: u64) -> Bytes {
        let mut bytes = BytesMut::from(&self.noise[..]);
        for (at, chunk) in bytes.chunks_mut(4096).enumerate() {
            let mark = self.client << 40 | number << 16 | at as u64;
            chunk[..8].copy_from_slice(&mark.to_le_bytes());
        }
        bytes.freeze()
    }

    fn pieces(&self) -> u64 {
        blob_bytes() / PIECE as u64
    }

    fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        (0..self.pieces()).for_each(|number| hasher.update(&self.piece(number)));
        hasher.finish()
    }
}

async fn up(mut client: HubClient, made: &Made, digest: Digest) -> Result<(), Status> {
    let mut begun = begin(&mut client, open(&place("p", "main"), &digest)).await?;
    assert_eq!(begun.offset().await?, Some(0));
    for number in 0..made.pieces() {
        let sent = begun.pieces.send(piece(made.piece(number))).await;
        if sent.is_err() {
            break;
        }
    }
    let _ = begun.pieces.send(commit(&digest, blob_bytes())).await;
    begun.stored().await.map(drop)
}

async fn down(mut client: HubClient, made: &Made, digest: Digest) -> Result<(), Status> {
    let request = v1::ReadBlobRequest {
        projects: vec!["p".to_owned()],
        digest: digest.as_bytes().to_vec().into(),
        ..v1::ReadBlobRequest::default()
    };
    let mut answers = client.read_blob(request).await?.into_inner();
    let mut size = 0;
    while let Some(piece) = answers.message().await? {
        assert_eq!(checksum(&piece.bytes), piece.crc32c);
        size += piece.bytes.len() as u64;
    }
    assert_eq!(size, blob_bytes(), "of client {}", made.client);
    Ok(())
}

/// Runs `work` for every client at once.
async fn all<F: Future<Output = Result<(), Status>> + Send + 'static>(
    hub: &Hub,
    what: &str,
    work: impl Fn(HubClient, u64) -> F,
) {
    let began = Instant::now();
    let mut working = JoinSet::new();
    for client in 0..CLIENTS {
        working.spawn(work(hub.client(None).await, client));
    }
    while let Some(ended) = working.join_next().await {
        ended.unwrap().unwrap();
    }
    let peak = hub.peak_memory();
    println!("{what}: {} MiB after {:?}", peak >> 20, began.elapsed());
    assert!(peak < LIMIT, "{what} took {} MiB", peak >> 20);
}

async fn stays_small(spec: HubSpec) {
    let hub = spec.start().await;
    let noise = super::ask::noise(rand::random(), PIECE);
    let made = move |client| Made {
        noise: noise.clone(),
        client,
    };
    let digests: Vec<Digest> = {
        let made = made.clone();
        let hashing = (0..CLIENTS).map(|client| {
            let made = made(client);
            tokio::task::spawn_blocking(move || made.digest())
        });
        let hashed = futures::future::join_all(hashing).await;
        hashed.into_iter().map(Result::unwrap).collect()
    };
    all(&hub, "uploads", |client, number| {
        let (made, digest) = (made(number), digests[number as usize]);
        async move { up(client, &made, digest).await }
    })
    .await;
    all(&hub, "downloads", |client, number| {
        let (made, digest) = (made(number), digests[number as usize]);
        async move { down(client, &made, digest).await }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_of_64_clients_fit_a_hub_on_disk() {
    let lab = Lab::new();
    stays_small(lab.hub("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_of_64_clients_fit_a_hub_on_a_bucket() {
    let lab = Lab::new();
    let store = objects::s3().await.s3_store("hub-memory");
    stays_small(lab.hub("one").arguments(["--blobs", &store])).await;
}
