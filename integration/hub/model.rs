//! Many clients do whatever they like to a hub, against a model: what was
//! acknowledged is there, nothing is visible early or in part, nothing crosses
//! projects.

mod actor;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use layerd::cache::wire::v1;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

pub use self::actor::Actor;
pub use self::world::World;
use crate::harness::{Hub, HubClient, HubSpec, Lab, Postgres, objects};

/// Clients, and the connections that they share.
pub const CLIENTS: u64 = 64;
const CONNECTIONS: usize = 8;
/// How often a lease is renewed, which lasts for some minutes.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Projects, which have nothing to do with each other.
pub const PROJECTS: u64 = 4;

/// The seed of this run, printed.
pub fn seed() -> u64 {
    let seed: u64 = std::env::var("LAYERD_HUB_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse().expect("a seed"));
    println!("LAYERD_HUB_SEED={seed}");
    seed
}

/// Blobs that clients share, and what each does: 10,000 blobs with
/// LAYERD_HUB_FULL=1.
fn size() -> (u64, u64) {
    match std::env::var("LAYERD_HUB_FULL").is_ok() {
        true => (10_000, 400),
        false => (300, 25),
    }
}

async fn connections(hub: &Hub) -> Vec<HubClient> {
    let connecting = (0..CONNECTIONS).map(|_| hub.client(None));
    futures::future::join_all(connecting).await
}

/// Has what leaves the log stay held until this is dropped, as a sidecar does
/// while it has a build: what one client flushes is there for the others.
pub async fn leased(mut hubs: Vec<HubClient>) -> AbortOnDropHandle<()> {
    let first = hubs.first_mut().expect("a hub");
    let taken = first.take_lease(v1::TakeLeaseRequest {}).await;
    let lease = taken.expect("a lease").into_inner().lease;
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            for hub in &mut hubs {
                // One that is away now is asked again; the lease outlives that.
                let _ = hub.renew_lease(v1::RenewLeaseRequest { lease }).await;
            }
        }
    }))
}

/// Clients over one hub at least.
async fn keeps_its_promises(spec: HubSpec) {
    let seed = seed();
    let hub = spec.start().await;
    let connections = connections(&hub).await;
    let (blobs, operations) = size();
    let world = Arc::new(World::new(seed, blobs, PROJECTS));
    let _lease = leased(connections[..1].to_vec()).await;
    let began = Instant::now();
    let mut acting = JoinSet::new();
    for number in 0..CLIENTS {
        let client = connections[number as usize % CONNECTIONS].clone();
        let mut actor = Actor::new(&world, number, seed, vec![client]);
        acting.spawn(async move {
            for _ in 0..operations {
                actor.act().await;
            }
            actor
        });
    }
    let mut actors = acting.join_all().await;
    for actor in &mut actors {
        actor.find_all().await;
    }
    let state = world.state();
    let stored: usize = state.stored.values().map(|stored| stored.len()).sum();
    println!(
        "{} operations in {:.0} s: {stored} blobs, {} exports; {} MiB of the hub's memory at most",
        CLIENTS * operations,
        began.elapsed().as_secs_f64(),
        state.exports.len(),
        hub.peak_memory() >> 20,
    );
    let log = hub.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_on_a_data_directory_keeps_its_promises() {
    let lab = Lab::new();
    keeps_its_promises(lab.hub("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_on_postgres_and_a_bucket_keeps_its_promises() {
    let lab = Lab::new();
    let postgres = Postgres::start();
    let catalog = postgres.database("hub");
    let store = objects::s3().await.s3_store("hub-model");
    let spec = lab.hub("one");
    keeps_its_promises(spec.arguments(["--catalog", &catalog, "--blobs", &store])).await;
}
