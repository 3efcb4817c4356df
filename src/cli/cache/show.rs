//! `layerd cache show`: one export from the inside.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::Store;
use super::display::{age, print, print_json, table};
use crate::catalog::{Catalog as _, Export, ExportHead, ExportId, Layer};
use crate::digest::Digest;
use crate::graph::{Config, Link, Record};
use crate::units::ByteSize;

/// Show one export: its layers and its cache records.
///
/// A record is one step of a build without its inputs: which records it needs
/// (its links) and which layers it gave (its results). Layers are listed as in
/// the export's manifest; a layer that stands on two others is listed twice.
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
    store: Store,

    /// Print a JSON object: times in UTC, sizes in bytes.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let catalog = args.store.catalog().await?;
    let Some(export) = catalog.get(args.id).await? else {
        bail!(
            "there is no export {} in {}; see layerd cache ls",
            args.id,
            args.store.data_dir.display()
        );
    };
    catalog.close().await;
    let config = Config::parse(&export.config)?;
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
    results: Vec<ShownResult>,
}

#[derive(Serialize)]
struct ShownLink<'a> {
    /// The index of the record that is linked to.
    record: usize,
    #[serde(skip_serializing_if = "str::is_empty")]
    selector: &'a str,
}

/// A result as the topmost blob of its layers, and when the step ran.
#[derive(Serialize)]
struct ShownResult {
    layer: Option<Digest>,
    created_at: Option<Timestamp>,
}

impl<'a> Shown<'a> {
    fn new(export: &'a Export, config: &'a Config) -> Self {
        Self {
            export: &export.head,
            config: export.config_digest,
            layers: &export.layers,
            records: config
                .records
                .iter()
                .map(|record| ShownRecord::new(record, config))
                .collect(),
        }
    }
}

impl<'a> ShownRecord<'a> {
    fn new(record: &'a Record, config: &Config) -> Self {
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
            results: results(record, config),
        }
    }
}

fn results(record: &Record, config: &Config) -> Vec<ShownResult> {
    let single = record
        .results
        .iter()
        .map(|(layer, created_at)| (Some(*layer), *created_at));
    let chains = record
        .chains
        .iter()
        .map(|chain| (chain.layers.last().copied(), chain.created_at));
    let shown = |(layer, created_at): (Option<usize>, _)| ShownResult {
        layer: layer.map(|layer| config.layers[layer].blob),
        created_at,
    };
    single.chain(chains).map(shown).collect()
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
    print(format_args!(
        "holds    {} records, {} layers, {}\n",
        head.records,
        head.layers,
        ByteSize(head.bytes)
    ))?;

    let mut layers = table(["LAYER", "SIZE", "MEDIA TYPE", "AGE"], &[1]);
    for layer in &export.layers {
        let made = layer
            .created_at
            .map_or_else(String::new, |time| age(time, now).to_string());
        layers.add_row([
            layer.digest.to_string(),
            ByteSize(layer.size).to_string(),
            layer.media_type.clone(),
            made,
        ]);
    }
    print(format_args!("{}\n", layers.trim_fmt()))?;

    let mut records = table(
        ["RECORD", "DIGEST", "INPUTS", "LINKS TO", "RESULTS"],
        &[0, 2, 4],
    );
    for (at, record) in config.records.iter().enumerate() {
        records.add_row([
            at.to_string(),
            record.digest.to_string(),
            record.inputs.len().to_string(),
            links(record),
            results(record, config).len().to_string(),
        ]);
    }
    print(records.trim_fmt())?;
    Ok(())
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
