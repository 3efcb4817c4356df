//! What a cold runner gets, and how soon: imports of every kind, into daemons
//! that have built nothing.

use crate::Scale;
use crate::cold::Cold;
use crate::harness::{Build, Client, Lab};
use crate::layers::{self, Layers, STEPS};
use crate::peers::{Kind, Peers};
use crate::report::timed;
use crate::section::Section;
use crate::turns::turns;

const KINDS: [Kind; 9] = [
    Kind::None,
    Kind::Inline,
    Kind::Local,
    Kind::Registry,
    Kind::S3,
    Kind::Gha,
    Kind::Session,
    Kind::Pull,
    Kind::Hub,
];
const NO_OUTPUT: &str = "no output";
const EXPORT: &str = "no output, exported again";
const READ_OUT: &str = "result read out";
const WANTS: [&str; 3] = [NO_OUTPUT, EXPORT, READ_OUT];
/// Where all kinds keep the cache.
const PLACE: &str = "import";

/// Every kind, with each thing that one may want of a build.
pub async fn measure(scale: Scale) -> Section {
    let about = format!(
        "{}. A cold runner imports what another one exported with `mode=max`: a buildkitd that \
         has built nothing but one line, and for `gha-compatible` a sidecar in front of it, with \
         the data directory of the first one and `--import-carrier auto`, where no other carrier \
         is named. Of a hub: neither sidecar has the other's data directory, but both have that \
         hub; `gha` is stock BuildKit's, with no sidecar and the hub as GitHub's service. Every step comes from the cache, except where there is none. Exporting again \
         goes to where the import came from, with `mode=max`; reading out is `--output type=local`.",
        layers::ABOUT
    );
    let mut section = Section::new("Cold import", about, &WANTS, &KINDS.map(Kind::name));
    let lab = Lab::new();
    let layers = Layers::new(&lab, scale);
    let peers = Peers::start(&lab).await;
    fill(&lab, &peers, &layers).await;
    let mut read = 0.0;
    let pairs = KINDS.map(|kind| WANTS.map(|want| (kind, want)));
    for (kind, want) in turns(scale, pairs.as_flattened()) {
        // Inline is exported with an image or not at all.
        if want == EXPORT && matches!(kind, Kind::None | Kind::Inline) {
            continue;
        }
        let cold = Cold::start(kind, peers.store(kind)).await;
        let build = peers.import(kind, PLACE, layers.build());
        let build = match want {
            EXPORT => peers.export(kind, PLACE, build),
            READ_OUT => build.output_folder(&cold.out()),
            _ => build,
        };
        let timed = timed(&cold.client, &build).await;
        let timed = match kind {
            Kind::None => timed.all_ran(STEPS),
            _ => timed.all_cached(STEPS),
        };
        let timed = match want {
            EXPORT => timed.exported(kind),
            _ => timed,
        };
        if want == READ_OUT {
            layers.assert_is_result(&cold.out());
        }
        if let Some(metrics) = cold.metrics().await {
            let carrier = match kind {
                Kind::Session => "session",
                _ => "pull",
            };
            let imports =
                format!(r#"layerd_imports_total{{carrier="{carrier}",outcome="served"}}"#);
            assert_eq!(metrics.value(&imports), 1.0, "imports of {kind:?}");
            if matches!(kind, Kind::Pull | Kind::Hub) && want == EXPORT {
                read += metrics.value(r#"layerd_blob_seconds_count{direction="read"}"#);
            }
        }
        section.push(kind.name(), want, timed.took);
    }
    goals(&mut section, read);
    section
}

/// Builds once, and leaves the cache with every kind.
async fn fill(lab: &Lab, peers: &Peers, layers: &Layers) {
    let runner = lab.runner("writer", &peers.data).await;
    let straight = lab.buildctl(&runner.buildkitd.address);
    let through = lab.buildctl(runner.address());
    let sidecar = lab.sidecar("hubs").buildkitd(&runner.buildkitd.address);
    let sidecar = sidecar.arguments(["--hub", peers.hub.url()]);
    let sidecar = sidecar.start().await;
    let to_hub = lab.buildctl(sidecar.address());
    timed(&straight, &layers.build()).await.all_ran(STEPS);
    // Both carriers of ours import from one place.
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Session) {
        let client: &Client = match kind {
            Kind::Hub => &to_hub,
            kind if kind.is_ours() => &through,
            _ => &straight,
        };
        let export: Build = peers.export(kind, PLACE, layers.build());
        timed(client, &export)
            .await
            .all_cached(STEPS)
            .exported(kind);
    }
}

fn goals(section: &mut Section, read: f64) {
    let of = |want, peer: Kind| {
        section.median(Kind::Pull.name(), want) / section.median(peer.name(), want)
    };
    let goals = [
        (
            "no output, of `registry`",
            of(NO_OUTPUT, Kind::Registry),
            1.0,
        ),
        ("no output, of `s3`", of(NO_OUTPUT, Kind::S3), 1.15),
        (
            "exported again, of `registry`",
            of(EXPORT, Kind::Registry),
            0.8,
        ),
        ("exported again, of `s3`", of(EXPORT, Kind::S3), 1.15),
        ("read out, of `registry`", of(READ_OUT, Kind::Registry), 0.9),
        ("blobs read by all builds that exported again", read, 0.0),
    ];
    for (what, figure, limit) in goals {
        section.goal(what, figure, limit);
    }
}
