//! A registry on a loopback port, which BuildKit speaks plain HTTP to.

use std::path::PathBuf;
use std::process::Command;

use tokio::net::TcpStream;

use super::lab::free_port;
use super::process::Process;
use super::until;

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

    /// The reference of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }
}
