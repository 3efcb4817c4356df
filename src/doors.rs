//! The doors: one protocol each, and no knowledge of storage.
//!
//! A door parses what a client says, asks the [`Cache`](crate::cache::Cache),
//! and answers in the client's own terms. Doors never name each other.

pub mod admin;
pub mod buildkit;
pub mod front;
pub mod gha;
pub mod hub;
pub mod operator;
pub mod token;
