//! Compiles `proto/` with protox, so that no protoc is needed.

use std::path::Path;

use prost::Message as _;

/// The files that declare messages; each only what layerd touches.
const FILES: [&str; 6] = [
    "proto/moby/buildkit/v1/control.proto",
    "proto/moby/buildkit/v1/types/worker.proto",
    "proto/moby/buildkit/v1/frontend/gateway.proto",
    "proto/containerd/services/content/v1/content.proto",
    "proto/solver/pb/ops.proto",
    "proto/layerd/v1/cache.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=src/catalog/migrations");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let set = Path::new(&std::env::var("OUT_DIR")?).join("layerd.fds");
    std::fs::write(&set, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_transport(false)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
