//! `layerd cache diff`: why one build did not hit what another had exported.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::display::{age, print, print_json};
use super::seen::Seen;
use crate::cache::look::Difference;
use crate::catalog::{ExportHead, ExportId, Kind};
use crate::graph::{Part, Reason};
use crate::step::StepName;

/// Show where two exports part: why did my step miss?
///
/// Two exports share a record where both ran the same step on the same inputs.
/// They part at the steps that only one of them has though all that they stand
/// on is shared: another command, other files that are copied or mounted,
/// another base. Each is shown beside what the other export has in its place;
/// the steps on top of those could not hit either. Steps without a name are
/// shown by the digest of their record.
#[derive(Debug, Args)]
#[command(after_help = "\
JSON: a and b (the exports); counts{shared, only_a, only_b}; parts[]{record,
digest, step, only_in, reason, inputs, siblings}; follow{a, b}[]{record, digest,
step}. reason is contents (the same command, other files at these inputs),
command, source or alone; siblings[] is what the other export has instead.
Records have the numbers of the union of the two exports alone.

Exit status: 0 whether they differ or not.

Examples:
  layerd cache diff 12 17
  layerd cache diff 12 17 --json | jq -r '.parts[].step'")]
pub(super) struct DiffArgs {
    /// An export's number, as in `layerd cache ls`.
    #[arg(value_name = "A")]
    a: ExportId,

    /// Another's.
    #[arg(value_name = "B")]
    b: ExportId,

    #[command(flatten)]
    seen: Seen,

    /// At most so many steps of a list; 0 for all. JSON always has all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let cache = args.seen.open().await?;
    let both = async { anyhow::Ok((cache.export(args.a).await?, cache.export(args.b).await?)) };
    let both = both.await;
    cache.close().await;
    let (a, b) = both?;
    for export in [&a, &b] {
        if export.head.kind != Kind::Cache {
            bail!(
                "export {} is an entry of GitHub's cache, which has no steps",
                export.head.id
            );
        }
    }
    let heads = [a.head.clone(), b.head.clone()];
    let difference = Difference::of(a, b)?;
    let shown = Shown::new(&heads, &difference);
    if args.json {
        print_json(&shown)?;
    } else {
        print_text(&shown, args.limit)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    a: &'a ExportHead,
    b: &'a ExportHead,
    counts: Counts,
    parts: Vec<ShownPart<'a>>,
    follow: Follow<'a>,
}

#[derive(Debug, Serialize)]
struct Counts {
    shared: usize,
    only_a: usize,
    only_b: usize,
}

#[derive(Debug, Serialize)]
struct Follow<'a> {
    a: Vec<ShownStep<'a>>,
    b: Vec<ShownStep<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct ShownStep<'a> {
    record: usize,
    digest: &'a str,
    step: Option<&'a StepName>,
}

#[derive(Debug, Serialize)]
struct ShownPart<'a> {
    #[serde(flatten)]
    step: ShownStep<'a>,
    only_in: ExportId,
    reason: &'static str,
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    inputs: &'a [usize],
    siblings: Vec<ShownStep<'a>>,
}

impl<'a> Shown<'a> {
    fn new([a, b]: &'a [ExportHead; 2], difference: &'a Difference) -> Self {
        let comparison = &difference.comparison;
        let step = |at: usize| {
            let record = &difference.survey.records[at];
            ShownStep {
                record: at,
                digest: record.digest.as_str(),
                step: difference.names.of(record),
            }
        };
        let parts: Vec<ShownPart<'a>> = (difference.parts.iter())
            .map(|part| {
                let own = step(part.record);
                let mut siblings: Vec<_> = part.siblings.iter().copied().map(step).collect();
                // That of the same place in the Dockerfile, if there is one.
                siblings.sort_by_key(|sibling| place(sibling) != place(&own));
                let (reason, inputs) = reason(part);
                ShownPart {
                    step: own,
                    only_in: if part.of_first { a.id } else { b.id },
                    reason,
                    inputs,
                    siblings,
                }
            })
            .collect();
        let parting: BTreeSet<usize> = parts.iter().map(|part| part.step.record).collect();
        let follow = |only: &[usize]| {
            let steps = only.iter().copied();
            let steps = steps
                .filter(|at| !parting.contains(at) && !difference.survey.records[*at].is_content());
            steps.map(step).collect::<Vec<_>>()
        };
        Self {
            a,
            b,
            counts: Counts {
                shared: comparison.shared.len(),
                only_a: comparison.first.len(),
                only_b: comparison.second.len(),
            },
            follow: Follow {
                a: follow(&comparison.first),
                b: follow(&comparison.second),
            },
            parts,
        }
    }
}

