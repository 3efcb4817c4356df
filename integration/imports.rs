//! Imports travel in four places of the protocol; each alone brings the hits.

use crate::harness::control::{CacheEntry, CacheOptions, SolveRequest, files};
use crate::harness::grpc::Grpc;
use crate::harness::session::Session;
use crate::harness::{
    Build, Carrier, Client, Fate, Filter, Lab, MULTISTAGE_STEPS, Manual, Runner, attributes,
};

const TO: &str = "type=gha-compatible,mode=max";
const FROM: &str = "type=gha-compatible";

/// Of three files made one on the other, those that any cache gives; `direct`
/// shows that BuildKit always makes the first.
const HITS: [&str; 2] = ["[files 2/3] /b", "[files 3/3] /c"];

/// A cold runner, and a filter before it that leaves one carrier.
async fn filtered(lab: &Lab, keep: Carrier) -> (Runner, Filter) {
    let runner = lab.runner("two", &lab.path("data")).await;
    let filter = Filter::start(lab.path("filter.sock"), runner.address(), keep);
    (runner, filter)
}

/// Exports this build from a runner that is then gone.
async fn export(lab: &Lab, build: &Build) {
    let runner = lab.runner("one", &lab.path("data")).await;
    lab.buildctl(runner.address())
        .build(&build.clone().cache_to(TO))
        .await
        .ok()
        .assert_no_warning();
}

async fn hits_through(lab: &Lab, client: &Client) {
    let build = Build::of(&lab.path("contexts/multistage")).cache_from(FROM);
    client
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn in_the_gateways_frontend_options_from_buildx() {
    let lab = Lab::new();
    export(&lab, &Build::of(&lab.context("multistage"))).await;
    let (_runner, filter) = filtered(&lab, Carrier::GatewayOptions).await;
    hits_through(&lab, &lab.buildx(&filter.address).await).await;
}

#[tokio::test]
async fn in_the_gateways_frontend_options_from_buildctl() {
    let lab = Lab::new();
    export(&lab, &Build::of(&lab.context("multistage"))).await;
    let (_runner, filter) = filtered(&lab, Carrier::GatewayOptions).await;
    hits_through(&lab, &lab.buildctl(&filter.address)).await;
}

#[tokio::test]
async fn in_the_gateways_own_list() {
    let lab = Lab::new();
    let build = Build::of_definition(&files(&[("/a", "1"), ("/b", "2"), ("/c", "3")]));
    export(&lab, &build).await;
    let (_runner, filter) = filtered(&lab, Carrier::GatewayImports).await;
    let outcome = lab
        .buildctl(&filter.address)
        .build(&build.cache_from(FROM))
        .await
        .ok();
    assert_eq!(outcome.progress.with(Fate::Cached), HITS);
}

/// Asks a cold runner by hand for the build that `request` describes, in a
/// session with nothing in it.
async fn by_hand(lab: &Lab, request: SolveRequest) -> Manual {
    let runner = lab.runner("two", &lab.path("data")).await;
    let grpc = Grpc::connect(runner.address()).await;
    let _session = Session::open(&grpc, "session-by-hand").await;
    let request = SolveRequest {
        reference: "build-by-hand".to_owned(),
        session: "session-by-hand".to_owned(),
        ..request
    };
    let manual = Manual::build(&grpc, &request).await;
    assert_eq!(manual.answer.code, 0, "{manual:#?}");
    manual
}

#[tokio::test]
async fn in_the_controls_own_list() {
    let lab = Lab::new();
    let definition = files(&[("/a", "1"), ("/b", "2"), ("/c", "3")]);
    export(&lab, &Build::of_definition(&definition)).await;
    let cache = CacheOptions {
        exports: Vec::new(),
        imports: vec![CacheEntry::ours()],
    };
    let request = SolveRequest {
        definition: Some(definition),
        cache: Some(cache),
        ..SolveRequest::default()
    };
    let manual = by_hand(&lab, request).await;
    assert_eq!(manual.progress.with(Fate::Cached), HITS, "{manual:#?}");
}

#[tokio::test]
async fn in_the_controls_frontend_attributes() {
    let lab = Lab::new();
    let context = lab.folder("contexts/inputs");
    let dockerfile = "FROM scratch\nCOPY a /a\nCOPY b /b\n";
    for (name, content) in [("a", "1"), ("b", "2"), ("Dockerfile", dockerfile)] {
        std::fs::write(context.join(name), content).unwrap();
    }
    export(&lab, &Build::of(&context)).await;
    let request = SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_attributes: attributes([(
            "cache-imports",
            r#"[{"Type":"gha-compatible","Attrs":{}}]"#,
        )]),
        frontend_inputs: [
            ("context".to_owned(), files(&[("/a", "1"), ("/b", "2")])),
            (
                "dockerfile".to_owned(),
                files(&[("/Dockerfile", dockerfile)]),
            ),
        ]
        .into(),
        ..SolveRequest::default()
    };
    let manual = by_hand(&lab, request).await;
    assert_eq!(manual.progress.fate("COPY a"), Fate::Cached, "{manual:#?}");
    assert_eq!(manual.progress.fate("COPY b"), Fate::Cached, "{manual:#?}");
}
