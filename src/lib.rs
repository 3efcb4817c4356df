//! layerd: a shared build cache for BuildKit.
//!
//! Layers, from the top; each imports only what is below it, which a test
//! holds:
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | parse, wire up, run |
//! | [`doors`] | one protocol each: BuildKit's Control API, the hub's own, and the operator's metrics; and the port of a hub |
//! | [`cache`] | the engine that doors call |
//! | [`access`] | who is asking, and what they may |
//! | [`graph`] | pure: cache configs and manifests |
//! | [`catalog`] | the log of exports |
//! | [`blobs`] | layer blobs |
//! | [`digest`], [`place`], [`entry`], [`config`], [`moment`], [`seats`], [`step`], [`telemetry`], [`tls`], [`units`], [`watched`] | leaves |

pub mod access;
pub mod blobs;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod digest;
pub mod doors;
pub mod entry;
pub mod graph;
pub mod moment;
pub mod place;
pub mod seats;
pub mod step;
pub mod telemetry;
pub mod tls;
pub mod units;
pub mod watched;