/// `[build 3/5]`, where a step's name begins so.
fn place<'a>(step: &ShownStep<'a>) -> Option<&'a str> {
    let name = step.step?.as_str();
    let (place, _) = name.strip_prefix('[')?.split_once(']')?;
    Some(place)
}

fn reason(part: &Part) -> (&'static str, &[usize]) {
    match &part.reason {
        Reason::Contents(inputs) => ("contents", inputs),
        Reason::Command => ("command", &[]),
        Reason::Source => ("source", &[]),
        Reason::Alone => ("alone", &[]),
    }
}

fn print_text(shown: &Shown<'_>, limit: usize) -> anyhow::Result<()> {
    let now = Timestamp::now();
    for (letter, head) in [("A", shown.a), ("B", shown.b)] {
        print(format_args!(
            "{letter}  export {}, {} by {}: {}",
            head.id,
            age(head.time, now),
            head.builder,
            head.place
        ))?;
    }
    let Counts {
        shared,
        only_a,
        only_b,
    } = shown.counts;
    print(format_args!(
        "{shared} records are in both, {only_a} only in A, {only_b} only in B\n"
    ))?;
    let lines = parts(shown);
    if lines.is_empty() {
        print(nowhere(shared, only_a + only_b))?;
        return Ok(());
    }
    print("They part at")?;
    bounded(&lines, limit)?;
    for (letter, follow) in [("A", &shown.follow.a), ("B", &shown.follow.b)] {
        if follow.is_empty() {
            continue;
        }
        print(format_args!("\nOn top of that, only in {letter}"))?;
        let lines: Vec<String> = follow
            .iter()
            .map(|step| format!("  {}", name(step)))
            .collect();
        bounded(&lines, limit)?;
    }
    Ok(())
}

/// Why there is no step to show, of so many records that both have, and so many
/// that one has.
fn nowhere(shared: usize, only: usize) -> &'static str {
    match (shared, only) {
        (0, 0) => "neither has a record",
        (0, _) => "they share nothing: no step, and no base, of one is in the other",
        _ => "they part nowhere",
    }
}

/// Where they part, each pair once.
fn parts(shown: &Shown<'_>) -> Vec<String> {
    let number: HashMap<usize, usize> = (shown.parts.iter().enumerate())
        .map(|(number, part)| (part.step.record, number))
        .collect();
    let mut told = vec![false; shown.parts.len()];
    let mut lines = Vec::new();
    for (at, part) in shown.parts.iter().enumerate() {
        if told[at] {
            continue;
        }
        let of_a = part.only_in == shown.a.id;
        let free = part.siblings.iter().find(|sibling| {
            let number = number.get(&sibling.record);
            number.is_some_and(|number| !told[*number])
        });
        let sibling = free.or(part.siblings.first());
        if let Some(number) = sibling.and_then(|sibling| number.get(&sibling.record)) {
            told[*number] = true;
        }
        let (own, other) = if of_a { ("A", "B") } else { ("B", "A") };
        let mut line = format!("  {own}  {}", name(&part.step));
        if let Some(sibling) = sibling {
            line.push_str(&format!("\n  {other}  {}", name(sibling)));
        }
        line.push_str(&format!("\n       {}", because(part, own)));
        lines.push(line);
    }
    lines
}

fn because(part: &ShownPart<'_>, own: &str) -> String {
    match part.reason {
        "contents" => "the same command; the files that it copies or mounts differ".to_owned(),
        "command" => "on the same input, but another command".to_owned(),
        "source" => "another base image or source".to_owned(),
        _ => format!("only {own} has a step there"),
    }
}

fn name(step: &ShownStep<'_>) -> String {
    step.step
        .map_or_else(|| step.digest.to_owned(), StepName::to_string)
}

fn bounded(lines: &[String], limit: usize) -> anyhow::Result<()> {
    let shown = if limit == 0 { lines.len() } else { limit };
    for line in lines.iter().take(shown) {
        print(line)?;
    }
    if let Some(more) = lines.len().checked_sub(shown).filter(|more| *more > 0) {
        print(format_args!("  and {more} more; --limit 0 for all"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_nothing_does_not_part_nowhere() {
        assert_eq!(nowhere(3, 0), "they part nowhere");
        assert_eq!(nowhere(3, 1), "they part nowhere");
        assert!(nowhere(0, 2).starts_with("they share nothing"));
        assert_eq!(nowhere(0, 0), "neither has a record");
    }
}
