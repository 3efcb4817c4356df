//! Results and foreign caches through the sidecar: files, archives, pushed
//! images, and the user's own caches beside ours.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Build, Lab, MULTISTAGE_STEPS, tree};

const TO: &str = "type=gha-compatible,mode=max";

fn untar(archive: &Path, into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    let status = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(status.success(), "{}", archive.display());
}

/// The one manifest digest that an OCI layout's index names, which must be
/// there.
fn manifest_of(layout: &Path) -> String {
    let index: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 1, "{index}");
    let digest = manifests[0]["digest"].as_str().unwrap().to_owned();
    let blob = layout.join("blobs").join(digest.replace(':', "/"));
    assert!(
        blob.exists(),
        "{} names {digest}, which is not there",
        layout.display()
    );
    digest
}

#[tokio::test]
async fn folders_and_archives_come_out_alike() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let context = lab.context("multistage");
    for (name, client) in [
        ("x", lab.buildx(runner.address()).await),
        ("ctl", lab.buildctl(runner.address())),
    ] {
        let (folder, tar, oci) = (
            lab.path(name),
            lab.path(&format!("{name}.tar")),
            lab.path(&format!("{name}.oci")),
        );
        let build = Build::of(&context).cache_to(TO);
        client
            .build(&build.clone().output_folder(&folder))
            .await
            .ok()
            .assert_no_warning();
        client
            .build(
                &build
                    .clone()
                    .output(&format!("type=tar,dest={}", tar.display())),
            )
            .await
            .ok();
        client
            .build(
                &build
                    .clone()
                    .output(&format!("type=oci,dest={}", oci.display())),
            )
            .await
            .ok();
        untar(&tar, &lab.path(&format!("{name}-from-tar")));
        assert_eq!(tree(&folder), tree(&lab.path(&format!("{name}-from-tar"))));
        untar(&oci, &lab.path(&format!("{name}-layout")));
        manifest_of(&lab.path(&format!("{name}-layout")));
    }
}

#[tokio::test]
async fn an_output_into_the_users_own_content_store_stands_beside_our_export() {
    let lab = Lab::new();
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let layout = lab.path("layout");
    let build = Build::of(&lab.context("multistage")).cache_to(TO);
    let build = build.output(&format!("type=oci,tar=false,dest={}", layout.display()));
    lab.buildctl(one.address())
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
    manifest_of(&layout);
    let two = lab.runner("two", &data).await;
    let build = Build::of(&lab.path("contexts/multistage")).cache_from("type=gha-compatible");
    lab.buildctl(two.address())
        .build(&build)
        .await
        .ok()
        .assert_all_cached(MULTISTAGE_STEPS);
}

#[tokio::test]
async fn a_pushed_image_can_be_built_upon() {
    let lab = Lab::new();
    let registry = lab.registry().await;
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let context = lab.context("multistage");
    let derived = lab.folder("derived");
    let (x, ctl) = (registry.image("app:x"), registry.image("app:ctl"));
    let build = Build::of(&context).cache_to(TO);
    lab.buildx(one.address())
        .await
        .build(
            &build
                .clone()
                .argument("--push")
                .argument(&format!("--tag={x}")),
        )
        .await
        .ok();
    lab.buildctl(one.address())
        .build(&build.output(&format!("type=image,name={ctl},push=true")))
        .await
        .ok();
    let two = lab.runner("two", &data).await;
    for image in [x, ctl] {
        std::fs::write(
            derived.join("Dockerfile"),
            format!("FROM {image}\nRUN cat /app | sha256sum > /derived\n"),
        )
        .unwrap();
        let out = lab.path(&image.replace(['/', ':'], "-"));
        lab.buildx(two.address())
            .await
            .build(&Build::of(&derived).output_folder(&out))
            .await
            .ok();
        assert!(out.join("derived").exists() && out.join("sum").exists());
    }
}

#[tokio::test]
async fn an_image_of_nothing_but_cached_layers_can_be_pushed() {
    let lab = Lab::new();
    let registry = lab.registry().await;
    let data = lab.path("data");
    let context = lab.context("multistage");
    let mut layers = Vec::new();
    for name in ["one", "two"] {
        let runner = lab.runner(name, &data).await;
        let build = Build::of(&context)
            .cache_from("type=gha-compatible")
            .cache_to(TO)
            .argument("--push")
            .argument("--provenance=false")
            .argument(&format!("--tag={}", registry.image(&format!("app:{name}"))));
        let outcome = lab.buildx(runner.address()).await.build(&build).await.ok();
        if name == "two" {
            outcome.assert_all_cached(MULTISTAGE_STEPS);
            let (told, extracted) = (&outcome.stderr, "extracting sha256:");
            assert!(!told.contains(extracted), "{told}");
        }
        layers.push(registry.layers("app", name).await);
    }
    assert!(!layers[0].is_empty());
    assert_eq!(layers[0], layers[1]);
}

#[tokio::test]
async fn a_local_cache_beside_ours_keeps_its_own_index_in_both_orders() {
    let lab = Lab::new();
    let context = lab.context("multistage");
    for ours_first in [true, false] {
        let data = lab.path(&format!("data-{ours_first}"));
        let one = lab.runner(&format!("one-{ours_first}"), &data).await;
        let cache = lab.path(&format!("cache-{ours_first}"));
        let local = format!("type=local,mode=max,dest={}", cache.display());
        let entries = if ours_first {
            [TO, &local]
        } else {
            [&local, TO]
        };
        let build = entries
            .into_iter()
            .fold(Build::of(&context), |build, entry| build.cache_to(entry));
        let out = lab.path(&format!("out-{ours_first}"));
        lab.buildctl(one.address())
            .build(&build.output_folder(&out))
            .await
            .ok()
            .assert_no_warning();
        manifest_of(&cache);

        let from_local = format!("type=local,src={}", cache.display());
        for (name, entry) in [
            ("local", from_local.as_str()),
            ("ours", "type=gha-compatible"),
        ] {
            let two = lab.runner(&format!("two-{ours_first}-{name}"), &data).await;
            let again = lab.path(&format!("out-{ours_first}-{name}"));
            let build = Build::of(&context).cache_from(entry).output_folder(&again);
            lab.buildctl(two.address())
                .build(&build)
                .await
                .ok()
                .assert_all_cached(MULTISTAGE_STEPS);
            assert_eq!(tree(&out), tree(&again), "{entry}");
        }
    }
}

#[tokio::test]
async fn a_registry_cache_stands_beside_ours() {
    let lab = Lab::new();
    let registry = lab.registry().await;
    let data = lab.path("data");
    let one = lab.runner("one", &data).await;
    let context = lab.context("multistage");
    let remote = registry.image("cache:main");
    let build = Build::of(&context)
        .cache_to(&format!("type=registry,mode=max,ref={remote}"))
        .cache_to(TO);
    lab.buildx(one.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
    for (name, entry) in [
        ("registry", format!("type=registry,ref={remote}")),
        ("ours", "type=gha-compatible".to_owned()),
    ] {
        let two = lab.runner(name, &data).await;
        let build = Build::of(&context).cache_from(&entry);
        lab.buildx(two.address())
            .await
            .build(&build)
            .await
            .ok()
            .assert_all_cached(MULTISTAGE_STEPS);
    }
    // Both at once: BuildKit itself may lose hits then, but never the build.
    let three = lab.runner("three", &data).await;
    let build = Build::of(&context)
        .cache_from(&format!("type=registry,ref={remote}"))
        .cache_from("type=gha-compatible");
    lab.buildx(three.address()).await.build(&build).await.ok();
}
