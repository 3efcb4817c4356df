//! The command line: parse, wire up, run.

pub mod cache;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A shared build cache for BuildKit.
#[derive(Debug, Parser)]
#[command(name = "layerd", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at and check a data directory.
    Cache(cache::CacheArgs),
}

impl Cli {
    /// Runs the command that was given.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Cache(args) => cache::run(args).await,
        }
    }
}
