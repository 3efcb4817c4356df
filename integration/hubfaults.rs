//! A hub that is down, slow, breaks off, lies or restarts costs hits, and never
//! a build.

use std::path::Path;

use crate::harness::{
    Build, Hub, Lab, MULTISTAGE_STEPS, Outcome, Postgres, Runner, Toxic, ToxicProxy, Way, objects,
    tree, until,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// A hub with one export of `multistage`, whose result is in `first`.
async fn filled(lab: &Lab) -> Hub {
    let hub = lab.hub("hub").start().await;
    let writer = runner(lab, "writer", hub.url()).await;
    let built = build(lab, &writer, "first").await.ok();
    built.assert_no_warning();
    hub
}

async fn runner(lab: &Lab, name: &str, hub: &str) -> Runner {
    let sidecar = lab.sidecar(name).arguments(["--hub", hub]);
    Runner::start(lab.buildkitd(name), sidecar).await
}

async fn build(lab: &Lab, runner: &Runner, out: &str) -> Outcome {
    let build = Build::of(&lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO)
        .output_folder(&lab.path(out));
    lab.buildx(runner.address()).await.build(&build).await
}

async fn between(hub: &Hub) -> ToxicProxy {
    ToxicProxy::before(hub.url()).await.0
}

fn same(lab: &Lab, one: &str, other: &str) -> bool {
    tree(&lab.path(one)) == tree(&lab.path(other))
}

/// Every build succeeds while `toxic` is on; once it is off, the cache is well
/// again.
async fn costs_hits_alone(toxic: Toxic) -> Outcome {
    let lab = Lab::new();
    let hub = filled(&lab).await;
    let proxy = between(&hub).await;
    let url = format!("http://{}", proxy.address());
    let sick = runner(&lab, "sick", &url).await;
    proxy.set(toxic);
    let outcome = build(&lab, &sick, "sick-out").await.ok();
    proxy.set(Toxic::Pass);
    let well = runner(&lab, "well", &url).await;
    let after = build(&lab, &well, "well-out").await.ok();
    after.assert_all_cached(MULTISTAGE_STEPS);
    // The steps of a build that had no hits ran anew, and give other bytes.
    assert!(same(&lab, "well-out", "first") || same(&lab, "well-out", "sick-out"));
    outcome
}

#[tokio::test]
async fn a_hub_that_is_down_costs_hits_alone() {
    let outcome = costs_hits_alone(Toxic::Refuse).await;
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    outcome.assert_warned("the hub");
}

#[tokio::test]
async fn a_hub_that_never_answers_costs_hits_alone() {
    let outcome = costs_hits_alone(Toxic::Hang).await;
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    outcome.assert_warned("the hub");
}

#[tokio::test]
async fn a_hub_that_falls_silent_on_open_connections_costs_hits_alone() {
    let lab = Lab::new();
    let hub = filled(&lab).await;
    let proxy = between(&hub).await;
    let one = runner(&lab, "one", &format!("http://{}", proxy.address())).await;
    build(&lab, &one, "warm").await.ok();
    proxy.set(Toxic::Hang);
    let exports = (0..3).fold(Build::of(&lab.context("multistage")), |build, scope| {
        build.cache_to(&format!("{TO},scope=s{scope}"))
    });
    let exports = exports.cache_from(FROM).output_folder(&lab.path("out"));
    let outcome = lab.buildx(one.address()).await.build(&exports).await.ok();
    outcome.assert_warned("the hub");
}

/// An export whose hub goes away in the middle of it is given up, whether the
/// hub says so or not.
async fn is_given_up(toxic: Toxic) {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let proxy = between(&hub).await;
    let url = format!("http://{}", proxy.address());
    let one = runner(&lab, "one", &url).await;
    proxy.set(Toxic::Slow(20_000_000));
    let exporting = Build::of(&lab.context("big")).cache_to(TO);
    let client = lab.buildx(one.address()).await;
    let exporting = client.build(&exporting);
    let going_away = async {
        until("a layer is on its way", async || {
            (proxy.up() > 5_000_000).then_some(())
        })
        .await;
        proxy.set(toxic);
    };
    let (outcome, ()) = tokio::join!(exporting, going_away);
    outcome.ok().assert_warned("cache not exported");
}

#[tokio::test]
async fn an_export_whose_hub_falls_silent_is_given_up() {
    is_given_up(Toxic::Hang).await;
}

#[tokio::test]
async fn an_export_whose_hub_goes_away_is_given_up() {
    is_given_up(Toxic::Reset).await;
}

/// An export whose hub is well, and what it keeps exports in falls silent.
async fn is_given_up_where(lab: &Lab, hub: &Hub, proxy: &ToxicProxy, bytes: u64) {
    let one = runner(lab, "one", hub.url()).await;
    let exporting = Build::of(&lab.context("big")).cache_to(TO);
    let client = lab.buildx(one.address()).await;
    let exporting = client.build(&exporting);
    let falling_silent = async {
        until("the export is on its way", async || {
            (proxy.up() > bytes).then_some(())
        })
        .await;
        proxy.set(Toxic::Hang);
    };
    let (outcome, ()) = tokio::join!(exporting, falling_silent);
    outcome.ok().assert_warned("cache not exported");
}

#[tokio::test]
async fn an_export_whose_bucket_falls_silent_is_given_up() {
    let lab = Lab::new();
    let store = objects::s3().await.s3_store("falls-silent");
    let (proxy, blobs) = ToxicProxy::before(&store).await;
    let hub = lab.hub("hub").arguments(["--blobs", &blobs]).start().await;
    proxy.set(Toxic::Slow(40_000_000));
    is_given_up_where(&lab, &hub, &proxy, 20_000_000).await;
}

#[tokio::test]
async fn an_export_whose_database_falls_silent_is_given_up() {
    let lab = Lab::new();
    let postgres = Postgres::start_with_tls();
    postgres.database("silent");
    let (proxy, catalog) = ToxicProxy::before(&postgres.tls_url("silent")).await;
    let hub = lab.hub("hub").arguments(["--catalog", &catalog]);
    let hub = hub.start().await;
    let before = proxy.up();
    is_given_up_where(&lab, &hub, &proxy, before + 2_000).await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_in_an_upload_is_overcome() {
    is_exported(Toxic::Cut(Way::Up, 3_000_000)).await;
}

#[tokio::test]
async fn a_wrong_byte_in_an_upload_is_overcome() {
    is_exported(Toxic::Flip(Way::Up, 3_000_000)).await;
}

/// What goes wrong on its way to the hub is sent again, and comes out right.
async fn is_exported(toxic: Toxic) {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let proxy = between(&hub).await;
    let one = runner(&lab, "one", &format!("http://{}", proxy.address())).await;
    proxy.set(toxic);
    let strict = format!("{TO},ignore-error=false");
    let exported = Build::of(&lab.context("big")).cache_to(&strict);
    let client = lab.buildx(one.address()).await;
    client.build(&exported).await.ok().assert_no_warning();
    assert!(proxy.up() > 100_000_000, "{} bytes were sent", proxy.up());
    let cold = runner(&lab, "cold", hub.url()).await;
    let out = lab.path("out");
    let imported = Build::of(&lab.context("big"))
        .cache_from(FROM)
        .output_folder(&out);
    let client = lab.buildx(cold.address()).await;
    client.build(&imported).await.ok().assert_all_cached(3);
    assert_eq!(out.join("big.bin").metadata().unwrap().len(), 128 << 20);
}

#[tokio::test]
async fn a_hub_that_resets_connections_costs_hits_alone() {
    let outcome = costs_hits_alone(Toxic::Reset).await;
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    outcome.assert_warned("the hub");
}

#[tokio::test]
async fn a_hub_that_breaks_off_in_its_first_answer_costs_hits_alone() {
    costs_hits_alone(Toxic::Cut(Way::Down, 200)).await;
}

#[tokio::test]
async fn a_wrong_byte_in_the_first_answer_costs_hits_alone() {
    costs_hits_alone(Toxic::Flip(Way::Down, 300)).await;
}

/// What was promised is read all the same, with the right bytes.
async fn is_overcome(toxic: Toxic) {
    let lab = Lab::new();
    let hub = filled(&lab).await;
    let proxy = between(&hub).await;
    let cold = runner(&lab, "cold", &format!("http://{}", proxy.address())).await;
    proxy.set(toxic);
    let outcome = build(&lab, &cold, "out").await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert!(same(&lab, "first", "out"));
}

#[tokio::test]
async fn a_connection_that_breaks_off_in_a_layer_is_overcome() {
    is_overcome(Toxic::Cut(Way::Down, 100_000)).await;
}

#[tokio::test]
async fn a_wrong_byte_in_a_layer_is_overcome() {
    is_overcome(Toxic::Flip(Way::Down, 200_000)).await;
}

#[tokio::test]
async fn a_slow_hub_is_waited_for_once_a_graph_is_served() {
    is_overcome(Toxic::Slow(400_000)).await;
}

#[tokio::test]
async fn a_hub_that_restarts_while_a_layer_is_read_is_overcome() {
    let lab = Lab::new();
    let mut hub = filled(&lab).await;
    let proxy = between(&hub).await;
    let cold = runner(&lab, "cold", &format!("http://{}", proxy.address())).await;
    // Slow enough for the hub to end in the middle of it.
    proxy.set(Toxic::Slow(150_000));
    let building = build(&lab, &cold, "out");
    let restarting = async {
        until("a layer to be on its way", async || {
            (proxy.down() > 100_000).then_some(())
        })
        .await;
        hub.kill().await;
        let hub = hub.restart().await;
        proxy.set(Toxic::Pass);
        hub
    };
    let (outcome, _hub) = tokio::join!(building, restarting);
    outcome.ok().assert_all_cached(MULTISTAGE_STEPS);
    assert!(same(&lab, "first", "out"));
}

#[tokio::test]
async fn another_address_of_the_hub_is_asked_where_one_is_down() {
    let lab = Lab::new();
    let hub = filled(&lab).await;
    let proxy = between(&hub).await;
    proxy.set(Toxic::Refuse);
    let arguments = [
        "--hub",
        &format!("http://{}", proxy.address()),
        "--hub",
        hub.url(),
    ];
    let sidecar = lab.sidecar("cold").arguments(arguments);
    let cold = Runner::start(lab.buildkitd("cold"), sidecar).await;
    let outcome = build(&lab, &cold, "out").await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert!(proxy.accepted() > 0, "the first address was not asked");
    assert!(same(&lab, "first", "out"));
}

#[tokio::test]
async fn a_strict_export_fails_its_build_where_the_hub_is_down() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let proxy = between(&hub).await;
    let one = runner(&lab, "one", &format!("http://{}", proxy.address())).await;
    proxy.set(Toxic::Refuse);
    let strict = format!("{TO},ignore-error=false");
    let build = Build::of(&lab.context("multistage")).cache_to(&strict);
    let outcome = lab.buildx(one.address()).await.build(&build).await;
    let verdict = outcome.failed().verdict();
    assert!(verdict.contains("the hub"), "{verdict}");
}

/// An export that does not wait for the hub is there all the same, later.
#[tokio::test]
async fn an_export_that_need_not_wait_survives_a_restart_of_its_sidecar() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let proxy = between(&hub).await;
    let url = format!("http://{}", proxy.address());
    let data = lab.path("data");
    let arguments = ["--hub", &url, "--async-export"];
    let spec = lab.sidecar("one").data_dir(&data).arguments(arguments);
    let buildkitd = lab.buildkitd("one").start().await;
    let mut sidecar = spec.clone().buildkitd(&buildkitd.address).start().await;
    // The hub takes exports when the build asks, and goes down before it has it.
    proxy.set(Toxic::Cut(Way::Down, 2_000));
    let building = Build::of(&lab.context("multistage"))
        .cache_to(TO)
        .output_folder(&lab.path("first"));
    let outcome = lab.buildx(sidecar.address()).await.build(&building).await;
    outcome.ok().assert_told("queued");
    proxy.set(Toxic::Refuse);
    sidecar.kill().await;
    drop(sidecar);
    proxy.set(Toxic::Pass);
    let sidecar = spec.buildkitd(&buildkitd.address).start().await;
    arrived(&data).await;
    drop(sidecar);
    let cold = runner(&lab, "cold", hub.url()).await;
    let outcome = build(&lab, &cold, "out").await.ok();
    outcome.assert_all_cached(MULTISTAGE_STEPS);
    assert!(same(&lab, "first", "out"));
}

/// Waits until nothing is left in the outbox.
async fn arrived(data: &Path) {
    let outbox = data.join("outbox");
    until("the outbox to be empty", async || {
        let left = std::fs::read_dir(&outbox).into_iter().flatten().count();
        (left == 0).then_some(())
    })
    .await;
}
