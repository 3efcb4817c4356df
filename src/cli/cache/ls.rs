//! `layerd cache ls`: the export log.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::Store;
use super::display::{age, print, print_json, table};
use crate::catalog::{Catalog as _, Filter};
use crate::place::{GitRef, ProjectId, Scope};
use crate::units::ByteSize;

/// List exports, newest first.
///
/// An export is one cache snapshot that one build wrote. Each stands at a
/// place: a project, a git ref and a scope. An import gets the newest export
/// of the first place that it asks for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache ls --data-dir /var/lib/layerd
  layerd cache ls --ref main --limit 5
  layerd cache ls --limit 0 --json | jq '.[].bytes'")]
pub(super) struct LsArgs {
    #[command(flatten)]
    store: Store,

    /// Only exports of this project.
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,

    /// Only exports of this git ref; `main` is short for `refs/heads/main`.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Only exports of this scope.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,

    /// At most so many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,

    /// Print a JSON array: times in UTC, sizes in bytes.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<ExitCode> {
    let catalog = args.store.catalog().await?;
    let filter = Filter {
        project: args.project,
        git_ref: args.git_ref,
        scope: args.scope,
        before: None,
        limit: (args.limit > 0).then_some(args.limit),
    };
    let exports = catalog.list(&filter).await?;
    catalog.close().await;
    if args.json {
        print_json(&exports)?;
        return Ok(ExitCode::SUCCESS);
    }
    if exports.is_empty() {
        print("no exports")?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let mut rows = table(
        [
            "ID", "AGE", "PROJECT", "REF", "SCOPE", "BUILDER", "RECORDS", "LAYERS", "SIZE",
        ],
        &[0, 6, 7, 8],
    );
    for export in exports {
        rows.add_row([
            export.id.to_string(),
            age(export.time, now).to_string(),
            export.place.project.to_string(),
            export.place.git_ref.to_string(),
            export.place.scope.to_string(),
            export.builder,
            export.records.to_string(),
            export.layers.to_string(),
            ByteSize(export.bytes).to_string(),
        ]);
    }
    print(rows.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}
