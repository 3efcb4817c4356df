//! `layerd token mint`: a new token.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgGroup, Args};
use jiff::Timestamp;
use serde::Serialize;

use super::display::{print, print_json};
use crate::access::token::MAX_LIFETIME;
use crate::access::{Keys, NewToken, RefPattern};
use crate::place::ProjectId;
use crate::units::parse_duration;

/// Make a token, and print it.
///
/// What may be read and written is told by patterns of refs: `*` stands for any
/// part of one segment, `**` for anything at all. `main` is short for
/// refs/heads/main, and so is `*` for refs/heads/*; `**` alone is every ref.
/// Writing does not include reading.
///
/// Clients of `type=gha` know refs only, no patterns: they read those that are
/// named in full, and write to the first such one of --write.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("refs").args(["read", "write"]).multiple(true).required(true),
    after_help = "\
Examples:
  A branch reads itself and main, and writes itself:
    layerd token mint --token-key-file ci.pem --project acme/shop \\
        --read feat/x --read main --write feat/x
  A runner of main, for a day:
    layerd token mint --token-key-file ci.pem --project acme/shop \\
        --read '**' --write main --ttl 24h
  Straight into the file that a sidecar reads again when it changes:
    layerd token mint --token-key-file ci.pem --project acme/shop \\
        --read '**' > token.new && mv token.new /run/layerd/token"
)]
pub(super) struct MintArgs {
    /// The key to sign with: a file, or a folder of which the newest private
    /// key is used. `layerd token key` makes one.
    #[arg(long, env = "LAYERD_TOKEN_KEY_FILE", value_name = "PATH")]
    token_key_file: PathBuf,

    /// The project: nothing of another one can be read or written.
    #[arg(long, env = "LAYERD_PROJECT", value_name = "PROJECT")]
    project: ProjectId,

    /// A ref, or a pattern of refs, that may be read; may be given more than
    /// once.
    #[arg(long, env = "LAYERD_READ", value_name = "REF", value_delimiter = ',', num_args = 1..)]
    read: Vec<RefPattern>,

    /// A ref, or a pattern of refs, that may be written; may be given more than
    /// once.
    #[arg(long, env = "LAYERD_WRITE", value_name = "REF", value_delimiter = ',', num_args = 1..)]
    write: Vec<RefPattern>,

    /// How long it is good for: 90s, 10m, 8h, 7d; at most 90d.
    #[arg(
        long,
        env = "LAYERD_TTL",
        value_name = "DURATION",
        value_parser = lifetime,
        default_value = "1h"
    )]
    ttl: Duration,

    /// Who it is for; people read it in logs.
    #[arg(
        long,
        env = "LAYERD_SUBJECT",
        value_name = "TEXT",
        default_value = "cli"
    )]
    subject: String,

    /// Print a JSON object: the token, and what it grants.
    #[arg(long)]
    json: bool,

    /// A TOML file with these options as keys; it may be the one of a hub or of
    /// a sidecar.
    #[arg(long, env = "LAYERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A length of time that a token may be good for.
fn lifetime(text: &str) -> Result<Duration, &'static str> {
    let lifetime = parse_duration(text)?;
    if lifetime.as_secs() == 0 || lifetime > MAX_LIFETIME {
        return Err("a token is good for 1s at least and for 90d at most");
    }
    Ok(lifetime)
}

/// The token as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    token: &'a str,
    id: &'a str,
    kid: &'a str,
    expires: Timestamp,
    subject: &'a str,
    project: &'a ProjectId,
    read: &'a [RefPattern],
    write: &'a [RefPattern],
}

pub(super) fn run(args: MintArgs) -> anyhow::Result<ExitCode> {
    let keys = Keys::open(&args.token_key_file)?;
    if keys.signer().is_none() {
        bail!(
            "{} holds public keys only, which verify and can't sign: name the private one",
            args.token_key_file.display()
        );
    }
    let new = NewToken {
        subject: args.subject,
        project: args.project,
        read: args.read,
        write: args.write,
        lifetime: args.ttl,
    };
    let minted = keys.mint(&new, Timestamp::now())?;
    if !args.json {
        print(minted.token.expose())?;
        return Ok(ExitCode::SUCCESS);
    }
    print_json(&Shown {
        token: minted.token.expose(),
        id: &minted.id,
        kid: &minted.kid,
        expires: minted.expires,
        subject: &new.subject,
        project: &new.project,
        read: &new.read,
        write: &new.write,
    })?;
    Ok(ExitCode::SUCCESS)
}
