//! What it costs a large build context to pass through a sidecar.

use std::fs::{File, FileTimes};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Scale;
use crate::harness::{Build, Lab};
use crate::report::timed;
use crate::section::Section;
use crate::turns::turns;

const STRAIGHT: &str = "straight";
const THROUGH: &str = "through the sidecar";
const TIME: &str = "wall time";

/// One file of 400 MB, sent both ways.
pub async fn measure(scale: Scale) -> Section {
    let bytes: u64 = if scale.quick { 4_000_000 } else { 400_000_000 };
    let mut section = Section::new(
        "Build context",
        "A build context of one file of 400 MB, straight to a buildkitd and through a sidecar \
         to the same one. The file's time of change is set anew before each build, so that \
         BuildKit asks for all of it; its content is the same, so that the one step that \
         copies it is cached.",
        &[TIME],
        &[STRAIGHT, THROUGH],
    );
    let lab = Lab::new();
    let context = lab.folder("context");
    let file = context.join("large.bin");
    fill(&file, bytes);
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY large.bin /\n",
    )
    .unwrap();
    let build = Build::of(&context);
    let runner = lab.runner("one", &lab.path("data")).await;
    let ways = [
        (STRAIGHT, lab.buildctl(&runner.buildkitd.address)),
        (THROUGH, lab.buildctl(runner.address())),
    ];
    timed(&ways[0].1, &build).await.all_ran(1).sent(bytes);
    let mut changed = SystemTime::now();
    for (way, client) in turns(scale, &ways.each_ref()) {
        changed += Duration::from_secs(1);
        let times = FileTimes::new().set_modified(changed);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_times(times)
            .unwrap();
        let timed = timed(client, &build).await.all_cached(1).sent(bytes);
        section.push(way, TIME, timed.took);
    }
    let ratio = section.median(THROUGH, TIME) / section.median(STRAIGHT, TIME);
    section.goal("through the sidecar, of straight", ratio, 1.25);
    section
}

/// Bytes that do not compress.
fn fill(path: &Path, bytes: u64) {
    let mut random = StdRng::seed_from_u64(1);
    let mut block = vec![0; 1 << 20];
    random.fill_bytes(&mut block);
    let mut file = File::create(path).unwrap();
    let mut left = usize::try_from(bytes).unwrap();
    while left > 0 {
        let some = left.min(block.len());
        file.write_all(&block[..some]).unwrap();
        left -= some;
    }
}
