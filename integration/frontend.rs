//! A `# syntax=` image: BuildKit runs the frontend itself, and the cache
//! options reach it through the gateway.

use std::path::Path;

use crate::harness::{Build, BuildKit, Fate, Lab, MULTISTAGE_STEPS, Registry, tree};

/// BuildKit's own Dockerfile frontend as an image in the registry.
async fn frontend(lab: &Lab, registry: &Registry, daemon: &str) -> String {
    let context = lab.folder("frontend");
    let command = BuildKit::Current.command("dockerfile-frontend");
    std::fs::copy(command, context.join("dockerfile-frontend")).unwrap();
    let text =
        "FROM scratch\nCOPY dockerfile-frontend /bin/\nENTRYPOINT [\"/bin/dockerfile-frontend\"]\n";
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    let image = registry.image("frontend:test");
    let build = Build::of(&context).output(&format!("type=image,name={image},push=true"));
    lab.buildctl(daemon).build(&build).await.ok();
    image
}

fn choose_syntax(context: &Path, image: &str) {
    let file = context.join("Dockerfile");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# syntax={image}\n{text}")).unwrap();
}

#[tokio::test]
async fn a_build_with_a_frontend_image_shares_its_steps() {
    let lab = Lab::new();
    let registry = lab.registry().await;
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let image = frontend(&lab, &registry, &one.buildkitd.address).await;
    let context = lab.context("multistage");
    choose_syntax(&context, &image);
    let build = Build::of(&context).cache_to("type=gha-compatible,mode=max");
    let build = build.output_folder(&lab.path("first"));
    let first = lab.buildx(one.address()).await.build(&build).await.ok();
    assert!(
        first
            .progress
            .lines()
            .iter()
            .any(|line| line.contains(&image))
    );
    first.assert_no_warning();
    for (name, buildx) in [("two", true), ("three", false)] {
        let runner = lab.runner(name, &data).await;
        let client = if buildx {
            lab.buildx(runner.address()).await
        } else {
            lab.buildctl(runner.address())
        };
        let build = Build::of(&context)
            .cache_from("type=gha-compatible")
            .output_folder(&lab.path(&format!("out-{name}")));
        client
            .build(&build)
            .await
            .ok()
            .assert_all_cached(MULTISTAGE_STEPS);
        assert_eq!(
            tree(&lab.path("first")),
            tree(&lab.path(&format!("out-{name}")))
        );
    }
}

#[tokio::test]
async fn a_failed_build_with_a_frontend_image_keeps_what_succeeded() {
    let lab = Lab::new();
    let registry = lab.registry().await;
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let image = frontend(&lab, &registry, &one.buildkitd.address).await;
    let context = lab.context("mended");
    choose_syntax(&context, &image);
    let build = Build::of(&context)
        .cache_from("type=gha-compatible")
        .cache_to("type=gha-compatible,mode=max");
    let client = lab.buildx(one.address()).await;
    let outcome = client.build(&build).await.failed();
    outcome.assert_told("exporting the cache of the 5 steps that did not");
    outcome.assert_told("as export 1");
    let two = lab.runner("two", &data).await;
    let outcome = lab.buildctl(two.address()).build(&build).await.failed();
    assert!(outcome.progress.with(Fate::Ran).is_empty(), "{outcome:#?}");
    assert_eq!(outcome.progress.with(Fate::Cached).len(), 5, "{outcome:#?}");
}
