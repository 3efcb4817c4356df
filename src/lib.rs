//! layerd: a shared build cache for BuildKit.

pub mod blobs;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod digest;
pub mod graph;
pub mod place;
