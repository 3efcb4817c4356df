//! A real buildkitd with a root of its own: about 100 ms to start, 50 MB.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tokio::net::{TcpStream, UnixStream};

use super::lab::free_port;
use super::mounts::unmount_below;
use super::process::Process;
use super::{BuildKit, Tls, until};

/// How a buildkitd is to be started.
#[derive(Clone)]
pub struct BuildkitdSpec {
    name: String,
    folder: PathBuf,
    version: BuildKit,
    program: Option<PathBuf>,
    config: String,
    environment: Vec<(String, String)>,
    tls: Option<Tls>,
}

impl BuildkitdSpec {
    pub(super) fn new(name: &str, folder: PathBuf) -> Self {
        Self {
            name: format!("buildkitd {name}"),
            folder,
            version: BuildKit::Current,
            program: None,
            config: String::new(),
            environment: Vec::new(),
            tls: None,
        }
    }

    /// Another version than the current one.
    pub fn version(mut self, version: BuildKit) -> Self {
        self.version = version;
        self
    }

    /// Another program than the one that was released.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// What its buildkitd.toml says.
    pub fn config(mut self, config: &str) -> Self {
        config.clone_into(&mut self.config);
        self
    }

    /// One more variable of its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On TCP with mutual TLS, instead of a unix socket.
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// Starts it, and waits until it accepts connections.
    pub async fn start(self) -> Buildkitd {
        let address = match self.tls {
            Some(_) => format!("tcp://127.0.0.1:{}", free_port()),
            None => format!("unix://{}", self.folder.join("buildkitd.sock").display()),
        };
        let process = self.spawn(&address);
        let mut daemon = Buildkitd {
            process: Some(process),
            address,
            spec: self,
        };
        daemon.ready().await;
        daemon
    }

    fn spawn(&self, address: &str) -> Process {
        let mut command = Command::new(self.executable());
        command
            .args(self.arguments())
            .args(["--addr", address])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("TMPDIR", self.temporary());
        if let Some(tls) = &self.tls {
            command.arg("--tlscacert").arg(tls.ca());
            command
                .arg("--tlscert")
                .arg(tls.server_cert())
                .arg("--tlskey")
                .arg(tls.server_key());
        }
        Process::spawn(&self.name, &command, &self.folder.join("buildkitd.log"))
    }

    /// The program and its arguments, for somebody else to start; all but
    /// where it listens.
    pub fn command_line(&self) -> Vec<String> {
        let mut words = vec![self.executable().display().to_string()];
        words.extend(self.arguments());
        words
    }

    fn executable(&self) -> PathBuf {
        let released = || self.version.command("buildkitd");
        self.program.clone().unwrap_or_else(released)
    }

    fn arguments(&self) -> Vec<String> {
        let config = self.folder.join("buildkitd.toml");
        std::fs::write(&config, &self.config).expect("a configuration");
        vec![
            format!("--root={}", self.root().display()),
            format!("--config={}", config.display()),
            format!(
                "--otel-socket-path={}",
                self.folder.join("otel.sock").display()
            ),
            "--containerd-worker=false".to_owned(),
            "--oci-worker=true".to_owned(),
            "--oci-worker-gc=false".to_owned(),
            "--oci-worker-net=host".to_owned(),
        ]
    }

    /// Where it is to put what is temporary.
    pub fn temporary(&self) -> PathBuf {
        let temporary = self.folder.join("tmp");
        std::fs::create_dir_all(&temporary).expect("a folder");
        temporary
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Waits until a step runs in it.
    pub async fn until_busy(&self) {
        until("a container runs", async || {
            (self.containers() > 0).then_some(())
        })
        .await;
    }

    /// How many containers run: each has a folder of its executor.
    fn containers(&self) -> usize {
        let folders = |path: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path())
                .filter(|path| path.is_dir())
                .collect()
        };
        folders(&self.root())
            .iter()
            .map(|worker| folders(&worker.join("executor")).len())
            .sum()
    }

    /// Undoes the mounts that a buildkitd left which was not let to end.
    pub fn unmount(&self) {
        unmount_below(&self.folder);
    }
}

/// A running buildkitd. It takes its root with it when it goes.
pub struct Buildkitd {
    process: Option<Process>,
    /// Where it listens, as its clients name it.
    pub address: String,
    spec: BuildkitdSpec,
}

impl Buildkitd {
    /// Ends it; its root stays.
    pub async fn stop(&mut self) -> ExitStatus {
        let status = self.running().terminate().await;
        self.process = None;
        status
    }

    /// SIGKILL, in the middle of whatever it does.
    pub async fn kill(&mut self) {
        self.running().kill().await;
        self.process = None;
    }

    /// Starts it at the same address, on the same root.
    pub async fn start_again(&mut self) {
        self.process = Some(self.spec.spawn(&self.address));
        self.ready().await;
    }

    /// Starts it at the same address with an empty root: a fresh machine.
    pub async fn start_cold(&mut self) {
        self.spec.unmount();
        std::fs::remove_dir_all(self.spec.root()).expect("its root goes");
        self.start_again().await;
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let process = self.process.as_ref().expect("it is running");
        process.log()
    }

    /// The largest resident set that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let process = self.process.as_ref().expect("it is running");
        process.peak_memory()
    }

    /// Waits until a step runs in it.
    pub async fn until_busy(&self) {
        self.spec.until_busy().await;
    }

    /// Waits until no step runs in it.
    pub async fn until_idle(&self) {
        until("no container runs", async || {
            (self.spec.containers() == 0).then_some(())
        })
        .await;
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it is running")
    }

    async fn ready(&mut self) {
        let address = self.address.clone();
        let process = self.running();
        until("buildkitd accepts connections", async || {
            process.assert_running();
            connects(&address).await.then_some(())
        })
        .await;
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        self.process = None;
        self.spec.unmount();
    }
}

/// Whether somebody listens at a `unix://` or `tcp://` address.
async fn connects(address: &str) -> bool {
    match address.strip_prefix("unix://") {
        Some(path) => UnixStream::connect(Path::new(path)).await.is_ok(),
        None => TcpStream::connect(address.trim_start_matches("tcp://"))
            .await
            .is_ok(),
    }
}
