//! `layerd cache graph`: what builds get of a project.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::display::{age, print, print_json, table};
use super::dot::dot;
use super::seen::Seen;
use crate::cache::look::{Unreadable, View};
use crate::catalog::{ExportHead, Filter};
use crate::digest::Digest;
use crate::graph::{Refused, SurveyedRecord};
use crate::place::{GitRef, ProjectId, Scope};
use crate::step::StepName;
use crate::units::{ByteSize, counted};

/// Show the union of a project's exports: what builds get as one cache.
///
/// A record is one step on what it stands on; the same step in two exports is
/// one record. Records without inputs are the roots: base images, sources, and
/// contents of files that steps copy or mount. Steps have the names that the
/// builds which ran them gave them, as far as those are known. What can't be
/// served is counted, with the reason: such a record or result costs its own
/// hits, and nothing else. With --hub, a hub is asked, by an admin token.
#[derive(Debug, Args)]
#[command(after_help = "\
JSON: project, refs, scope; counts{exports, builders, records, with_results, roots,
depth, layers, bytes}; left_out{absent_blobs, absent_results, fruitless_records,
refused{malformed, random, joining, unfounded, dangling, results},
unreadable_exports, loops}; exports[]; records[]{digest, step, inputs, depth,
results, exports}. inputs has, for each input, the indices of the records that
satisfy it; roots have none. absent_blobs is null where the hub could not look for them.

Examples:
  layerd cache graph --project acme/shop
  layerd cache graph --ref main --ref feature --limit 0
  layerd cache graph --hub https://cache:8700 --hub-token-file admin-token --project acme/shop
  layerd cache graph --format dot --limit 0 | dot -Tsvg > graph.svg
  layerd cache graph --format json | jq '.counts'")]
pub(super) struct GraphArgs {
    #[command(flatten)]
    seen: Seen,

    /// The project.
    #[arg(long, value_name = "PROJECT", default_value_t)]
    project: ProjectId,

    /// Only exports of this git ref; `main` is short for `refs/heads/main`.
    /// Repeatable.
    #[arg(long = "ref", value_name = "REF")]
    refs: Vec<GitRef>,

    /// Only exports of this scope; all scopes unless given.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,

    /// What to print: a summary and a table, a JSON object with everything, or
    /// a graph for Graphviz.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    format: Format,

    /// At most so many records: steps, those nearest the roots first, then the
    /// contents that they use; 0 for all. Unless given, text has 50, a graph
    /// 1000. JSON always has all.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Dot,
}

impl Format {
    /// Records that are shown unless more are asked for.
    fn usual(self) -> usize {
        match self {
            Self::Text => 50,
            Self::Dot => 1000,
            Self::Json => 0,
        }
    }
}

pub(super) async fn run(args: GraphArgs) -> anyhow::Result<ExitCode> {
    let cache = args.seen.open().await?;
    let filter = |git_ref: Option<GitRef>| Filter {
        project: Some(args.project.clone()),
        git_ref,
        scope: args.scope.clone(),
        ..Filter::default()
    };
    let filters: Vec<Filter> = match args.refs.as_slice() {
        [] => vec![filter(None)],
        refs => refs.iter().cloned().map(Some).map(filter).collect(),
    };
    let view = cache.view(&filters).await;
    cache.close().await;
    let view = view?;
    if view.heads.is_empty() && view.unreadable.is_empty() {
        bail!(
            "project {} has no such exports in {}; layerd cache ls shows which there are, and --project, --ref and --scope choose",
            args.project,
            cache.at()
        );
    }
    let format = if args.json { Format::Json } else { args.format };
    let limit = args.limit.unwrap_or(format.usual());
    let all = view.survey.records.len();
    let shown = chosen(&view.survey.records, limit);
    match format {
        Format::Text => print_text(&args, &view, &shown)?,
        Format::Json => print_json(&Shown::new(&args, &view))?,
        Format::Dot => print(dot(&view, &shown))?,
    }
    if format != Format::Json && shown.len() < all {
        // Nobody may be there to be told, which is no reason to fail.
        let note = format!("{} of {all} records shown; --limit 0 for all", shown.len());
        writeln!(std::io::stderr(), "{note}").ok();
    }
    Ok(ExitCode::SUCCESS)
}

/// The records to show: steps, those nearest the roots first, then contents.
fn chosen(records: &[SurveyedRecord], limit: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..records.len()).collect();
    chosen.sort_by_key(|at| records[*at].is_content());
    if limit > 0 {
        chosen.truncate(limit);
    }
    chosen
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    project: &'a ProjectId,
    refs: &'a [GitRef],
    scope: Option<&'a Scope>,
    counts: Counts,
    left_out: ShownLeftOut<'a>,
    exports: &'a [ExportHead],
    records: Vec<ShownRecord<'a>>,
}

#[derive(Debug, Serialize)]
struct Counts {
    exports: usize,
    builders: usize,
    records: usize,
    with_results: usize,
    roots: usize,
    depth: u32,
    layers: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct ShownLeftOut<'a> {
    absent_blobs: Option<&'a [Digest]>,
    absent_results: u64,
    fruitless_records: u64,
    refused: Refused,
    unreadable_exports: &'a [Unreadable],
    loops: u64,
}

#[derive(Debug, Serialize)]
struct ShownRecord<'a> {
    digest: &'a str,
    step: Option<&'a StepName>,
    inputs: &'a [Vec<usize>],
    depth: u32,
    results: usize,
    exports: &'a [u64],
}

