//! What it costs to export: the first time, when every layer is compressed and
//! sent, and again, when all of it is already there.

use crate::Scale;
use crate::cold::Cold;
use crate::harness::Lab;
use crate::layers::{self, Layers, STEPS};
use crate::peers::{Kind, Peers};
use crate::report::timed;
use crate::section::Section;
use crate::turns::turns;

const KINDS: [Kind; 6] = [
    Kind::Local,
    Kind::Registry,
    Kind::S3,
    Kind::Gha,
    Kind::Pull,
    Kind::Hub,
];
const TIME: &str = "wall time";
const LOCAL: &str = Kind::Local.name();
const REGISTRY: &str = Kind::Registry.name();
const OURS: &str = Kind::Pull.name();

/// The first export of a build that has just run.
pub async fn first(scale: Scale) -> Section {
    let about = format!(
        "{}. A buildkitd builds it from nothing; what is timed is the same build once more, \
         all of it cached, with `mode=max` and no output: BuildKit compresses every layer, and \
         sends it. Each export goes to an empty place, from a buildkitd of its own; all are on \
         one disk.",
        layers::ABOUT
    );
    let rows = KINDS.map(Kind::name);
    let mut section = Section::new("First export", about, &[TIME], &rows);
    for kind in turns(scale, &KINDS) {
        let lab = Lab::new();
        let layers = Layers::new(&lab, scale);
        let peers = Peers::start(&lab).await;
        let cold = Cold::start(kind, peers.store(kind)).await;
        timed(&cold.client, &layers.build()).await.all_ran(STEPS);
        let export = peers.export(kind, "first", layers.build());
        let timed = timed(&cold.client, &export).await;
        section.push(
            kind.name(),
            TIME,
            timed.all_cached(STEPS).exported(kind).took,
        );
    }
    let ratio = section.median(OURS, TIME) / section.median(LOCAL, TIME);
    section.goal("of `local`", ratio, 1.05);
    section
}

/// The same export again and again, from the buildkitd that made the first one.
pub async fn repeated(scale: Scale) -> Section {
    let about = format!(
        "{}. The build is cached, and all that it exports with `mode=max` has been exported to \
         the same place before; six builds a round.",
        layers::ABOUT
    );
    let kinds = [
        Kind::None,
        Kind::Local,
        Kind::Registry,
        Kind::S3,
        Kind::Pull,
    ];
    let mut section = Section::new("Repeated export", about, &[TIME], &kinds.map(Kind::name));
    for _ in 0..scale.rounds {
        again(scale, &kinds, &mut section).await;
    }
    let above = |name| section.median(name, TIME) - section.median(Kind::None.name(), TIME);
    let ratio = above(OURS) / above(REGISTRY);
    section.goal(
        "seconds above a build with no export, of `registry`'s",
        ratio,
        0.5,
    );
    section
}

async fn again(scale: Scale, kinds: &[Kind], section: &mut Section) {
    let lab = Lab::new();
    let layers = Layers::new(&lab, scale);
    let peers = Peers::start(&lab).await;
    let runner = lab.runner("warm", &peers.data).await;
    let straight = lab.buildctl(&runner.buildkitd.address);
    let through = lab.buildctl(runner.address());
    let mut exports = Vec::new();
    for kind in kinds {
        let client = if kind.is_ours() { &through } else { &straight };
        exports.push((*kind, client, peers.export(*kind, "again", layers.build())));
    }
    timed(&straight, &layers.build()).await.all_ran(STEPS);
    for (kind, client, export) in &exports {
        timed(client, export).await.exported(*kind);
    }
    let exports: Vec<_> = exports.iter().collect();
    for (kind, client, export) in turns(Scale { rounds: 1, ..scale }.many(), &exports) {
        let timed = timed(client, export).await.all_cached(STEPS);
        section.push(kind.name(), TIME, timed.exported(*kind).took);
    }
}
