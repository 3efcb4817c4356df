//! `layerd cache ls`: the export log.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::display::{age, print, print_json, table};
use super::seen::Seen;
use crate::catalog::{Filter, Kind};
use crate::place::{GitRef, ProjectId, Scope};
use crate::units::ByteSize;

/// List exports, newest first.
///
/// An export is one cache snapshot that one build wrote. Each stands at a
/// place: a project, a git ref and a scope. An import gets the
/// union of all that it may see; `layerd cache graph` shows one. An export that
/// adds nothing to a newer one of its place leaves the log, and this list. What
/// clients of GitHub's cache save under a key is an export, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache ls --data-dir /var/lib/layerd
  layerd cache ls --hub https://cache:8700 --hub-token-file admin-token
  layerd cache ls --ref main --limit 5
  layerd cache ls --kind gha
  layerd cache ls --json | jq '.[].bytes'")]
pub(super) struct LsArgs {
    #[command(flatten)]
    seen: Seen,

    /// Only exports of this project.
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,

    /// Only exports of this git ref; `main` is short for `refs/heads/main`.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Only exports of this scope.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,

    /// Only builds' caches, or only entries that clients of GitHub's cache have
    /// saved.
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    kind: Shown,

    /// At most so many; 0 for all. Unless given, a table has 50 and JSON has
    /// all.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,

    /// Print a JSON array: times in UTC, sizes in bytes.
    #[arg(long)]
    json: bool,
}

/// Which kinds of exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// What builds have exported.
    Cache,
    /// What was saved under a key; entry is the same.
    #[value(alias = "entry")]
    Gha,
    /// Both.
    #[default]
    All,
}

impl Shown {
    fn kind(self) -> Option<Kind> {
        match self {
            Self::Cache => Some(Kind::Cache),
            Self::Gha => Some(Kind::Entry),
            Self::All => None,
        }
    }
}

/// Rows of a table unless more are asked for.
const ROWS: u32 = 50;

impl LsArgs {
    fn limit(&self) -> Option<u32> {
        let unless_given = if self.json { 0 } else { ROWS };
        Some(self.limit.unwrap_or(unless_given)).filter(|limit| *limit > 0)
    }
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<ExitCode> {
    let limit = args.limit();
    let cache = args.seen.open().await?;
    let filter = Filter {
        project: args.project,
        git_ref: args.git_ref,
        scope: args.scope,
        kind: args.kind.kind(),
        before: None,
        limit,
        after: None,
    };
    let listed = cache.list(&filter, !args.json).await;
    cache.close().await;
    let (exports, all) = listed?;
    if args.json {
        print_json(&exports)?;
        return Ok(ExitCode::SUCCESS);
    }
    if exports.is_empty() {
        print("no exports")?;
        return Ok(ExitCode::SUCCESS);
    }
    let left_out = all.and_then(|all| left_out(exports.len(), all));
    let now = Timestamp::now();
    let keys = exports.iter().any(|export| export.entry.is_some());
    let mut header = vec![
        "ID", "AGE", "PROJECT", "REF", "SCOPE", "BUILDER", "RECORDS", "LAYERS", "SIZE",
    ];
    header.extend(keys.then_some("KEY"));
    let mut rows = table(header, &[0, 6, 7, 8]);
    for export in exports {
        let key = export.entry.map(|entry| entry.key.to_string());
        let mut row = vec![
            export.id.to_string(),
            age(export.time, now).to_string(),
            export.place.project.to_string(),
            export.place.git_ref.to_string(),
            export.place.scope.to_string(),
            export.builder,
            export.records.to_string(),
            export.layers.to_string(),
            ByteSize(export.bytes).to_string(),
        ];
        row.extend(keys.then(|| key.unwrap_or_default()));
        rows.add_row(row);
    }
    print(rows.trim_fmt())?;
    if let Some(note) = left_out {
        // Nobody may be there to be told, which is no reason to fail.
        writeln!(std::io::stderr(), "{note}").ok();
    }
    Ok(ExitCode::SUCCESS)
}

/// That a table does not have all.
fn left_out(shown: usize, all: u64) -> Option<String> {
    ((shown as u64) < all).then(|| format!("{shown} of {all} shown; --limit 0 for all"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: LsArgs,
    }

    #[test]
    fn a_table_has_the_newest_and_json_has_all_unless_a_limit_is_given() {
        for (typed, limit) in [
            (&["ls"][..], Some(50)),
            (&["ls", "--json"], None),
            (&["ls", "--limit", "0"], None),
            (&["ls", "--limit", "7"], Some(7)),
            (&["ls", "--json", "--limit", "7"], Some(7)),
        ] {
            let args = Typed::try_parse_from(typed).unwrap().args;
            assert_eq!(args.limit(), limit, "{typed:?}");
        }
    }

    #[test]
    fn a_kind_is_chosen_by_its_name_and_none_is_left_out_unless_told() {
        for (typed, kind) in [
            (&["ls"][..], None),
            (&["ls", "--kind", "all"], None),
            (&["ls", "--kind", "cache"], Some(Kind::Cache)),
            (&["ls", "--kind", "gha"], Some(Kind::Entry)),
            (&["ls", "--kind", "entry"], Some(Kind::Entry)),
        ] {
            let args = Typed::try_parse_from(typed).unwrap().args;
            assert_eq!(args.kind.kind(), kind, "{typed:?}");
        }
        assert!(Typed::try_parse_from(["ls", "--kind", "other"]).is_err());
    }

    #[test]
    fn a_table_that_does_not_have_all_says_so() {
        assert_eq!(
            left_out(50, 122).as_deref(),
            Some("50 of 122 shown; --limit 0 for all")
        );
        assert_eq!(left_out(50, 50), None);
        assert_eq!(left_out(51, 50), None, "one came meanwhile");
    }
}
