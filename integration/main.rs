//! The promises that layerd makes, held against real daemons: stock buildkitd,
//! buildx and buildctl, and the layerd binary as it is shipped.
//!
//! Needs root (buildkitd mounts and runs containers) and the tools that
//! `integration/tools/install.sh` leaves. `integration/test.sh` runs it all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

mod harness;

mod archive;
mod attributes;
mod badinput;
mod child;
mod collect;
mod commands;
mod deploy;
mod descriptors;
mod direct;
mod endings;
mod failopen;
mod faults;
mod flushed;
mod frontend;
mod gha;
mod history;
mod hub;
mod hubfaults;
mod identity;
mod imports;
mod large;
mod layering;
mod lazy;
mod look;
mod memory;
mod metrics;
mod oracle;
mod outputs;
mod parallel;
mod passthrough;
mod places;
mod pulls;
mod rescue;
mod restarts;
mod savings;
mod seen;
mod shared;
mod soak;
mod story;
mod tokens;
mod transport;
mod union;
mod withheld;
