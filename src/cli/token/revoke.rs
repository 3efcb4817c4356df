//! `layerd token revoke`: a token that counts no more.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::display::{print, print_json};
use super::from_stdin;
use crate::access::Secret;
use crate::access::token::{is_id, read_unverified};
use crate::catalog::ledger::NewRevocation;
use crate::cli::hub_api::Wanted;
use crate::cli::hub_args::HubArgs;
use crate::cli::stored::{Stored, typist};
use crate::doors::admin::{RevokeRequest, RevokedToken};

/// Have all hubs refuse a token from now on.
///
/// This works on the store of the hubs itself: give their --data-dir or
/// --catalog; or, with --hub and an admin token, at a hub. Each of them refuses the token a second later at most, and ends
/// the streams that it has open within some. What it has exported stays; see
/// `layerd audit` for what that is, and `layerd cache flush`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd token revoke --data-dir /var/lib/layerd-hub - < leaked-token
  layerd token revoke 5f3c9a0e1b7d4c22 --reason 'it was in a build log'
  layerd audit --action mint     # tells ids")]
pub(super) struct RevokeArgs {
    /// The token, its id, or - for standard input, where other users of the host
    /// can't see it in the list of processes.
    #[arg(value_name = "ID|TOKEN|-")]
    token: Secret,

    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    stored: Stored,

    /// Why; for the audit log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Revoked<'a> {
    id: &'a str,
    subject: Option<&'a str>,
    expires: Option<Timestamp>,
}

pub(super) async fn run(args: RevokeArgs) -> anyhow::Result<ExitCode> {
    let given = match args.token.expose() {
        "-" => from_stdin()?,
        _ => args.token,
    };
    let given = given.expose();
    // Whether it is genuine does not matter: whoever has the store may name any.
    let said = match given.matches('.').count() {
        2 => Some(read_unverified(given)?),
        _ => None,
    };
    let grant = said.as_ref().map(|said| &said.grant);
    let id = grant.map_or(given, |grant| grant.id());
    if grant.is_none() && !is_id(id) {
        bail!(
            "this is neither a token nor the id of one, which has 32 hexadecimal digits (`layerd token explain` shows it)"
        );
    }
    let expires = grant.and_then(|grant| grant.expires());
    match args.hub.api()? {
        Some(hub) => {
            let is_token = grant.is_some();
            let request = RevokeRequest {
                token: is_token.then(|| given.to_owned()),
                id: (!is_token).then(|| given.to_owned()),
                reason: args.reason,
            };
            let wanted = Wanted::at(&["tokens", "revoke"]);
            let _: RevokedToken = hub.send(http::Method::POST, wanted, &request).await?;
        }
        None => {
            let catalog = args.stored.open().await?;
            let revoked = catalog
                .revoke(&NewRevocation {
                    id: id.to_owned(),
                    expires,
                    why: args.reason,
                    origin: typist(),
                })
                .await;
            catalog.close().await;
            revoked?;
        }
    }
    let subject = grant.map(|grant| grant.subject());
    if args.json {
        print_json(&Revoked {
            id,
            subject,
            expires,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let of = subject.map_or_else(String::new, |subject| format!(" of {subject}"));
    print(format_args!(
        "token {id}{of} is revoked: every hub of this store refuses it within a second"
    ))?;
    if expires.is_some_and(|expires| expires < Timestamp::now()) {
        print("it had expired already")?;
    }
    Ok(ExitCode::SUCCESS)
}
