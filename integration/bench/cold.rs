//! A cold CI runner: an empty buildkitd, and where it is needed a sidecar.

use std::path::{Path, PathBuf};

use crate::harness::{Build, Buildkitd, Client, Lab, Metrics, Sidecar, until};
use crate::peers::Kind;

/// What the sidecar of a cold runner finds there.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// A data directory, which the one that exported has filled.
    Shared(&'a Path),
    /// A hub at this URL, and a data directory of its own with nothing in it.
    Hub(&'a str),
}

/// One that has built nothing. What it holds is in a folder of its own, which
/// is gone when it is dropped.
pub struct Cold {
    /// Of the sidecar, where there is one; else of buildkitd.
    pub client: Client,
    sidecar: Option<Sidecar>,
    buildkitd: Buildkitd,
    lab: Lab,
}

impl Cold {
    /// Starts what `kind` needs, with `store` for its sidecar.
    pub async fn start(kind: Kind, store: Store<'_>) -> Self {
        let lab = Lab::new();
        let buildkitd = lab.buildkitd("cold").start().await;
        wake(&lab, &buildkitd).await;
        let sidecar = match kind.is_ours() {
            true => Some(sidecar(&lab, &buildkitd, kind, store).await),
            false => None,
        };
        let address = sidecar
            .as_ref()
            .map_or(&*buildkitd.address, Sidecar::address);
        let client = lab.buildctl(address);
        Self {
            client,
            sidecar,
            buildkitd,
            lab,
        }
    }

    /// Once its sidecar has united what the store holds, which it does when it
    /// starts.
    pub async fn united(self) -> Self {
        if let Some(sidecar) = &self.sidecar {
            until("the sidecar has united the exports", async || {
                let united = "exports are united before the first build";
                sidecar.log().contains(united).then_some(())
            })
            .await;
        }
        self
    }

    /// Where a build may put its result.
    pub fn out(&self) -> PathBuf {
        self.lab.path("out")
    }

    /// The most memory that its buildkitd ever took, in bytes.
    pub fn daemon_memory(&self) -> u64 {
        self.buildkitd.peak_memory()
    }

    /// What its sidecar has counted.
    pub async fn metrics(&self) -> Option<Metrics> {
        match &self.sidecar {
            Some(sidecar) => Some(Metrics::of(sidecar).await),
            None => None,
        }
    }
}

/// One tiny build straight to buildkitd, which shares nothing with what is
/// measured. The trial of a sidecar's port is such a build too: without this it
/// alone would have woken its daemon up.
async fn wake(lab: &Lab, buildkitd: &Buildkitd) {
    let context = lab.folder("wake");
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY Dockerfile /\n",
    )
    .unwrap();
    let client = lab.buildctl(&buildkitd.address);
    client.build(&Build::of(&context)).await.ok();
}

/// A sidecar that knows how imports are to travel: it tries its port when it
/// starts, which is no part of a build.
async fn sidecar(lab: &Lab, buildkitd: &Buildkitd, kind: Kind, store: Store<'_>) -> Sidecar {
    let carrier = match kind {
        Kind::Session => "session",
        _ => "auto",
    };
    let spec = lab.sidecar("cold").buildkitd(&buildkitd.address);
    let spec = spec.arguments(["--import-carrier", carrier]);
    let spec = match store {
        Store::Shared(data) => spec.data_dir(data),
        Store::Hub(url) => spec.arguments(["--hub", url]),
    };
    let sidecar = spec.start().await;
    if kind != Kind::Session {
        until("the sidecar has tried its port", async || {
            let tried = "buildkitd reaches the pull endpoint";
            sidecar.log().contains(tried).then_some(())
        })
        .await;
    }
    sidecar
}
