//! `layerd audit`: who did what.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::display::{age, print, print_json, table};
use super::hub_api::Wanted;
use super::hub_args::HubArgs;
use super::stored::Stored;
use crate::catalog::Catalog;
use crate::catalog::ledger::{Action, Actor, AuditEntry, AuditFilter, Details, MAX_PAGE};
use crate::place::ProjectId;
use crate::units::parse_duration;

/// List who did what, and from where: newest first.
///
/// A hub notes exports, flushes, tokens that were made, exchanged or revoked,
/// exports that were deleted or collected, and quotas; commands that work on a
/// store by themselves note theirs: imports, collections and repairs as well. Nothing is ever changed there; what is
/// older than --audit-max-age of `layerd serve` is dropped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd audit --data-dir /var/lib/layerd-hub
  layerd audit --hub https://cache:8700 --hub-token-file admin-token
  layerd audit --project acme/shop --action flush --since 7d
  layerd audit --since 24h --json | jq -r '.[].actor.subject' | sort | uniq -c")]
pub struct AuditArgs {
    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    stored: Stored,

    /// Only what was done to this project.
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,

    /// Only this: export, flush, delete, evict, mint, exchange, revoke, quota,
    /// import or repair.
    #[arg(long, value_name = "ACTION")]
    action: Option<Action>,

    /// Only of the last so long, such as 24h or 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,

    /// At most so many; 0 for all. Unless given, a table has 50 and JSON has
    /// all.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Print a JSON array, times in UTC.
    #[arg(long)]
    json: bool,
}

/// Rows of a table unless more are asked for.
const ROWS: usize = 50;

/// Runs `layerd audit`.
pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let since = args.since.map(|since| now.checked_sub(since));
    let filter = AuditFilter {
        project: args.project,
        action: args.action,
        since: since.transpose().context("--since goes back too far")?,
        ..AuditFilter::default()
    };
    let unless_given = if args.json { 0 } else { ROWS };
    let limit = match args.limit.unwrap_or(unless_given) {
        0 => usize::MAX,
        limit => limit,
    };
    let entries = match args.hub.api()? {
        Some(hub) => {
            let wanted = Wanted::at(&["audit"])
                .with("project", filter.project)
                .with("action", filter.action)
                .with("since", filter.since);
            hub.items(wanted, Some(limit)).await?
        }
        None => {
            let catalog = args.stored.open().await?;
            let entries = entries(&*catalog, filter, limit).await;
            catalog.close().await;
            entries?
        }
    };
    if args.json {
        print_json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    if entries.is_empty() {
        print("nothing")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(
        [
            "WHEN", "WHO", "FROM", "ACTION", "PROJECT", "REF", "SCOPE", "DETAILS",
        ],
        &[],
    );
    for entry in &entries {
        let place = |name: Option<&str>| name.unwrap_or_default().to_owned();
        rows.add_row([
            age(entry.at, now).to_string(),
            who(entry),
            entry
                .origin
                .peer
                .map_or_else(String::new, |peer| peer.to_string()),
            entry.action.to_string(),
            place(entry.project.as_ref().map(|name| name.as_str())),
            place(entry.git_ref.as_ref().map(|name| name.as_str())),
            place(entry.scope.as_ref().map(|name| name.as_str())),
            details(&entry.details),
        ]);
    }
    print(rows.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

/// So many of what the filter lets through, page by page.
async fn entries(
    catalog: &dyn Catalog,
    mut filter: AuditFilter,
    limit: usize,
) -> anyhow::Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    while entries.len() < limit {
        let rest = u32::try_from(limit - entries.len()).unwrap_or(u32::MAX);
        filter.limit = Some(rest.min(MAX_PAGE));
        let page = catalog.audit(&filter).await?;
        let Some(last) = page.last() else {
            break;
        };
        filter.before = Some(last.id);
        entries.extend(page);
    }
    Ok(entries)
}

/// A token has an id, by which it can be revoked.
fn who(entry: &AuditEntry) -> String {
    let name = entry.origin.actor.name();
    match &entry.origin.actor {
        Actor::Token { subject, id } if !subject.is_empty() => format!("{name} (token {id})"),
        _ => name.to_owned(),
    }
}

fn details(details: &Details) -> String {
    let says = |value: &Value| !value.is_null() && value.as_str() != Some("");
    let known = details.iter().filter(|(_, value)| says(value));
    let shown = known.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_that_says_nothing_is_left_out_for_people() {
        let told: Details =
            serde_json::from_str(r#"{"note": "", "why": null, "exports": 0, "by": "ops"}"#)
                .unwrap();
        let shown = details(&told);
        assert!(!shown.contains("note") && !shown.contains("why"), "{shown}");
        assert!(
            shown.contains("exports=0") && shown.contains("by=ops"),
            "{shown}"
        );
    }
}
