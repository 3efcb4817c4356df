//! The `layerd` executable: parses the command line and runs it.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    layerd::cli::Cli::parse().run().await
}
