//! The GitHub Actions cache, by the clients that it has: BuildKit's `type=gha`,
//! actions/cache, and whoever speaks the protocol by hand.

mod act;
mod actions;
mod answers;
mod ask;
mod backends;
mod badinput;
mod buildkit;
mod crash;
mod expiry;
mod gitea;
mod given_up;
mod large;
mod memory;
mod races;
mod rights;
mod savers;
mod signed;
mod transport;
