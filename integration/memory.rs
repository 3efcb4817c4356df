//! A layer is a stream: its size does not show in the sidecar's memory.

use crate::harness::{Build, Lab, tree};

/// Far below the 128 MiB of the layer.
const LIMIT: u64 = 96 << 20;

#[tokio::test]
async fn a_large_layer_passes_in_bounded_memory() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = lab.context("big");
    let one = lab.runner("one", &data).await;
    let build = Build::of(&context)
        .cache_to("type=gha-compatible,mode=max")
        .output_folder(&lab.path("first"));
    lab.buildx(one.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_no_warning();
    let exported = one.sidecar.peak_memory();
    assert!(exported < LIMIT, "exporting took {exported} bytes");
    drop(one);

    let two = lab.runner("two", &data).await;
    let build = Build::of(&context)
        .cache_from("type=gha-compatible")
        .output_folder(&lab.path("second"));
    lab.buildx(two.address())
        .await
        .build(&build)
        .await
        .ok()
        .assert_all_cached(3);
    let imported = two.sidecar.peak_memory();
    assert!(imported < LIMIT, "importing took {imported} bytes");
    assert!(
        tree(&lab.path("first")) == tree(&lab.path("second")),
        "the bytes differ"
    );
}

#[tokio::test]
async fn a_large_build_context_passes_in_bounded_memory() {
    let lab = Lab::new();
    let one = lab.runner("one", &lab.path("data")).await;
    let context = lab.folder("large");
    let file = std::fs::File::create(context.join("large.bin")).unwrap();
    file.set_len(300 << 20).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY large.bin /\n",
    )
    .unwrap();
    lab.buildx(one.address())
        .await
        .build(&Build::of(&context))
        .await
        .ok()
        .assert_all_ran(1);
    let peak = one.sidecar.peak_memory();
    assert!(peak < LIMIT, "a context took {peak} bytes");
}
