//! BuildKit without layerd: what the other tests take for granted about the
//! daemon, the clients and the build contexts.

use crate::harness::control::{SolveRequest, files};
use crate::harness::grpc::Grpc;
use crate::harness::session::Session;
use crate::harness::{Build, BuildKit, Carrier, Fate, Filter, Lab, MULTISTAGE_STEPS, Manual, tree};

#[tokio::test]
async fn a_warm_daemon_runs_no_step_again() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("one").start().await;
    let client = lab.buildx(&daemon.address).await;
    let context = lab.context("multistage");
    let first = client
        .build(&Build::of(&context).output_folder(&lab.path("first")))
        .await
        .ok();
    first.assert_all_ran(MULTISTAGE_STEPS);
    let again = client
        .build(&Build::of(&context).output_folder(&lab.path("again")))
        .await
        .ok();
    again.assert_all_cached(MULTISTAGE_STEPS);
    assert_eq!(tree(&lab.path("first")), tree(&lab.path("again")));
}

#[tokio::test]
async fn a_step_that_runs_again_shows_in_the_bytes() {
    let lab = Lab::new();
    let mut daemon = lab.buildkitd("one").version(BuildKit::Old).start().await;
    let client = lab.buildctl(&daemon.address);
    let context = lab.context("multistage");
    let first = client
        .build(&Build::of(&context).output_folder(&lab.path("first")))
        .await
        .ok();
    first.assert_all_ran(MULTISTAGE_STEPS);
    daemon.stop().await;
    daemon.start_cold().await;
    let second = client
        .build(&Build::of(&context).output_folder(&lab.path("second")))
        .await
        .ok();
    assert_eq!(second.progress.with(Fate::Ran).len(), MULTISTAGE_STEPS);
    assert_ne!(tree(&lab.path("first")), tree(&lab.path("second")));
}

#[tokio::test]
async fn a_build_asked_for_by_hand_runs_its_steps() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("one").start().await;
    let grpc = Grpc::connect(&daemon.address).await;
    let _session = Session::open(&grpc, "by-hand").await;
    let request = SolveRequest {
        reference: "a-build".to_owned(),
        session: "by-hand".to_owned(),
        definition: Some(files(&[("/a", "1"), ("/b", "2")])),
        ..SolveRequest::default()
    };
    let manual = Manual::build(&grpc, &request).await;
    assert_eq!(manual.answer.code, 0, "{manual:#?}");
    assert_eq!(
        manual.progress.with(Fate::Ran),
        ["[files 1/2] /a", "[files 2/2] /b"]
    );
}

#[tokio::test]
async fn a_filter_passes_all_but_imports() {
    let lab = Lab::new();
    let daemon = lab.buildkitd("one").start().await;
    let filter = Filter::start(
        lab.path("filter.sock"),
        &daemon.address,
        Carrier::GatewayOptions,
    );
    let build = Build::of(&lab.context("multistage")).output_folder(&lab.path("out"));
    let cache = lab.path("cache");
    let to = format!("type=local,mode=max,dest={}", cache.display());
    lab.buildx(&filter.address)
        .await
        .build(&build.clone().cache_to(&to))
        .await
        .ok();
    let daemon = lab.buildkitd("two").start().await;
    let from = format!("type=local,src={}", cache.display());
    for (keep, fate) in [
        (Carrier::ControlImports, Fate::Ran),
        (Carrier::GatewayOptions, Fate::Cached),
    ] {
        let filter = Filter::start(lab.path(&format!("{keep:?}.sock")), &daemon.address, keep);
        let client = lab.buildctl(&filter.address);
        let outcome = client.build(&build.clone().cache_from(&from)).await.ok();
        assert_eq!(
            outcome.progress.with(fate).len(),
            MULTISTAGE_STEPS,
            "{keep:?}"
        );
        client.run(["prune", "--all"]).await.ok();
    }
}

#[tokio::test]
async fn a_file_made_on_nothing_is_made_again_even_with_a_cache_of_buildkits_own() {
    let lab = Lab::new();
    let build = Build::of_definition(&files(&[("/a", "1"), ("/b", "2"), ("/c", "3")]));
    let cache = lab.path("cache");
    let daemon = lab.buildkitd("one").start().await;
    let to = format!("type=local,mode=max,dest={}", cache.display());
    lab.buildctl(&daemon.address)
        .build(&build.clone().cache_to(&to))
        .await
        .ok();
    let daemon = lab.buildkitd("two").start().await;
    let from = format!("type=local,src={}", cache.display());
    let outcome = lab
        .buildctl(&daemon.address)
        .build(&build.cache_from(&from))
        .await
        .ok();
    assert_eq!(outcome.progress.with(Fate::Ran), ["[files 1/3] /a"]);
    assert_eq!(
        outcome.progress.with(Fate::Cached),
        ["[files 2/3] /b", "[files 3/3] /c"]
    );
}
