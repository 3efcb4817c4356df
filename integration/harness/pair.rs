//! A sidecar with a buildkitd as its child.

use super::{BuildkitdSpec, Sidecar, SidecarSpec};

/// Both, started as one.
pub struct Pair {
    /// In front; it ends before what is left of its child is cleared away.
    pub sidecar: Sidecar,
    /// What its child was started as.
    pub buildkitd: Leftovers,
}

/// A buildkitd whose mounts are undone when this is dropped.
pub struct Leftovers(BuildkitdSpec);

impl Pair {
    /// Starts both, and waits until they are ready.
    pub async fn start(buildkitd: BuildkitdSpec, sidecar: SidecarSpec) -> Self {
        let sidecar = sidecar.child(&buildkitd).start().await;
        Self {
            sidecar,
            buildkitd: Leftovers(buildkitd),
        }
    }

    /// Where its clients go.
    pub fn address(&self) -> &str {
        self.sidecar.address()
    }
}

impl std::ops::Deref for Leftovers {
    type Target = BuildkitdSpec;

    fn deref(&self) -> &BuildkitdSpec {
        &self.0
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.0.unmount();
    }
}
