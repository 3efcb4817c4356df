//! `layerd token ls`: tokens that count no more.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;

use super::display::{age, print, print_json, table};
use crate::catalog::ledger::{MAX_PAGE, Revision, Revocation};
use crate::cli::hub_api::Wanted;
use crate::cli::hub_args::HubArgs;
use crate::cli::stored::Stored;

/// List the tokens that were revoked and would else still count.
///
/// Of other tokens nothing is kept: which were made is in `layerd audit --action
/// mint`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    stored: Stored,

    /// Print a JSON array, times in UTC.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<ExitCode> {
    let revoked: Vec<Revocation> = match args.hub.api()? {
        Some(hub) => hub.items(Wanted::at(&["tokens", "revoked"]), None).await?,
        None => here(&args).await.context("revoked tokens")?,
    };
    if args.json {
        print_json(&revoked)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let mut rows = table(["ID", "REVOKED", "BY", "WHY"], &[]);
    for one in revoked {
        rows.add_row([one.id, age(one.at, now).to_string(), one.by, one.why]);
    }
    print(rows.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

async fn here(args: &LsArgs) -> anyhow::Result<Vec<Revocation>> {
    let catalog = args.stored.open().await?;
    let all = async {
        let (mut all, mut after) = (Vec::new(), Revision::default());
        loop {
            let page = catalog.revocations(after).await?;
            let is_last = page.len() < MAX_PAGE as usize;
            after = page.last().map_or(after, |last| last.revision);
            all.extend(page);
            if is_last {
                return anyhow::Ok(all);
            }
        }
    };
    let all = all.await;
    catalog.close().await;
    all
}
