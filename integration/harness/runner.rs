//! A CI runner: a buildkitd of its own, and a sidecar in front of it.

use super::{Buildkitd, BuildkitdSpec, Sidecar, SidecarSpec};

/// Both, started.
pub struct Runner {
    /// In front.
    pub sidecar: Sidecar,
    /// Behind; dropped last, since the sidecar may still speak to it.
    pub buildkitd: Buildkitd,
}

impl Runner {
    /// Starts both, the daemon first.
    pub async fn start(buildkitd: BuildkitdSpec, sidecar: SidecarSpec) -> Self {
        let buildkitd = buildkitd.start().await;
        let sidecar = sidecar.buildkitd(&buildkitd.address).start().await;
        Self { sidecar, buildkitd }
    }

    /// Where its clients go.
    pub fn address(&self) -> &str {
        self.sidecar.address()
    }
}
