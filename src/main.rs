//! The `layerd` executable.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    layerd::cli::run().await
}
