//! A hub, asked in its own wire.

mod access;
mod admin;
mod adversary;
mod ask;
mod badinput;
mod blobs;
mod by_hand;
mod counted;
mod crash;
mod crowds;
mod drain;
mod front;
mod hoards;
mod large;
mod many;
mod memory;
mod model;
mod numbers;
mod reports;
mod revoked;
mod slow;
mod start;

use layerd::cache::wire::v1;

pub use self::access::{Gate, claims, signed, with};
pub use self::ask::noise;
pub use self::blobs::{read, upload};

/// The place that a test exports to.
pub fn place(project: &str, git_ref: &str) -> v1::Place {
    v1::Place {
        project: project.to_owned(),
        git_ref: git_ref.to_owned(),
        scope: "buildkit".to_owned(),
    }
}
