//! `layerd token`: who may what, signed.

mod exchange;
mod explain;
mod identity;
mod key;
mod mint;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::display;

/// Make and explain tokens, and the keys that sign them.
///
/// A hub with --auth token takes only clients with a token. A token names a
/// project, and the refs in it that its bearer may read and write. It is signed
/// with a key of --token-key-file, of which the hub has the same, or the public
/// half. All of this works offline, but `exchange`, which has a hub make a token
/// for the identity that a CI gives to its jobs.
///
///   layerd token key -o /etc/layerd/keys/2026.pem
///   layerd serve --auth token --token-key-file /etc/layerd/keys
///   layerd token mint --token-key-file /etc/layerd/keys --project acme/shop \
///       --read main --read refs/pull/7/merge --write refs/pull/7/merge
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mint(mint::MintArgs),
    Explain(explain::ExplainArgs),
    Key(key::KeyArgs),
    Exchange(exchange::ExchangeArgs),
}

/// Runs `layerd token`.
pub async fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Mint(args) => mint::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Key(args) => key::run(&args),
        Command::Exchange(args) => exchange::run(args).await,
    }
}

#[cfg(test)]
mod tests;
