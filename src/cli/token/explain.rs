//! `layerd token explain`: what a token may.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::asked::Asked;
use super::display::{age, print, print_json};
use super::{from_stdin, identity};
use crate::access::token::{LEEWAY, Unverified, read_unverified};
use crate::access::{Denied, Keys, RefPattern, Secret};
use crate::cli::hub_args::HubArgs;
use crate::place::ProjectId;
use crate::units::Spent;

/// Say what a token may, until when, and which key signed it.
///
/// Its signature is checked with the keys of --token-key-file, as a hub would;
/// without them everything is shown as the token says it, genuine or not. Whether
/// it was revoked only a hub knows: with --hub and an admin token one is asked.
/// Ends with exit code 1 if a hub would not take it.
///
/// Of an identity token that a CI signed, its claims are shown, and with the
/// --config of a hub which of its rules matches, what that grants, and why those
/// before it do not match. Nobody is asked about that.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd token explain - < token
  layerd token explain --token-key-file /etc/layerd/keys - < token
  layerd token explain --hub https://cache:8700 --hub-token-file admin-token - < token
  layerd token explain --json - < token | jq .write
  layerd token explain --config hub.toml - < identity-token")]
pub(super) struct ExplainArgs {
    /// The token, or - for standard input, where other users of the host can't
    /// see it in the list of processes.
    #[arg(value_name = "TOKEN|-")]
    token: Secret,

    #[command(flatten)]
    hub: HubArgs,

    /// The keys to check its signature with: a file or a folder; public ones
    /// are enough.
    #[arg(long, env = "LAYERD_TOKEN_KEY_FILE", value_name = "PATH")]
    token_key_file: Option<PathBuf>,

    /// Print a JSON object, times in UTC.
    #[arg(long)]
    json: bool,

    /// A TOML file with these options as keys; it may be the one of a hub or of
    /// a sidecar.
    #[arg(long, env = "LAYERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is known of the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Signature {
    /// A key made it.
    Valid,
    /// None of the keys made it.
    Invalid,
    /// The key to check it with was not there.
    Unchecked,
}

/// The token as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    /// Whether it administers, and reads and writes nothing.
    admin: bool,
    project: Option<&'a ProjectId>,
    read: &'a [RefPattern],
    write: &'a [RefPattern],
    subject: &'a str,
    id: &'a str,
    issued: Timestamp,
    expires: Option<Timestamp>,
    kid: Option<&'a str>,
    algorithm: Option<&'static str>,
    signature: Signature,
    /// Why a hub would not take it.
    refused: Option<String>,
    /// Whether a hub was asked; else it may have been revoked.
    asked: bool,
}

pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let token = match args.token.expose() {
        "-" => from_stdin()?,
        _ => args.token,
    };
    let token = token.expose();
    if identity::is_foreign(token) {
        return identity::explain(token, args.config.as_deref(), args.json);
    }
    let now = Timestamp::now();
    let said = read_unverified(token)?;
    let keys = args.token_key_file.as_deref().map(Keys::open).transpose()?;
    let (own, denied) = judge(token, &said, keys.as_ref(), now);
    let asked = Asked::of(&args.hub, token).await;
    // Its own keys and clock are what a hub goes by.
    let refused = match asked.verdict() {
        Some(refused) => refused.map(str::to_owned),
        None => denied.as_ref().map(ToString::to_string),
    };
    let signature = asked.signature().unwrap_or(own);
    if args.json {
        print_json(&Shown {
            admin: said.grant.is_admin(),
            project: said.grant.project(),
            read: said.grant.read(),
            write: said.grant.write(),
            subject: said.grant.subject(),
            id: said.grant.id(),
            issued: said.issued,
            expires: said.grant.expires(),
            kid: said.kid.as_deref(),
            algorithm: said.algorithm.map(|algorithm| algorithm.in_header()),
            signature,
            refused: refused.clone(),
            asked: asked.verdict().is_some(),
        })?;
    } else {
        print_lines(&said, now)?;
        let by = match asked.signature() {
            Some(_) => Some("the hub".to_owned()),
            None => args
                .token_key_file
                .as_deref()
                .map(|path| path.display().to_string()),
        };
        let kid = said.kid.as_deref().unwrap_or("unknown");
        let text = signature_told(signature, by.as_deref(), kid);
        print(format_args!("{:<10}{text}", "signature"))?;
        print(format_args!("{:<10}{}", "revoked", asked.revoked()))?;
        if let Some(refused) = &refused {
            print(format_args!("\nA hub would not take it: {refused}."))?;
        }
    }
    Ok(match refused {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

/// Whether the signature is right, and why a hub would not take the token.
fn judge(
    token: &str,
    said: &Unverified,
    keys: Option<&Keys>,
    now: Timestamp,
) -> (Signature, Option<Denied>) {
    let Some(keys) = keys else {
        return (Signature::Unchecked, said.check_time(now).err());
    };
    match keys.verify(token, now) {
        Ok(_) => (Signature::Valid, None),
        // Time is asked about when everything else is right.
        Err(denied @ (Denied::Expired(_) | Denied::NotYet(_) | Denied::Lifetime)) => {
            (Signature::Valid, Some(denied))
        }
        Err(denied @ Denied::UnknownKey(_)) => (Signature::Unchecked, Some(denied)),
        Err(denied) => (Signature::Invalid, Some(denied)),
    }
}

fn print_lines(said: &Unverified, now: Timestamp) -> anyhow::Result<()> {
    let grant = &said.grant;
    let line = |name: &str, value: &dyn Display| print(format_args!("{name:<10}{value}"));
    if let Some(project) = grant.project() {
        line("project", project)?;
    }
    if grant.is_admin() {
        let of = match grant.project() {
            Some(_) => "of that project: its settings, flushes, tokens and log",
            None => "of ALL PROJECTS: settings, flushes, tokens and the log of each",
        };
        line("admin", &of)?;
    } else {
        line("read", &listed(grant.read()))?;
        line("write", &listed(grant.write()))?;
    }
    line("subject", &grant.subject())?;
    line("id", &grant.id())?;
    line(
        "made",
        &format_args!("{} ({})", said.issued, age(said.issued, now)),
    )?;
    if let Some(expires) = grant.expires() {
        line(
            "expires",
            &format_args!("{expires} ({})", to_go(expires, now)),
        )?;
    }
    let kid = said.kid.as_deref().unwrap_or("unknown");
    let algorithm = said
        .algorithm
        .map_or("unknown", |algorithm| algorithm.in_header());
    line("key", &format_args!("{kid} ({algorithm})"))?;
    Ok(())
}

/// What is known of the signature, and by whom.
fn signature_told(signature: Signature, by: Option<&str>, kid: &str) -> String {
    match (signature, by) {
        (Signature::Valid, Some(by)) => format!("right, by {by}"),
        (Signature::Invalid, Some(by)) => format!("WRONG, by {by}: none of the above need be true"),
        (_, Some(by)) => format!(
            "NOT CHECKED, since {by} has no key {kid:?}: anybody could have written the above"
        ),
        (_, None) => {
            "NOT CHECKED: anybody could have written the above; give --token-key-file to check it"
                .to_owned()
        }
    }
}

pub(super) fn listed(patterns: &[RefPattern]) -> String {
    if patterns.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<_> = patterns.iter().map(RefPattern::as_str).collect();
    shown.join(", ")
}

fn to_go(expires: Timestamp, now: Timestamp) -> String {
    match expires.duration_since(now).try_into() {
        Ok(left) => format!("in {}", Spent(left)),
        Err(_) if now.duration_since(expires) <= LEEWAY.try_into().unwrap_or_default() => format!(
            "{}; as clocks differ, it counts for {} s beyond that",
            age(expires, now),
            LEEWAY.as_secs()
        ),
        Err(_) => age(expires, now).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_counts_a_little_longer_is_not_said_to_be_gone() {
        let expires = Timestamp::UNIX_EPOCH;
        let after =
            |seconds: i64| to_go(expires, expires + jiff::SignedDuration::from_secs(seconds));
        assert!(after(-60).starts_with("in 1 min"), "{}", after(-60));
        assert!(
            after(59).contains("it counts for 60 s beyond"),
            "{}",
            after(59)
        );
        assert!(!after(61).contains("counts"), "{}", after(61));
    }
}
