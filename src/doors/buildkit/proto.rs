//! The messages that this door reads and writes, generated from `proto/`. Some
//! are only spliced, so that their types are for tests alone.

#![allow(
    dead_code,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used
)]

/// LLB.
pub mod pb {
    tonic::include_proto!("pb");
}

/// BuildKit's Control API.
pub mod control {
    tonic::include_proto!("moby.buildkit.v1");

    /// What it says of workers.
    pub mod types {
        tonic::include_proto!("moby.buildkit.v1.types");
    }
}

/// BuildKit's gateway API.
pub mod gateway {
    tonic::include_proto!("moby.buildkit.v1.frontend");
}

/// containerd's Content service.
pub mod content {
    tonic::include_proto!("containerd.services.content.v1");
}
