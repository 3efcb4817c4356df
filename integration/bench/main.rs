//! What layerd costs and saves, against BuildKit without it and against
//! BuildKit's own caches, on this machine: real daemons, stock buildctl, wall
//! time of the client. Started by `integration/bench.sh`.
//!
//! One file a measurement; each gives a [`Section`](section::Section), and
//! [`page`] puts those into `docs/benchmarks.md`, leaving the others there as
//! they are. A measured build that did not do what it is measured for ends the
//! program. Within a measurement the kinds take turns, so that whatever else
//! the machine does hits all alike.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark ends by panicking"
)]

#[path = ".."]
mod integration {
    #[allow(
        dead_code,
        unused_imports,
        reason = "the tests use more of it than this does"
    )]
    pub mod harness;
}

mod branches;
mod cold;
mod context;
mod export;
mod graph;
mod hub;
mod import;
mod layers;
mod machine;
mod page;
mod passthrough;
mod peers;
mod rates;
mod report;
mod s3;
mod samples;
mod section;
mod turns;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use self::integration::harness;

/// What is to be measured, and how thoroughly.
#[derive(Parser)]
struct Options {
    /// What to measure [all, unless given]
    measurements: Vec<Measurement>,
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round of small builds, to try the program: its figures mean nothing,
    /// and are printed only
    #[arg(long)]
    quick: bool,
    /// The page whose sections are replaced
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md"))]
    page: PathBuf,
    /// What cargo calls every benchmark with.
    #[arg(long, hide = true)]
    bench: bool,
    /// What a process of its own is told that this one starts.
    #[arg(long, hide = true)]
    stream: Option<Option<PathBuf>>,
}

/// One section of the page each.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Measurement {
    PassThrough,
    Context,
    FirstExport,
    RepeatedExport,
    ColdImport,
    HitRate,
    GraphImport,
    Hub,
    HubLookUp,
}

/// How large a run is.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    quick: bool,
}

impl Scale {
    /// For builds that take a tenth of a second: more of them.
    fn many(self) -> Self {
        Self {
            rounds: if self.quick { 2 } else { self.rounds * 6 },
            ..self
        }
    }
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    if let Some(folder) = options.stream {
        return hub::stream(folder).await;
    }
    let scale = Scale {
        rounds: if options.quick { 1 } else { options.rounds },
        quick: options.quick,
    };
    assert!(scale.rounds > 0, "at least one round");
    for measurement in Measurement::value_variants() {
        if !options.measurements.is_empty() && !options.measurements.contains(measurement) {
            continue;
        }
        let load = machine::load();
        let section = match measurement {
            Measurement::PassThrough => passthrough::measure(scale).await,
            Measurement::Context => context::measure(scale).await,
            Measurement::FirstExport => export::first(scale).await,
            Measurement::RepeatedExport => export::repeated(scale).await,
            Measurement::ColdImport => import::measure(scale).await,
            Measurement::HitRate => rates::measure(scale).await,
            Measurement::GraphImport => graph::measure(scale).await,
            Measurement::Hub => hub::measure(scale).await,
            Measurement::HubLookUp => hub::look_up(scale).await,
        };
        let text = section.text(&machine::stamp(scale.rounds, &load));
        println!("{text}\n");
        // At once: should a later measurement fail, this one stands.
        if !options.quick {
            page::put(&options.page, &section.heading(), &text);
        }
    }
}
