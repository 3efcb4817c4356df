//! What it costs to have a sidecar in between, for builds that want nothing of
//! it: no step runs, so all of the time is calls.

use crate::Scale;
use crate::harness::Lab;
use crate::layers::{Layers, STEPS};
use crate::report::timed;
use crate::section::Section;
use crate::turns::turns;

const STRAIGHT: &str = "straight";
const THROUGH: &str = "through the sidecar";
const BUILDCTL: &str = "buildctl";
const BUILDX: &str = "buildx";

/// A fully cached build, both ways, with each client.
pub async fn measure(scale: Scale) -> Section {
    let mut section = Section::new(
        "Pass-through",
        "A build of 20 steps with no cache entry and no output, straight to a buildkitd \
         that has built it before, and through a sidecar to the same one; six builds a round.",
        &[BUILDCTL, BUILDX],
        &[STRAIGHT, THROUGH],
    );
    let lab = Lab::new();
    let build = Layers::new(&lab, scale).build();
    let runner = lab.runner("warm", &lab.path("data")).await;
    let straight = runner.buildkitd.address.as_str();
    let through = runner.address();
    timed(&lab.buildctl(straight), &build).await.all_ran(STEPS);
    let ways = [
        (BUILDCTL, STRAIGHT, lab.buildctl(straight)),
        (BUILDCTL, THROUGH, lab.buildctl(through)),
        (BUILDX, STRAIGHT, lab.buildx(straight).await),
        (BUILDX, THROUGH, lab.buildx(through).await),
    ];
    for (client, way, by) in turns(scale.many(), &ways.each_ref()) {
        let took = timed(by, &build).await.all_cached(STEPS).took;
        section.push(way, client, took);
    }
    for (client, what) in [
        (BUILDCTL, "through the sidecar, of straight: buildctl"),
        (BUILDX, "through the sidecar, of straight: buildx"),
    ] {
        let ratio = section.median(THROUGH, client) / section.median(STRAIGHT, client);
        section.goal(what, ratio, 1.05);
    }
    section
}
