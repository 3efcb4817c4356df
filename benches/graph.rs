//! What a union costs: 1,000 exports with 100,000 records in all.
//!
//! Beside the times, `cargo bench --bench graph` says how much memory the
//! union takes, and how much of it is served.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use layerd::graph::{Budget, Descriptor, ExportSource, Parsed, Served, Serving, Union};

#[path = "../src/graph/union/generate.rs"]
mod generate;

use generate::{Project, World};

const EXPORTS: usize = 1_000;

/// About 100 records each.
const PROJECT: Project = Project {
    stages: 5,
    steps: 10,
    branches: 200,
    changed: 8,
    repeated: 10,
};

struct Stored {
    config: String,
    layers: Vec<Descriptor>,
}

fn exports(count: usize) -> Vec<Stored> {
    let mut world = World::new(1, PROJECT);
    let describe = |layer: generate::Layer| {
        let annotations = [
            ("containerd.io/uncompressed".to_owned(), layer.diff_id),
            ("buildkit/createdat".to_owned(), layer.created_at),
        ];
        Some(Descriptor {
            media_type: layer.media_type.to_owned(),
            digest: layer.digest.parse().ok()?,
            size: 1_000,
            annotations: annotations.into(),
        })
    };
    let store = |export: generate::Export| Stored {
        config: export.config,
        layers: export.layers.into_iter().filter_map(describe).collect(),
    };
    (0..count).map(|_| store(world.export())).collect()
}

/// Takes in what is stored, its JSON included; returns how many records that
/// was.
fn add(union: &mut Union, id: usize, stored: &Stored) -> usize {
    let Ok(config) = Parsed::read(stored.config.as_bytes()) else {
        return 0;
    };
    union.add(&ExportSource {
        id: id as u64,
        time: Timestamp::from_second(1_800_000_000 + id as i64).ok(),
        config: &config,
        layers: &stored.layers,
    });
    config.records()
}

fn union_of(all: &[Stored]) -> (Union, usize) {
    let mut union = Union::default();
    let counts = all.iter().enumerate();
    let records = counts.map(|(id, stored)| add(&mut union, id, stored)).sum();
    (union, records)
}

fn serve(union: &Union, budget: Budget) -> Served {
    union.serve(&Serving {
        budget,
        ..Serving::of(&|_| true)
    })
}

/// The memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn union(criterion: &mut Criterion) {
    let all = exports(EXPORTS + 1);
    let (all, next) = all.split_at(EXPORTS);
    let (union, records) = union_of(all);
    let before = resident();
    let copy = union.clone();
    let bytes = resident() - before;
    drop(copy);
    let served = serve(&union, Budget::default());
    println!(
        "{records} records of {EXPORTS} exports are {} records; {} bytes of memory for each, \
         {} for each that was taken in; {} served, {} with results, in {} bytes",
        union.records(),
        bytes / union.records(),
        bytes / records,
        served.records,
        served.results,
        served.json.len(),
    );
    let mut group = criterion.benchmark_group("union");
    group.sample_size(10);
    group.bench_function("cold: take in all and serve", |bencher| {
        bencher.iter(|| serve(&union_of(black_box(all)).0, Budget::default()))
    });
    group.bench_function("take in all", |bencher| {
        bencher.iter(|| union_of(black_box(all)))
    });
    group.bench_function("serve all", |bencher| {
        bencher.iter(|| serve(black_box(&union), Budget::default()))
    });
    let records = Some(10_000);
    group.bench_function("serve 10,000", |bencher| {
        bencher.iter(|| {
            serve(
                black_box(&union),
                Budget {
                    records,
                    ..Budget::default()
                },
            )
        })
    });
    group.bench_function("take in one more", |bencher| {
        bencher.iter_batched_ref(
            || union.clone(),
            |union| add(union, EXPORTS, &next[0]),
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, union);
criterion_main!(benches);