impl Counts {
    fn of(view: &View) -> Self {
        let records = &view.survey.records;
        let count = |of: fn(&&SurveyedRecord) -> bool| records.iter().filter(of).count();
        let builders: BTreeSet<&str> = (view.heads.iter())
            .map(|head| head.builder.as_str())
            .collect();
        Self {
            exports: view.heads.len(),
            builders: builders.len(),
            records: records.len(),
            with_results: count(|record| record.results > 0),
            roots: count(|record| record.inputs.is_empty()),
            depth: records.iter().map(|record| record.depth).max().unwrap_or(0),
            layers: view.blobs,
            bytes: view.bytes,
        }
    }
}

impl<'a> Shown<'a> {
    fn new(args: &'a GraphArgs, view: &'a View) -> Self {
        let record = |record: &'a SurveyedRecord| ShownRecord {
            digest: record.digest.as_str(),
            step: view.names.of(record),
            inputs: &record.inputs,
            depth: record.depth,
            results: record.results,
            exports: &record.exports,
        };
        Self {
            project: &args.project,
            refs: &args.refs,
            scope: args.scope.as_ref(),
            counts: Counts::of(view),
            left_out: ShownLeftOut {
                absent_blobs: view.absent.as_deref(),
                absent_results: view.left_out.absent,
                fruitless_records: view.left_out.fruitless,
                refused: view.refused,
                unreadable_exports: &view.unreadable,
                loops: view.survey.loops,
            },
            exports: &view.heads,
            records: view.survey.records.iter().map(record).collect(),
        }
    }
}

fn print_text(args: &GraphArgs, view: &View, shown: &[usize]) -> anyhow::Result<()> {
    let counts = Counts::of(view);
    let now = Timestamp::now();
    let refs: BTreeSet<&str> = (view.heads.iter())
        .map(|head| head.place.git_ref.as_str())
        .collect();
    print(format_args!("project  {}", args.project))?;
    print(format_args!("refs     {}", few(refs.into_iter())))?;
    let newest = view.heads.last().map_or_else(String::new, |head| {
        format!(", newest {} (export {})", age(head.time, now), head.id)
    });
    print(format_args!(
        "exports  {} by {}{newest}",
        counts.exports,
        counted(counts.builders, "builder")
    ))?;
    print(format_args!(
        "records  {}: {} with results, {}, at most {} deep",
        counts.records,
        counts.with_results,
        counted(counts.roots, "root"),
        counts.depth
    ))?;
    print(format_args!(
        "layers   {}, {}",
        counts.layers,
        ByteSize(counts.bytes)
    ))?;
    for line in left_out(view) {
        print(format_args!("left out {line}"))?;
    }
    let mut rows = table(
        [
            "RECORD",
            "DEPTH",
            "STANDS ON",
            "RESULTS",
            "EXPORTS",
            "DIGEST",
            "STEP",
        ],
        &[0, 1, 3],
    );
    for &at in shown {
        let record = &view.survey.records[at];
        rows.add_row([
            at.to_string(),
            record.depth.to_string(),
            inputs(record),
            record.results.to_string(),
            few(record.exports.iter().map(u64::to_string)),
            short(record),
            step(view, record),
        ]);
    }
    print(format_args!("\n{}", rows.trim_fmt()))?;
    Ok(())
}

/// What of the exports is not served, a line for each reason.
fn left_out(view: &View) -> Vec<String> {
    let Refused {
        malformed,
        random,
        joining,
        unfounded,
        dangling,
        results,
        contradicting,
    } = view.refused;
    let counted = [
        (
            view.unreadable.len() as u64,
            "unreadable exports (see layerd cache fsck)",
        ),
        (
            view.absent.as_ref().map_or(0, Vec::len) as u64,
            "missing blobs (see layerd cache fsck)",
        ),
        (
            view.left_out.absent,
            "results that need such blobs, or layers that no manifest describes",
        ),
        (view.left_out.fruitless, "records that lead to no result"),
        (malformed, "malformed records"),
        (random, "records with a digest that never comes again"),
        (joining, "records that layerd itself had put into an import"),
        (unfounded, "records with an input that nothing satisfies"),
        (dangling, "links to no record"),
        (results, "results with bad layers"),
        (
            contradicting,
            "layers that an older export describes otherwise",
        ),
        (
            view.survey.loops,
            "links that made a record its own ancestor",
        ),
    ];
    let counted = counted.iter().filter(|(count, _)| *count > 0);
    counted
        .map(|(count, what)| format!("{what}: {count}"))
        .collect()
}

/// The first of them, and how many more there are.
pub(super) fn few(all: impl ExactSizeIterator<Item = impl ToString>) -> String {
    const SHOWN: usize = 5;
    let more = all.len().saturating_sub(SHOWN);
    let shown: Vec<String> = all.take(SHOWN).map(|one| one.to_string()).collect();
    let shown = shown.join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Inputs apart by commas, the alternatives of one by bars: `3|4, 7`.
fn inputs(record: &SurveyedRecord) -> String {
    let alternatives = |input: &Vec<usize>| {
        let numbers: Vec<String> = input.iter().map(usize::to_string).collect();
        numbers.join("|")
    };
    few(record.inputs.iter().map(alternatives))
}

/// The step's name, or what else the record is.
pub(super) fn step(view: &View, record: &SurveyedRecord) -> String {
    match view.names.of(record) {
        Some(name) => name.to_string(),
        None if record.is_content() => "(source or contents)".to_owned(),
        None => String::new(),
    }
}

/// Enough of the digest to find it with.
pub(super) fn short(record: &SurveyedRecord) -> String {
    const SHOWN: usize = 12;
    let digest = record.digest.as_str();
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHOWN).collect()
}
