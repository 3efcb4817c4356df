//! `layerd token`: who may what, signed.

mod asked;
mod exchange;
mod explain;
mod identity;
mod key;
mod ls;
mod mint;
mod revoke;

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::display;
use crate::access::Secret;
use crate::access::token::MAX_TOKEN;

/// Make, explain and revoke tokens, and make the keys that sign them.
///
/// A hub with --auth token takes only clients with a token. A token names a
/// project, and the refs in it that its bearer may read and write. It is signed
/// with a key of --token-key-file, of which the hub has the same, or the public
/// half. Tokens and keys are made and explained offline; with --hub, a hub signs
/// them with its own key, and says whether it takes one. `exchange` has a hub make
/// a token for the identity that a CI gives to its jobs; `revoke` and `ls` work on
/// the store of the hubs, or with --hub at one.
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
    Revoke(revoke::RevokeArgs),
    Ls(ls::LsArgs),
    Exchange(exchange::ExchangeArgs),
}

/// Runs `layerd token`.
pub async fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Mint(args) => mint::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Key(args) => key::run(&args),
        Command::Revoke(args) => revoke::run(args).await,
        Command::Ls(args) => ls::run(args).await,
        Command::Exchange(args) => exchange::run(args).await,
    }
}

/// The token that is typed in.
fn from_stdin() -> anyhow::Result<Secret> {
    let mut text = String::new();
    // One byte more than what is taken, and a line's end.
    let limit = MAX_TOKEN as u64 + 3;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .context("can't read a token from standard input")?;
    Ok(Secret::new(text.trim()))
}

#[cfg(test)]
mod tests;
