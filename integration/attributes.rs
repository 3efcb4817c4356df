//! The attributes of `type=gha-compatible`: what is accepted, and what a user
//! is told about what is not.

use crate::harness::{Build, Lab, MULTISTAGE_STEPS, Outcome};

async fn with(entry: impl Fn(Build) -> Build) -> Outcome {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let build = entry(Build::of(&lab.context("multistage")));
    lab.buildx(runner.address()).await.build(&build).await
}

#[tokio::test]
async fn an_unknown_attribute_is_an_error_that_names_it_and_the_known_ones() {
    for import in [false, true] {
        let outcome = with(|build| {
            let entry = "type=gha-compatible,scop=linux";
            if import {
                build.cache_from(entry)
            } else {
                build.cache_to(entry)
            }
        })
        .await
        .failed();
        for word in ["scop", "scope", "fallback"] {
            assert!(
                outcome.verdict().contains(word),
                "{word}: {}",
                outcome.verdict()
            );
        }
    }
}

#[tokio::test]
async fn a_bad_value_is_an_error_that_names_its_attribute() {
    let bad = [
        "mode=most",
        "compression=rar",
        "compression-level=high",
        "ignore-error=perhaps",
        "ref=a..b",
        "timeout=soon",
    ];
    for attribute in bad {
        let outcome = with(|build| build.cache_to(&format!("type=gha-compatible,{attribute}")))
            .await
            .failed();
        let name = attribute.split('=').next().unwrap();
        assert!(
            outcome.verdict().contains(name),
            "{attribute}: {}",
            outcome.verdict()
        );
    }
}

#[tokio::test]
async fn a_line_written_for_gha_works_unchanged() {
    let line = "type=gha-compatible,url=local,url_v2=http://127.0.0.1:1/,version=2,token=x,ghtoken=y,repository=a/b,timeout=10m";
    with(|build| build.cache_to(&format!("{line},mode=max,ignore-error=true")))
        .await
        .ok()
        .assert_all_ran(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn an_unknown_hub_is_skipped_with_a_line_that_names_it() {
    let outcome = with(|build| build.cache_to("type=gha-compatible,url=http://127.0.0.1:1"))
        .await
        .ok();
    outcome.assert_warned("url=http://127.0.0.1:1");
}

#[tokio::test]
async fn every_compression_can_be_read_back() {
    let lab = Lab::new();
    let context = lab.context("multistage");
    for compression in [
        "uncompressed",
        "gzip",
        "zstd,compression-level=3",
        "estargz,force-compression=true",
    ] {
        let name = compression.split(',').next().unwrap();
        let data = lab.path(&format!("data-{name}"));
        let one = lab.runner(&format!("one-{name}"), &data).await;
        let to = format!(
            "type=gha-compatible,mode=max,oci-mediatypes=true,image-manifest=true,compression={compression}"
        );
        lab.buildx(one.address())
            .await
            .build(&Build::of(&context).cache_to(&to))
            .await
            .ok()
            .assert_no_warning();
        let two = lab.runner(&format!("two-{name}"), &data).await;
        let build = Build::of(&context)
            .cache_from("type=gha-compatible")
            .output_folder(&lab.path(name));
        lab.buildx(two.address())
            .await
            .build(&build)
            .await
            .ok()
            .assert_all_cached(MULTISTAGE_STEPS);
    }
}
