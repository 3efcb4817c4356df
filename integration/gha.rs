//! The GitHub Actions cache, by the clients that it has: BuildKit's `type=gha`,
//! actions/cache, and whoever speaks the protocol by hand.

mod actions;
mod answers;
mod ask;
mod backends;
mod badinput;
mod buildkit;
mod crash;
mod memory;
mod rights;
mod savers;
