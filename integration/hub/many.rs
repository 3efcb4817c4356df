//! Several hubs are one: on one database and one bucket, whatever becomes of
//! one of them, and of the database.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::ask::look_up;
use super::crash::GONE;
use super::model::{Actor, CLIENTS, PROJECTS, World, leased, seed};
use super::place;
use crate::harness::hub::lazy_client;
use crate::harness::{Hub, Lab, Metrics, Postgres, get, objects, until};

/// How long a call may take to fail while the database is away.
const FAILS_WITHIN: Duration = Duration::from_secs(30);

struct Fleet {
    postgres: Postgres,
    hubs: Vec<Hub>,
    world: Arc<World>,
    over: CancellationToken,
    acting: JoinSet<Actor>,
    _lease: AbortOnDropHandle<()>,
    _lab: Lab,
}

impl Fleet {
    async fn new(name: &str, hubs: usize, tolerated: &'static [Code]) -> Self {
        let lab = Lab::new();
        let postgres = Postgres::start();
        let catalog = postgres.database("hubs");
        let store = objects::s3().await.s3_store(name);
        let starting = (0..hubs).map(|number| {
            let spec = lab.hub(&number.to_string());
            spec.arguments(["--catalog", &catalog, "--blobs", &store])
                .start()
        });
        let hubs = join_all(starting).await;
        let seed = seed();
        let world = Arc::new(World::new(seed, 200, PROJECTS));
        let over = CancellationToken::new();
        let _lease = leased(hubs.iter().map(|hub| lazy_client(hub.url())).collect()).await;
        let mut acting = JoinSet::new();
        let connections: Vec<Vec<_>> = (0..4)
            .map(|_| hubs.iter().map(|hub| lazy_client(hub.url())).collect())
            .collect();
        for number in 0..CLIENTS {
            let clients = connections[number as usize % 4].clone();
            let mut actor = Actor::new(&world, number, seed, clients).tolerating(tolerated);
            let over = over.clone();
            acting.spawn(async move {
                while !over.is_cancelled() {
                    actor.act().await;
                }
                actor
            });
        }
        Self {
            postgres,
            hubs,
            world,
            over,
            acting,
            _lease,
            _lab: lab,
        }
    }

    /// Waits until so many more exports have begun.
    async fn go_on(&mut self, exports: usize) {
        let until_then = self.world.state().exports.len() + exports;
        until("the clients go on", async || {
            if let Some(ended) = self.acting.try_join_next() {
                panic!("a client stopped: {:?}", ended.err());
            }
            (self.world.state().exports.len() >= until_then).then_some(())
        })
        .await;
    }

    /// Ends the load; all that was promised is there.
    async fn assert_kept(&mut self) {
        self.over.cancel();
        let actors = std::mem::take(&mut self.acting).join_all().await;
        let failed: u64 = actors.iter().map(|actor| actor.failed).sum();
        let exports = self.world.state().exports.len();
        println!("{exports} exports, {failed} calls failed");
        for mut actor in actors {
            until("a hub answers", async || {
                let failed = actor.failed;
                actor.act().await;
                (actor.failed == failed).then_some(())
            })
            .await;
            actor.find_all().await;
        }
    }
}

/// Whether it is that hub that keeps house.
async fn keeps_house(hub: &Hub) -> bool {
    let metrics = Metrics::at(hub.metrics_address()).await;
    metrics.sum("layerd_store_blobs") > 0.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_a_hub_that_is_killed_go_on_at_the_others() {
    let mut fleet = Fleet::new("hubs-killed", 3, GONE).await;
    fleet.go_on(100).await;
    let hubs = &fleet.hubs;
    let keeper = until("one keeps house", async || {
        let keeping = join_all(hubs.iter().map(keeps_house)).await;
        keeping.into_iter().position(|keeps| keeps)
    })
    .await;
    fleet.hubs[keeper].kill().await;
    let killed = fleet.hubs.remove(keeper);
    fleet.go_on(100).await;
    fleet.assert_kept().await;
    let hubs = &fleet.hubs;
    until("another one keeps house", async || {
        let keeping = join_all(hubs.iter().map(keeps_house)).await;
        keeping.contains(&true).then_some(())
    })
    .await;
    for hub in hubs.iter().chain([&killed]) {
        assert!(!hub.log().contains("panicked"), "{}", hub.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_outlive_their_database_and_say_so_meanwhile() {
    let mut fleet = Fleet::new("hubs-database", 2, &[Code::Unavailable]).await;
    fleet.go_on(50).await;
    tokio::task::block_in_place(|| fleet.postgres.stop());
    for hub in &fleet.hubs {
        let why = until("it is not ready", async || {
            let (status, why) = get(hub.metrics_address(), "/readyz").await;
            (status == 503).then_some(why)
        })
        .await;
        assert!(why.contains("catalog"), "{why}");
        let (status, _) = get(hub.metrics_address(), "/healthz").await;
        assert_eq!(status, 200);
        let mut client = hub.client(None).await;
        let at = place("p", "main");
        let asked = look_up(&mut client, &at, false);
        let answer = tokio::time::timeout(FAILS_WITHIN, asked).await;
        let refused = answer.expect("it fails in time").map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
    tokio::task::block_in_place(|| fleet.postgres.restart());
    for hub in &fleet.hubs {
        until("it is ready again", async || {
            let (status, _) = get(hub.metrics_address(), "/readyz").await;
            (status == 200).then_some(())
        })
        .await;
    }
    fleet.go_on(50).await;
    fleet.assert_kept().await;
}
