//! `layerd cache show`: one export from the inside.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::display::{age, print, print_json, table};
use super::seen::Seen;
use crate::catalog::{Export, ExportHead, ExportId, Kind, Layer};
use crate::digest::{Digest, RecordDigest};
use crate::graph::{Config, Link, Record, blobs};
use crate::step::{Step, StepName};
use crate::units::{ByteSize, counted};

/// Show one export: its layers and its cache records.
///
/// A record is one step of a build without its inputs: which records it needs
/// (its links) and which layers it gave (its results). Layers are listed as in
/// the export's manifest; a layer that stands on two others is listed twice.
/// Steps have the names that the builds which ran them gave them, as far as
/// those are known. Of an entry of GitHub's cache there are its key and its
/// blocks, as layers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache show 17
  layerd cache show 17 --json | jq '.records[].digest'")]
pub(super) struct ShowArgs {
    /// The export's number, as in `layerd cache ls`.
    #[arg(value_name = "ID")]
    id: ExportId,

    #[command(flatten)]
    seen: Seen,

    /// Print a JSON object: times in UTC, sizes in bytes.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let cache = args.seen.open().await?;
    let export = cache.export(args.id).await;
    cache.close().await;
    let export = export?;
    let config = match export.head.kind {
        Kind::Cache => Config::parse(&export.config)?,
        Kind::Entry => Config {
            layers: Vec::new(),
            records: Vec::new(),
        },
    };
    if args.json {
        print_json(&Shown::new(&export, &config))?;
    } else {
        print_tables(&export, &config)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The export as JSON: its head, and what it holds.
#[derive(Serialize)]
struct Shown<'a> {
    export: &'a ExportHead,
    config: Digest,
    layers: &'a [Layer],
    records: Vec<ShownRecord<'a>>,
}

#[derive(Serialize)]
struct ShownRecord<'a> {
    digest: &'a str,
    inputs: Vec<Vec<ShownLink<'a>>>,
    results: Vec<ShownResult<'a>>,
}

#[derive(Serialize)]
struct ShownLink<'a> {
    /// The index of the record that is linked to.
    record: usize,
    #[serde(skip_serializing_if = "str::is_empty")]
    selector: &'a str,
}

/// A result as the topmost blob of its layers, and the step: when it ran, what
/// its build called it, and how long it took there.
#[derive(Serialize)]
struct ShownResult<'a> {
    layer: Option<Digest>,
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a StepName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

/// The steps of an export, by what they made.
struct Steps<'a>(HashMap<(&'a RecordDigest, Timestamp), &'a Step>);

impl<'a> Steps<'a> {
    fn new(steps: &'a [Step]) -> Self {
        let made = |step: &'a Step| ((&step.record, step.created_at), step);
        Self(steps.iter().map(made).collect())
    }

    fn of(&self, record: &RecordDigest, created_at: Option<Timestamp>) -> Option<&'a Step> {
        self.0.get(&(record, created_at?)).copied()
    }
}

impl<'a> Shown<'a> {
    fn new(export: &'a Export, config: &'a Config) -> Self {
        let steps = Steps::new(&export.steps);
        Self {
            export: &export.head,
            config: export.config_digest,
            layers: &export.layers,
            records: config
                .records
                .iter()
                .map(|record| ShownRecord::new(record, config, &steps))
                .collect(),
        }
    }
}

impl<'a> ShownRecord<'a> {
    fn new(record: &'a Record, config: &Config, steps: &Steps<'a>) -> Self {
        let link = |link: &'a Link| ShownLink {
            record: link.record,
            selector: &link.selector,
        };
        Self {
            digest: record.digest.as_str(),
            inputs: record
                .inputs
                .iter()
                .map(|links| links.iter().map(link).collect())
                .collect(),
            results: results(record, config, steps),
        }
    }
}

fn results<'a>(record: &Record, config: &Config, steps: &Steps<'a>) -> Vec<ShownResult<'a>> {
    let shown = |(layer, created_at): (Option<usize>, _)| {
        let step = steps.of(&record.digest, created_at);
        ShownResult {
            layer: layer.map(|layer| config.layers[layer].blob),
            created_at,
            step: step.map(|step| &step.name),
            duration_ms: step.and_then(|step| step.duration.as_millis().try_into().ok()),
        }
    };
    record.made().map(shown).collect()
}

fn print_tables(export: &Export, config: &Config) -> anyhow::Result<()> {
    let head = &export.head;
    let now = Timestamp::now();
    print(format_args!("export   {}", head.id))?;
    print(format_args!(
        "written  {} ({}) by {}",
        head.time,
        age(head.time, now),
        head.builder
    ))?;
    print(format_args!(
        "project  {}\nref      {}\nscope    {}",
        head.place.project, head.place.git_ref, head.place.scope
    ))?;
    if let Some(entry) = &head.entry {
        print(format_args!(
            "key      {}\nversion  {}",
            entry.key, entry.version
        ))?;
    }
    print(format_args!(
        "holds    {}, {}, {}\n",
        counted(head.records, "record"),
        counted(head.layers, "layer"),
        ByteSize(head.bytes)
    ))?;

    let made_by: HashMap<_, _> = blobs(config, &export.steps).into_iter().collect();
    let mut layers = table(["LAYER", "SIZE", "MEDIA TYPE", "AGE", "STEP"], &[1]);
    for layer in &export.layers {
        let made = layer
            .created_at
            .map_or_else(String::new, |time| age(time, now).to_string());
        layers.add_row([
            layer.digest.to_string(),
            ByteSize(layer.size).to_string(),
            layer.media_type.clone(),
            made,
            made_by
                .get(&layer.digest)
                .map_or_else(String::new, |names| {
                    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                    names.join(", ")
                }),
        ]);
    }
    print(format_args!("{}\n", layers.trim_fmt()))?;
    if head.kind == Kind::Entry {
        return Ok(());
    }

    let steps = Steps::new(&export.steps);
    let mut records = table(
        [
            "RECORD", "DIGEST", "INPUTS", "LINKS TO", "RESULTS", "TOOK", "STEP",
        ],
        &[0, 2, 4, 5],
    );
    for (at, record) in config.records.iter().enumerate() {
        let step = steps.of(&record.digest, record.created_at());
        records.add_row([
            at.to_string(),
            record.digest.to_string(),
            record.inputs.len().to_string(),
            links(record),
            record.made().count().to_string(),
            step.map_or_else(String::new, |step| seconds(step.duration)),
            step.map_or_else(String::new, |step| step.name.to_string()),
        ]);
    }
    print(records.trim_fmt())?;
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Inputs apart by commas, the alternatives of one by bars: `3|4, 7`.
fn links(record: &Record) -> String {
    let alternatives = |links: &Vec<Link>| {
        links
            .iter()
            .map(|link| link.record.to_string())
            .collect::<Vec<_>>()
            .join("|")
    };
    record
        .inputs
        .iter()
        .map(alternatives)
        .collect::<Vec<_>>()
        .join(", ")
}
