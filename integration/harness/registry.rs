//! A registry on a loopback port, which BuildKit speaks plain HTTP to.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tokio::net::TcpStream;

use super::lab::free_port;
use super::metrics::get_as;
use super::process::Process;
use super::until;

/// Both kinds of manifests that BuildKit pushes.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A running registry with a store of its own.
pub struct Registry {
    _process: Process,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    pub(super) async fn start(folder: PathBuf) -> Self {
        let host = format!("127.0.0.1:{}", free_port());
        let config = folder.join("config.yml");
        let store = folder.join("store");
        // A log of requests would go to standard output, which nobody reads: once
        // that pipe is full, the registry stands still.
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            store.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let mut process = Process::spawn("registry", &command, &folder.join("registry.log"));
        until("the registry accepts connections", async || {
            process.assert_running();
            TcpStream::connect(&host).await.ok()
        })
        .await;
        Self {
            _process: process,
            host,
        }
    }

    /// The digests of the layers of an image for one platform, the lowest first.
    pub async fn layers(&self, repository: &str, tag: &str) -> Vec<String> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, manifest) = get_as(&self.host, &path, MANIFEST).await;
        assert_eq!(status, 200, "{manifest}");
        let manifest: Value = serde_json::from_str(&manifest).expect("a manifest");
        let layers = manifest["layers"].as_array().expect("layers");
        let digest = |layer: &Value| layer["digest"].as_str().map(str::to_owned);
        layers
            .iter()
            .map(|layer| digest(layer).expect("a digest"))
            .collect()
    }

    /// The reference of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }
}
