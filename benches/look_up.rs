//! What a look-up costs: 1,000 exports with 100,000 records in all, in a data
//! directory, from the call to the config that BuildKit gets.
//!
//! Cold is a process that has seen none of them; warm is the next build, which
//! asks the same of a log that has not changed.

use std::fs::File;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use layerd::cache::{Cache as _, Form, Limits, LocalCache, LookedUp, Want};
use layerd::catalog::{Catalog as _, Layer, NewExport, SqliteCatalog};
use layerd::place::Place;

#[path = "../src/graph/union/generate.rs"]
mod generate;

use generate::{Project, World};

const EXPORTS: i64 = 1_000;

/// About 100 records each.
const PROJECT: Project = Project {
    stages: 5,
    steps: 10,
    branches: 200,
    changed: 8,
    repeated: 10,
};

/// Bytes of every layer.
const SIZE: u64 = 1_000;

const LIMITS: Limits = Limits {
    records: 10_000,
    form: Form::Whole,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A data directory with all exports. Nothing is read of a blob before it is
/// pulled, so that files of the right size will do.
async fn fill(data: &Path) -> Result<Place> {
    let cache = LocalCache::new(data);
    cache.writable(&Place::default()).await?;
    let catalog = SqliteCatalog::open(data).await?;
    let mut world = World::new(1, PROJECT);
    let mut place = Place {
        project: "bench".parse()?,
        git_ref: "main".parse()?,
        scope: "buildkit".parse()?,
    };
    for number in 0..EXPORTS {
        let export = world.export();
        let mut layers = Vec::new();
        for layer in export.layers {
            let digest: layerd::digest::Digest = layer.digest.parse()?;
            let file = data.join("blobs/sha256").join(digest.hex());
            File::create(file)?.set_len(SIZE)?;
            layers.push(Layer {
                digest,
                size: SIZE,
                media_type: layer.media_type.to_owned(),
                diff_id: Some(layer.diff_id.parse()?),
                created_at: layer.created_at.parse().ok(),
                annotations: Default::default(),
            });
        }
        place.git_ref = format!("branch-{}", number % 20).parse()?;
        let append = catalog.append(NewExport {
            place: place.clone(),
            time: Timestamp::from_second(1_800_000_000 + number)?,
            builder: format!("runner-{}", number % 50),
            records: export.config.matches("\"digest\"").count() as u64,
            config: export.config.into(),
            layers,
            steps: Vec::new(),
            began: None,
        });
        append.await?;
    }
    catalog.close().await;
    Ok(place)
}

fn look_up(criterion: &mut Criterion) {
    let Ok((runtime, data)) =
        tokio::runtime::Runtime::new().and_then(|runtime| Ok((runtime, tempfile::tempdir()?)))
    else {
        return println!("no runtime, or no temporary folder");
    };
    let place = match runtime.block_on(fill(data.path())) {
        Ok(place) => place,
        Err(error) => return println!("the data directory could not be filled: {error}"),
    };
    let wants = [Want::all_of(place)];
    let ask = |cache: &LocalCache| runtime.block_on(cache.look_up(&wants, &LIMITS));
    let warm = LocalCache::new(data.path());
    match ask(&warm) {
        Ok(LookedUp::Import(import)) => println!(
            "{} records of {} exports are served, {} are left out",
            import.records, import.exports, import.left_out.cut
        ),
        other => return println!("nothing is served: {other:?}"),
    }
    let mut group = criterion.benchmark_group("look up");
    group.sample_size(10);
    group.bench_function("cold", |bencher| {
        bencher.iter_batched_ref(
            || LocalCache::new(data.path()),
            |cache| ask(cache),
            BatchSize::PerIteration,
        )
    });
    group.bench_function("warm", |bencher| bencher.iter(|| ask(&warm)));
    group.finish();
}

criterion_group!(benches, look_up);
criterion_main!(benches);
