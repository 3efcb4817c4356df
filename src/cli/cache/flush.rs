//! `layerd cache flush`: the next build starts clean.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::Store;
use super::display::{print, print_json};
use crate::access::token::read_unverified;
use crate::cache::Flush;
use crate::cache::remote;
use crate::catalog::ledger::{self, NewFlush};
use crate::cli::hub_api::{HubApi, Wanted};
use crate::cli::hub_args::HubArgs;
use crate::cli::stored::{CatalogArg, typist};
use crate::doors::admin;
use crate::place::{GitRef, ProjectId, Scope};
use crate::units::counted;

/// Take exports out of the log: of a project, of one ref, or of one scope.
///
/// For readers they all go at once: the next build that would see them finds
/// nothing, and is told that the cache was flushed, when and by whom. Builds that
/// run go on with what they have, and may export some of it again. An export
/// that is published meanwhile stays.
///
/// A project of which nothing is known is an error; where it is known, and has
/// nothing of that ref or scope, nothing is done.
///
/// With --hub, a hub is asked, by an admin token or one that may write all of it. Else it is
/// done in the store itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache flush --data-dir /var/lib/layerd --project default --ref main
  layerd cache flush --hub https://cache:8700 --hub-token-file token --project acme/shop
  layerd cache flush --catalog postgres://layerd@db/layerd --project acme/shop --scope web")]
pub(super) struct FlushArgs {
    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    store: Store,

    #[command(flatten)]
    catalog: CatalogArg,

    /// Of this project.
    #[arg(long, value_name = "PROJECT")]
    project: ProjectId,

    /// Only of this git ref; `main` is short for `refs/heads/main`. All refs
    /// unless given.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Only of this scope. All scopes unless given.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Flushed<'a> {
    project: &'a ProjectId,
    #[serde(rename = "ref")]
    git_ref: Option<&'a GitRef>,
    scope: Option<&'a Scope>,
    exports: u64,
}

pub(super) async fn run(args: FlushArgs) -> anyhow::Result<ExitCode> {
    let exports = match args.hub.addresses().is_empty() {
        false => by_hub(&args).await?,
        true => here(&args).await?,
    };
    let flushed = Flushed {
        project: &args.project,
        git_ref: args.git_ref.as_ref(),
        scope: args.scope.as_ref(),
        exports,
    };
    if args.json {
        print_json(&flushed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let git_ref = flushed.git_ref.map_or("every ref", GitRef::as_str);
    let scope = flushed.scope.map_or("every scope", Scope::as_str);
    let place = format_args!("project {}, {git_ref}, {scope}", args.project);
    match exports {
        0 => print(format_args!("nothing was there of {place}"))?,
        exports => print(format_args!(
            "flushed {} of {place}",
            counted(exports, "export")
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the token says that it is for the administration; the hub asks more.
fn is_admin(args: &FlushArgs) -> anyhow::Result<bool> {
    let token = args.hub.token()?;
    let said = token.map(|token| read_unverified(token.expose()));
    Ok(said.is_some_and(|said| said.is_ok_and(|said| said.grant.is_admin())))
}

async fn by_admin(args: &FlushArgs, hub: &HubApi) -> anyhow::Result<u64> {
    let place = admin::PlaceToFlush {
        git_ref: args.git_ref.clone(),
        scope: args.scope.clone(),
    };
    let wanted = Wanted::at(&["projects", args.project.as_str(), "flush"]);
    let flushed: admin::Flushed = hub.send(http::Method::POST, wanted, &place).await?;
    Ok(flushed.exports)
}

async fn by_hub(args: &FlushArgs) -> anyhow::Result<u64> {
    if is_admin(args)?
        && let Some(hub) = args.hub.api()?
    {
        return by_admin(args, &hub).await;
    }
    let (hub, token) = args.hub.engine(remote::Metrics::default())?;
    let flush = Flush {
        project: args.project.clone(),
        git_ref: args.git_ref.clone(),
        scope: args.scope.clone(),
    };
    Ok(remote::flush(hub, token, &flush).await?)
}

async fn here(args: &FlushArgs) -> anyhow::Result<u64> {
    let flush = NewFlush {
        project: args.project.clone(),
        git_ref: args.git_ref.clone(),
        scope: args.scope.clone(),
        origin: typist(),
    };
    let catalog = args.catalog.or_in(&args.store.data_dir).await?;
    let flushed = async {
        if !ledger::is_known(&*catalog, &args.project).await? {
            bail!("there is no project {}", args.project);
        }
        Ok(catalog.flush(&flush).await?)
    };
    let flushed = flushed.await;
    catalog.close().await;
    flushed
}
