//! One test's own corner of the machine: a temporary folder and what stands
//! in it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{BuildkitdSpec, Client, HubSpec, Pair, Registry, Runner, SidecarSpec, context};

/// A temporary folder that everything of one test lives in.
pub struct Lab {
    folder: TempDir,
}

impl Lab {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("layerd-test-")
            .tempdir()
            .expect("a temporary folder");
        Self { folder }
    }

    /// A path in it that may not exist yet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder in it, made where it is missing.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// A copy of a build context of `testdata/`, ready to be built.
    pub fn context(&self, name: &str) -> PathBuf {
        context::copy(name, &self.folder("contexts"))
    }

    /// A buildkitd to be started.
    pub fn buildkitd(&self, name: &str) -> BuildkitdSpec {
        BuildkitdSpec::new(name, self.folder(name))
    }

    /// A sidecar to be started.
    pub fn sidecar(&self, name: &str) -> SidecarSpec {
        SidecarSpec::new(name, self.folder(name))
    }

    /// A hub to be started.
    pub fn hub(&self, name: &str) -> HubSpec {
        HubSpec::new(name, self.folder(name))
    }

    /// A current buildkitd and a sidecar before it, with `data` as its store.
    pub async fn runner(&self, name: &str, data: &Path) -> Runner {
        Runner::start(self.buildkitd(name), self.sidecar(name).data_dir(data)).await
    }

    /// A sidecar with a current buildkitd as its child, and `data` as its store.
    pub async fn pair(&self, name: &str, data: &Path) -> Pair {
        Pair::start(self.buildkitd(name), self.sidecar(name).data_dir(data)).await
    }

    /// A registry on a free loopback port.
    pub async fn registry(&self) -> Registry {
        Registry::start(self.folder("registry")).await
    }

    /// buildx, with a builder at `address`.
    pub async fn buildx(&self, address: &str) -> Client {
        Client::buildx(&self.folder("clients"), address, None).await
    }

    /// buildctl at `address`.
    pub fn buildctl(&self, address: &str) -> Client {
        Client::buildctl(&self.folder("clients"), address, None)
    }
}

/// A TCP port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
