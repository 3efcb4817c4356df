//! The command line: parse, wire up, run.

mod audit;
pub mod cache;
mod config_file;
mod display;
mod hub_api;
mod hub_args;
mod operate;
mod project;
mod retention;
mod serve;
mod sidecar;
mod stored;
mod tls;
mod token;
mod unshown;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

/// A shared build cache for BuildKit.
///
/// Put `layerd sidecar` in front of buildkitd, point buildx or buildctl at it,
/// and say `type=gha-compatible` in --cache-to and --cache-from.
///
/// Every option can also be set as an environment variable, LAYERD_ and its
/// name in capitals, and as a key of a TOML file named by --config; the command
/// line counts before the environment, and that before the file.
#[derive(Debug, Parser)]
#[command(
    name = "layerd",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How log lines on stderr look; LAYERD_LOG filters them (info, debug, …).
    #[arg(
        long,
        global = true,
        env = "LAYERD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sidecar(Box<sidecar::SidecarArgs>),
    Serve(Box<serve::ServeArgs>),
    Cache(cache::CacheArgs),
    Token(token::TokenArgs),
    Audit(audit::AuditArgs),
    Project(Box<project::ProjectArgs>),
    #[command(hide = true)]
    Tether(sidecar::TetherArgs),
}

/// Runs the command that the process was started with.
pub async fn run() -> ExitCode {
    let matches = match config_file::matches(Cli::command(), std::env::args_os().collect()) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let serves = matches!(
        cli.command,
        Command::Sidecar(_) | Command::Serve(_) | Command::Tether(_)
    );
    let _telemetry = telemetry::init(cli.log_format, !serves);
    let outcome = match cli.command {
        Command::Sidecar(args) => sidecar::run(*args).await,
        Command::Serve(args) => serve::run(*args).await,
        Command::Cache(args) => cache::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Project(args) => project::run(*args).await,
        Command::Tether(args) => sidecar::tether(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("layerd: {error:#}");
        match error.is::<Misuse>() {
            true => ExitCode::from(USAGE),
            false => ExitCode::FAILURE,
        }
    })
}

/// How a process ends that was not started rightly.
const USAGE: u8 = 2;

/// Options that don't go together, or one that can't be: what is only known
/// after all of them were read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// That, as an error.
fn misuse(what: impl ToString) -> anyhow::Error {
    Misuse(what.to_string()).into()
}

/// Prints what clap has to say: help on stdout with 0, a mistake on stderr with 2.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout or stderr has nobody to tell.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}
