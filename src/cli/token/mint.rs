//! `layerd token mint`: a new token.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use http::Method;
use jiff::Timestamp;
use serde::Serialize;

use super::display::{print, print_json};
use crate::access::token::MAX_LIFETIME;
use crate::access::{Keys, NewAdminToken, NewToken, RefPattern};
use crate::cli::hub_api::Wanted;
use crate::cli::hub_args::HubArgs;
use crate::doors::admin::{MintRequest, MintedToken};
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
    group = ArgGroup::new("refs").args(["read", "write", "admin"]).multiple(true).required(true),
    after_help = "\
Examples:
  A branch reads itself and main, and writes itself:
    layerd token mint --token-key-file ci.pem --project acme/shop \\
        --read feat/x --read main --write feat/x
  A runner of main, for a day; it reads no pull request's:
    layerd token mint --token-key-file ci.pem --project acme/shop \\
        --read main --write main --ttl 24h
  For who administers all projects:
    layerd token mint --token-key-file ci.pem --admin --ttl 8h --subject ops > admin-token
  Straight into the file that a sidecar reads again when it changes:
    layerd token mint --token-key-file ci.pem --project acme/shop \\
        --read main > token.new && mv token.new /run/layerd/token"
)]
pub(super) struct MintArgs {
    /// The key to sign with; without it a hub signs, by --hub and an admin token.
    /// A file, or a folder of which the newest private
    /// key is used. `layerd token key` makes one.
    #[arg(
        long,
        env = "LAYERD_TOKEN_KEY_FILE",
        value_name = "PATH",
        required_unless_present = "hub"
    )]
    token_key_file: Option<PathBuf>,

    #[command(flatten)]
    hub: HubArgs,

    /// The project: nothing of another one can be read or written. Without it an
    /// admin token is for all.
    #[arg(
        long,
        env = "LAYERD_PROJECT",
        value_name = "PROJECT",
        required_unless_present = "admin"
    )]
    project: Option<ProjectId>,

    /// An admin token: for the administration of the hub, or of the project. It
    /// reads and writes no cache.
    #[arg(long, conflicts_with_all = ["read", "write"])]
    admin: bool,

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
    project: Option<&'a ProjectId>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    read: &'a [RefPattern],
    write: &'a [RefPattern],
}

pub(super) async fn run(args: MintArgs) -> anyhow::Result<ExitCode> {
    let minted = match &args.token_key_file {
        Some(path) => by_key(path, &args)?,
        None => by_hub(&args).await?,
    };
    if !args.json {
        print(&minted.token)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_json(&Shown {
        token: &minted.token,
        id: &minted.id,
        kid: &minted.kid,
        expires: minted.expires,
        subject: &args.subject,
        project: args.project.as_ref(),
        admin: args.admin,
        read: &args.read,
        write: &args.write,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn by_key(path: &Path, args: &MintArgs) -> anyhow::Result<MintedToken> {
    let keys = Keys::open(path)?;
    if keys.signer().is_none() {
        bail!(
            "{} holds public keys only, which verify and can't sign: name the private one",
            path.display()
        );
    }
    let now = Timestamp::now();
    let minted = match (args.admin, args.project.clone()) {
        (true, project) => keys.mint_admin(
            &NewAdminToken {
                subject: args.subject.clone(),
                project,
                lifetime: args.ttl,
            },
            now,
        )?,
        (false, project) => keys.mint(
            &NewToken {
                subject: args.subject.clone(),
                project: project.context("--project is missing")?,
                read: args.read.clone(),
                write: args.write.clone(),
                lifetime: args.ttl,
            },
            now,
        )?,
    };
    Ok(MintedToken {
        token: minted.token.expose().to_owned(),
        id: minted.id,
        kid: minted.kid,
        expires: minted.expires,
    })
}

async fn by_hub(args: &MintArgs) -> anyhow::Result<MintedToken> {
    let hub = args.hub.api()?.context("--hub is missing")?;
    let request = MintRequest {
        project: args.project.clone(),
        read: args.read.clone(),
        write: args.write.clone(),
        admin: args.admin,
        ttl_seconds: args.ttl.as_secs(),
        subject: args.subject.clone(),
    };
    hub.send(Method::POST, Wanted::at(&["tokens"]), &request)
        .await
}
