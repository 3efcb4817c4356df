//! The `layerd serve` under test, as a child process, and clients of its wire.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use layerd::cache::wire::CacheClient;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::process::Process;
use super::wait::DEADLINE;

/// How a hub is to be started.
#[derive(Clone)]
pub struct HubSpec {
    name: String,
    folder: PathBuf,
    data_dir: PathBuf,
    listen: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl HubSpec {
    pub(super) fn new(name: &str, folder: PathBuf) -> Self {
        Self {
            name: format!("hub {name}"),
            data_dir: folder.join("data"),
            folder,
            listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Where its store is, when that is not in its own folder.
    pub fn data_dir(mut self, data_dir: &Path) -> Self {
        self.data_dir = data_dir.to_owned();
        self
    }

    /// Where it listens, when that is not any free port.
    pub fn listen(mut self, listen: &str) -> Self {
        self.listen = listen.to_owned();
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

    /// With a clock that is ahead by so many seconds; timers run as ever.
    pub fn ahead(self, seconds: u64) -> Self {
        let library = super::tools::faketime().display().to_string();
        let mut spec = self;
        spec.environment.retain(|(name, _)| name != "FAKETIME");
        spec.environment("LD_PRELOAD", &library)
            .environment("FAKETIME", &format!("+{seconds}"))
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(self) -> Hub {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layerd"));
        command
            .args([
                "serve",
                "--listen",
                &self.listen,
                "--metrics",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.arguments)
            .env(
                "LAYERD_LOG",
                "debug,h2=info,hyper=info,hyper_util=info,sqlx=info",
            )
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = self.folder.join("hub.log");
        let mut process = Process::spawn(&self.name, &command, &log);
        let mut lines = BufReader::new(process.stdout()).lines();
        let line = match tokio::time::timeout(DEADLINE, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            other => panic!("{} is not ready: {other:?}", self.name),
        };
        let address = |kind: &str| {
            let mut words = line.split(' ');
            let found = words.find_map(|word| word.strip_prefix(kind));
            found.expect("it is said").to_owned()
        };
        Hub {
            url: address("listen="),
            metrics: address("metrics="),
            process,
            _stdout: lines,
            spec: self,
        }
    }
}

/// A running hub.
pub struct Hub {
    url: String,
    metrics: String,
    process: Process,
    _stdout: Lines<BufReader<ChildStdout>>,
    spec: HubSpec,
}

/// A client of `layerd.v1`.
pub type HubClient = CacheClient<InterceptedService<Channel, Bearer>>;

impl Hub {
    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// HOST:PORT.
    pub fn address(&self) -> &str {
        let (_, address) = self.url.split_once("://").expect("a URL");
        address
    }

    /// Where its metrics are.
    pub fn metrics_address(&self) -> &str {
        &self.metrics
    }

    /// Where its store is.
    pub fn data_dir(&self) -> &Path {
        &self.spec.data_dir
    }

    /// A client on a connection of its own, with that token.
    pub async fn client(&self, token: Option<&str>) -> HubClient {
        client(&self.url, token).await
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The largest resident set that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.process.peak_memory()
    }

    /// SIGTERM, and its exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.terminate().await
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// The same one again, at the same address, after it has ended.
    pub async fn restart(self) -> Self {
        self.restart_as(|spec| spec).await
    }

    /// The same one again, but for what is changed.
    pub async fn restart_as(self, change: impl FnOnce(HubSpec) -> HubSpec) -> Self {
        let spec = self.spec.clone().listen(self.address());
        drop(self);
        change(spec).start().await
    }
}

/// A client of the hub at `url` on a connection of its own, with that token.
pub async fn client(url: &str, token: Option<&str>) -> HubClient {
    let channel = endpoint(url).connect().await.expect("a connection");
    CacheClient::with_interceptor(channel, Bearer::new(token))
}

/// The same, connected when it is used, and again after the hub was away.
pub fn lazy_client(url: &str) -> HubClient {
    CacheClient::with_interceptor(endpoint(url).connect_lazy(), Bearer::new(None))
}

fn endpoint(url: &str) -> Endpoint {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
}

/// Sends a token with every call.
#[derive(Clone)]
pub struct Bearer(Option<AsciiMetadataValue>);

impl Bearer {
    fn new(token: Option<&str>) -> Self {
        let value = token.map(|token| format!("Bearer {token}").parse());
        Self(value.transpose().expect("a header"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}
