//! How many steps that some CI job ran are hits for the next one, where jobs
//! of several branches share a cache.

use std::collections::BTreeMap;

use crate::Scale;
use crate::branches::{Hits, JOBS, Job, MAIN, MERGE, Made};
use crate::cold::Cold;
use crate::harness::{Build, Lab};
use crate::peers::{Kind, Peers};
use crate::report::timed;
use crate::samples::Unit;
use crate::section::Section;
use crate::turns::turns;

/// A way of sharing a cache.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sharing {
    name: &'static str,
    kind: Kind,
    imports: Imports,
}

/// What a job imports; where it is not all one place, it exports to that of its
/// branch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Imports {
    OnePlace,
    OwnAndMain,
    Every,
}

const ALL: [Sharing; 7] = [
    Sharing::of("`registry`, one ref", Kind::Registry, Imports::OnePlace),
    Sharing::of("`local`, one directory", Kind::Local, Imports::OnePlace),
    Sharing::of("`s3`, one name", Kind::S3, Imports::OnePlace),
    Sharing::of(
        "`registry`, own branch and main",
        Kind::Registry,
        Imports::OwnAndMain,
    ),
    Sharing::of(
        "`registry`, every branch listed",
        Kind::Registry,
        Imports::Every,
    ),
    Sharing::of(
        "`inline`, every branch listed",
        Kind::Inline,
        Imports::Every,
    ),
    Sharing::of("`gha-compatible`", Kind::Pull, Imports::OnePlace),
];
const OURS: &str = ALL[6].name;
const TIPS: &str = "every job again";
const MERGED: &str = "a merge of two branches";
const BRANCHES: [&str; 5] = [MAIN, "one", "two", "three", "four"];

impl Sharing {
    const fn of(name: &'static str, kind: Kind, imports: Imports) -> Self {
        Self {
            name,
            kind,
            imports,
        }
    }

    fn export(self, peers: &Peers, branch: &str, build: Build) -> Build {
        match (self.kind, self.imports) {
            (Kind::Pull, _) => {
                build.cache_to(&format!("type=gha-compatible,ref={branch},mode=max"))
            }
            (kind, Imports::OnePlace) => peers.export(kind, "all", build),
            (kind, _) => peers.export(kind, branch, build),
        }
    }

    fn import(self, peers: &Peers, branch: &str, build: Build) -> Build {
        let places = match (self.kind, self.imports) {
            (Kind::Pull, _) => return build.cache_from("type=gha-compatible"),
            (_, Imports::OnePlace) => vec!["all"],
            (_, Imports::OwnAndMain) => vec![branch, MAIN],
            (_, Imports::Every) => [branch].into_iter().chain(BRANCHES).collect(),
        };
        let mut build = build;
        for (at, place) in places.iter().enumerate() {
            // A merge has no place yet.
            if BRANCHES.contains(place) && !places[..at].contains(place) || *place == "all" {
                build = peers.import(self.kind, place, build);
            }
        }
        build
    }
}

/// Every way with the same jobs.
pub async fn measure(scale: Scale) -> Section {
    let about = "`testdata/branches`, a Dockerfile of eight stages, on five branches: main, three \
         that change the source of one stage each, and one that changes what all stages \
         stand on. Seven CI jobs, the image on each branch and a second target on two of \
         them, build on cold daemons, one after the other in an order that chance picks, \
         import nothing, and export with `mode=max`. Then a cold daemon does each job \
         again, and another one builds a merge of two branches, with the imports that are \
         named. The figures are the steps that came from the cache, of those that any of \
         the seven jobs ran: 68 of the jobs', 9 of the merge's 12. For `gha-compatible` \
         every job exports with `type=gha-compatible,ref=<branch>,mode=max`, and every \
         import is `type=gha-compatible` and nothing else; each file in a result that came \
         from there is one that a job made from the same sources.";
    let mut section = Section::new(
        "Hit rate",
        about,
        &[TIPS, MERGED],
        &ALL.map(|sharing| sharing.name),
    );
    for order in turns(scale, &JOBS).chunks(JOBS.len()) {
        round(order, &mut section).await;
    }
    for (what, column) in [
        ("missed by `gha-compatible`: every job again", TIPS),
        ("missed by `gha-compatible`: the merge", MERGED),
    ] {
        section.goal(what, 1.0 - section.least(OURS, column), 0.0);
    }
    section
}

async fn round(order: &[Job], section: &mut Section) {
    let lab = Lab::new();
    let peers = Peers::start(&lab).await;
    let mut made = Made::default();
    for job in order {
        write(&lab, &peers, *job, &mut made).await;
    }
    let mut hits: BTreeMap<(Sharing, &str), Hits> = BTreeMap::new();
    for sharing in ALL {
        for job in JOBS.into_iter().chain([MERGE]) {
            let column = if job == MERGE { MERGED } else { TIPS };
            let cold = Cold::start(sharing.kind, peers.store(sharing.kind)).await;
            let build = sharing.import(&peers, job.branch, job.build(&lab));
            let build = build.output_folder(&cold.out());
            let outcome = cold.client.build(&build).await.ok();
            if sharing.kind.is_ours() {
                outcome.assert_no_warning();
                made.assert_is(job, &cold.out(), &outcome);
            }
            let all = hits.entry((sharing, column)).or_default();
            *all = all.and(job.hits(&outcome));
        }
    }
    for ((sharing, column), hits) in hits {
        section.figure(sharing.name, column, Unit::Rate, hits.rate());
    }
}

/// A job, for each place on a cold daemon of its own.
async fn write(lab: &Lab, peers: &Peers, job: Job, made: &mut Made) {
    for sharing in ALL {
        // One export to a place is what all who import it get.
        let place = |sharing: &Sharing| (sharing.kind, sharing.imports == Imports::OnePlace);
        let same = |other: &&Sharing| place(other) == place(&sharing);
        if ALL.iter().find(same) != Some(&sharing) {
            continue;
        }
        let cold = Cold::start(sharing.kind, peers.store(sharing.kind)).await;
        let build = sharing.export(peers, job.branch, job.build(lab));
        let build = match sharing.kind.is_ours() {
            true => build.output_folder(&cold.out()),
            false => build,
        };
        let timed = timed(&cold.client, &build).await;
        timed.all_ran(job.steps()).exported(sharing.kind);
        if sharing.kind.is_ours() {
            made.by(job, &cold.out());
        }
    }
}
