//! What it costs a build to take in a union that many refs have filled.

use layerd::cache::Documents;

use crate::Scale;
use crate::cold::{Cold, Store};
use crate::harness::{Lab, neighbours};
use crate::layers::{self, Layers, STEPS};
use crate::peers::Kind;
use crate::report::timed;
use crate::samples::Unit;
use crate::section::Section;
use crate::turns::turns;

const OWN: &str = "its own export alone";
const UNION: &str = "the union";
const AT_ONCE: &str = "the union, of a sidecar that has just started";
const TIME: &str = "no output";
const RECORDS: &str = "records";
const CONFIG: &str = "size of the config";
const MEMORY: &str = "buildkitd's memory at most";
/// `--max-graph-records`, as it is unless given.
const BUDGET: u64 = 10_000;

/// An import of the build's own export, beside one that the budget cuts.
pub async fn measure(scale: Scale) -> Section {
    let lab = Lab::new();
    let layers = Layers::new(&lab, scale);
    let data = lab.folder("data");
    write(&lab, &layers).await;
    let own = neighbours::found(&data, BUDGET).await;
    let all = if scale.quick { 2_000 } else { 30_000 };
    neighbours::publish(&data, all, usize::MAX).await;
    let whole = neighbours::found(&data, u64::MAX).await;
    let cut = neighbours::found(&data, BUDGET).await;
    assert!(cut.left_out.cut > 0 || scale.quick, "it all fits");
    let about = format!(
        "{}, exported with `mode=max` on one ref. {} other exports of made-up builds, shaped like \
         those of a Dockerfile of 10 stages with 20 layers each, stand on refs of their own: a \
         union of {} records, of which the default budget, `--max-graph-records 10000`, leaves {} \
         out. A cold daemon with a cold sidecar imports, by the pull carrier, what its own ref has \
         (`fallback=` narrows it to that), or the union; every step comes from the cache. A sidecar \
         unites what is in its store when it starts; the last row has the build begin before that \
         is done.",
        layers::ABOUT,
        whole.exports - 1,
        whole.records,
        cut.left_out.cut,
    );
    let columns = [TIME, RECORDS, CONFIG, MEMORY];
    let mut section = Section::new("Import of a union", about, &columns, &[OWN, UNION, AT_ONCE]);
    for row in turns(scale, &[OWN, UNION, AT_ONCE]) {
        let (entry, import) = match row {
            OWN => ("type=gha-compatible,fallback=refs/heads/main", &own),
            _ => ("type=gha-compatible", &cut),
        };
        let cold = Cold::start(Kind::Pull, Store::Shared(&data)).await;
        let cold = match row {
            AT_ONCE => cold,
            _ => cold.united().await,
        };
        let timed = timed(&cold.client, &layers.build().cache_from(entry)).await;
        let records = format!(": {} records", import.records);
        let timed = timed.all_cached(STEPS).told(&records);
        let Documents::Whole(config) = &import.documents else {
            panic!("it was asked for whole")
        };
        section.push(row, TIME, timed.took);
        section.figure(row, RECORDS, Unit::Count, import.records as f64);
        section.figure(row, CONFIG, Unit::Megabytes, config.len() as f64 / 1e6);
        section.figure(
            row,
            MEMORY,
            Unit::Megabytes,
            cold.daemon_memory() as f64 / 1e6,
        );
    }
    let above = section.median(UNION, TIME) - section.median(OWN, TIME);
    section.goal(
        "seconds above an import of the own export alone",
        above,
        0.5,
    );
    section
}

/// Builds and exports to `main`.
async fn write(lab: &Lab, layers: &Layers) {
    let writer = lab.runner("writer", &lab.path("data")).await;
    let client = lab.buildctl(writer.address());
    let build = layers.build().cache_to("type=gha-compatible,mode=max");
    let timed = timed(&client, &build).await;
    timed.all_ran(STEPS).exported(Kind::Pull);
}
