//! A sidecar that has an identity and no token: real builds.

use super::{Scene, arguments, claims, shown, tables, written};
use crate::harness::oidc::Issuer;
use crate::harness::{Build, Lab, MULTISTAGE_STEPS, Metrics, Outcome, Runner, until};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

async fn runner(scene: &Scene, name: &str, arguments: &[&str]) -> Runner {
    let common = ["--hub", scene.hub.url(), "--project", "acme/shop"];
    let sidecar = scene.lab.sidecar(name).arguments(common);
    let sidecar = sidecar.arguments(arguments.iter().copied());
    Runner::start(scene.lab.buildkitd(name), sidecar).await
}

async fn build(scene: &Scene, runner: &Runner) -> Outcome {
    let build = Build::of(&scene.lab.context("multistage"))
        .cache_from(FROM)
        .cache_to(TO);
    let build = build.output_folder(&scene.lab.path("out"));
    scene.lab.buildx(runner.address()).await.build(&build).await
}

#[tokio::test]
async fn a_pull_request_reads_main_by_its_identity_and_can_write_its_own_ref_alone() {
    let scene = Scene::new().await;
    let identity = |name: &str, event: &str, git_ref: &str| {
        let claims = claims(&scene.issuer, event, git_ref, "main");
        shown(&written(
            &scene.lab,
            name,
            &scene.issuer.sign("first", &claims),
        ))
    };
    let main = identity("main.jwt", "push", "refs/heads/main");
    let one = runner(&scene, "one", &["--hub-identity-file", &main]).await;
    let first = build(&scene, &one).await.ok();
    first.assert_all_ran(MULTISTAGE_STEPS);
    first.assert_no_warning();
    drop(one);

    let pull = identity("pull.jwt", "pull_request", "refs/pull/7/merge");
    let own = ["--hub-identity-file", &pull, "--ref", "refs/pull/7/merge"];
    let two = runner(&scene, "two", &own).await;
    let second = build(&scene, &two).await.ok();
    second.assert_all_cached(MULTISTAGE_STEPS);
    second.assert_no_warning();
    drop(two);

    // What it may not write is refused, and its build goes on.
    let three = runner(&scene, "three", &["--hub-identity-file", &pull]).await;
    let third = build(&scene, &three).await.ok();
    third.assert_all_cached(MULTISTAGE_STEPS);
    third.assert_warned("may not write refs/heads/main");
}

#[tokio::test]
async fn without_a_token_for_its_identity_a_build_goes_on_and_says_why() {
    let scene = Scene::new().await;
    let file = shown(&written(&scene.lab, "id.jwt", "e30.e30.e30"));
    let one = runner(&scene, "one", &["--hub-identity-file", &file]).await;
    let outcome = build(&scene, &one).await.ok();
    outcome.assert_all_ran(MULTISTAGE_STEPS);
    outcome.assert_warned("identity token");
    drop(one);
    // A job that GitHub gives no identity, as those of forks.
    let two = runner(&scene, "two", &["--hub-identity", "github"]).await;
    let outcome = build(&scene, &two).await.ok();
    outcome.assert_warned("id-token: write");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let (lab, issuer) = (Lab::new(), Issuer::start().await);
    let arguments = arguments(&lab, &tables(&issuer, "1s")).await;
    let hub = lab.hub("hub").arguments(arguments).start().await;
    let scene = Scene { lab, issuer, hub };
    let claims = claims(&scene.issuer, "push", "refs/heads/main", "");
    scene.issuer.identify(&scene.issuer.sign("first", &claims));
    let asked = format!("{}/identity?v=1", scene.issuer.url());
    let sidecar = scene
        .lab
        .sidecar("one")
        .arguments(["--hub", scene.hub.url(), "--project", "acme/shop"])
        .arguments(["--hub-identity", "github", "--hub-identity-audience", "hub"])
        .environment("ACTIONS_ID_TOKEN_REQUEST_URL", &asked)
        .environment("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "asked");
    let one = Runner::start(scene.lab.buildkitd("one"), sidecar).await;
    until("three tokens", async || {
        build(&scene, &one).await.ok().assert_no_warning();
        let metrics = Metrics::at(scene.hub.metrics_address()).await;
        let granted = "layerd_token_exchanges_total{rule=\"ci/branch\",outcome=\"granted\"}";
        (metrics.value(granted) >= 3.0).then_some(())
    })
    .await;
}
