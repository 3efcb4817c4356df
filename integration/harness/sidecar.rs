//! The `layerd sidecar` under test, as a child process.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use super::process::Process;
use super::wait::DEADLINE;

/// How a sidecar is to be started.
#[derive(Clone)]
pub struct SidecarSpec {
    name: String,
    folder: PathBuf,
    listen: Vec<String>,
    buildkitd: Option<String>,
    data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl SidecarSpec {
    pub(super) fn new(name: &str, folder: PathBuf) -> Self {
        let listen = vec![format!("unix://{}", folder.join("sidecar.sock").display())];
        let data_dir = folder.join("data");
        Self {
            name: format!("sidecar {name}"),
            folder,
            listen,
            buildkitd: None,
            data_dir,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The address of the buildkitd behind it.
    pub fn buildkitd(mut self, address: &str) -> Self {
        self.buildkitd = Some(address.to_owned());
        self
    }

    /// Where its store is, when that is not in its own folder.
    pub fn data_dir(mut self, data_dir: &Path) -> Self {
        self.data_dir = data_dir.to_owned();
        self
    }

    /// One more address to listen at.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.to_owned());
        self
    }

    /// More arguments.
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// One more variable of its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(self) -> Sidecar {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layerd"));
        command.arg("sidecar");
        for address in &self.listen {
            command.args(["--listen", address]);
        }
        command.args([
            "--buildkitd",
            self.buildkitd
                .as_deref()
                .expect("a buildkitd behind the sidecar"),
        ]);
        command
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned());
        if !self
            .arguments
            .iter()
            .any(|word| word.starts_with("--metrics"))
        {
            command.args(["--metrics", "127.0.0.1:0"]);
        }
        let mut process = Process::spawn(&self.name, &command, &self.folder.join("sidecar.log"));
        let mut lines = BufReader::new(process.stdout()).lines();
        let line = match tokio::time::timeout(DEADLINE, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            other => panic!("{} is not ready: {other:?}", self.name),
        };
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.first(), Some(&"ready"), "{}: {line}", self.name);
        let addresses = words
            .iter()
            .filter_map(|word| word.strip_prefix("listen="))
            .map(str::to_owned)
            .collect();
        let address = |kind: &str| {
            let found = words.iter().find_map(|word| word.strip_prefix(kind));
            found.map(str::to_owned)
        };
        Sidecar {
            pull: address("pull="),
            metrics: address("metrics="),
            process,
            addresses,
            _stdout: lines,
            spec: self,
        }
    }
}

/// A running sidecar.
pub struct Sidecar {
    process: Process,
    /// Where it listens, as its ready line says; the unix socket first.
    pub addresses: Vec<String>,
    /// Where imports are pulled from, if they are.
    pub pull: Option<String>,
    /// Where its metrics are, as its ready line says: `host:port`.
    pub metrics: Option<String>,
    _stdout: Lines<BufReader<ChildStdout>>,
    spec: SidecarSpec,
}

impl Sidecar {
    /// Its unix socket.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The largest resident set that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.process.peak_memory()
    }

    /// SIGTERM, and its exit status once it has drained.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.terminate().await
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// A new one like this one, which must have ended.
    pub async fn start_again(&self) -> Self {
        self.spec.clone().start().await
    }
}
