//! Real daemons and real clients, cheap enough to start anew for every test.
//!
//! A test asks a [`Lab`] for buildkitd, sidecars and registries; each lives in
//! the lab's own temporary folder, on its own sockets and free ports, and ends
//! with it. Builds run through stock buildx and buildctl ([`Client`]), and what
//! they report is parsed into steps ([`Progress`]). Nothing here sleeps for a
//! fixed time: everything waits for a condition, with a deadline.

pub mod act;
pub mod actions;
mod build;
mod buildkitd;
pub mod chain;
mod client;
mod collector;
mod context;
pub mod control;
mod faulty;
mod filter;
mod gate;
pub mod grpc;
pub mod hub;
pub mod lab;
mod layerd;
mod manual;
mod metrics;
mod mounts;
pub mod neighbours;
#[allow(dead_code, reason = "unit tests use more of it")]
pub mod objects;
#[allow(dead_code, reason = "unit tests use more of it")]
pub mod oidc;
mod outcome;
mod pair;
#[allow(dead_code, reason = "unit tests use more of it")]
mod postgres;
pub mod process;
mod progress;
mod prometheus;
mod registry;
mod runner;
mod runner_token;
pub mod session;
mod sidecar;
pub mod store;
mod tap;
mod tls;
#[allow(clippy::duplicate_mod, reason = "servers of objects bring their own")]
pub mod tools;
mod toxic;
mod tree;
mod wait;
mod wire;

pub use self::build::Build;
pub use self::buildkitd::{Buildkitd, BuildkitdSpec};
pub use self::client::Client;
pub use self::collector::Collector;
pub use self::context::MULTISTAGE_STEPS;
pub use self::faulty::{Fault, FaultyRunner};
pub use self::filter::{Carrier, Filter};
pub use self::gate::Gate;
pub use self::hub::{Hub, HubClient, HubSpec};
pub use self::lab::Lab;
pub use self::layerd::{layerd, layerd_with};
pub use self::manual::{Manual, attributes};
pub use self::metrics::{Metrics, get};
pub use self::mounts::Mount;
pub use self::outcome::Outcome;
pub use self::pair::Pair;
pub use self::postgres::Postgres;
pub use self::progress::{Fate, Progress};
pub use self::prometheus::Prometheus;
pub use self::registry::Registry;
pub use self::runner::Runner;
pub use self::runner_token::runtime_token;
pub use self::sidecar::{Sidecar, SidecarSpec};
pub use self::tap::{Tap, Tapped};
pub use self::tls::Tls;
pub use self::tools::{BuildKit, oracle as oracle_command, trusting_buildkitd};
pub use self::toxic::{Toxic, ToxicProxy, Way};
pub use self::tree::tree;
pub use self::wait::{DEADLINE, until};
