//! `layerd sidecar`: the door in front of one buildkitd, which may be its child.

mod child;
mod readiness;
mod signals;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use clap::builder::ArgPredicate;
use tokio::task::JoinSet;

use self::child::pair::Pair;
pub use self::child::tether::{TetherArgs, run as tether};
use super::operate::{self, SidecarMetrics};
use crate::cache::{Cache, Form, Limits, LocalCache, Metered};
use crate::config::{Endpoint, MetricsAddress};
use crate::doors::buildkit::{
    self, Closing, Defaults, ImportCarrier, Listener, PullListener, Upstream,
};
use crate::doors::operator::{self, Shown};
use crate::place::{GitRef, ProjectId};
use crate::tls::{Alpn, ClientTls, Roots, ServerTls};
use crate::units::parse_duration;

/// Where buildkitd listens unless it is told otherwise.
const BUILDKITD: &str = "unix:///run/buildkit/buildkitd.sock";

/// Serve `type=gha-compatible` in front of one buildkitd.
///
/// Everything is passed on to buildkitd; only what --cache-to and --cache-from
/// say of `type=gha-compatible` is answered here, from the data directory.
///
///   layerd sidecar --listen unix:///run/layerd/buildkitd.sock \
///                  --buildkitd unix:///run/buildkit/buildkitd.sock
///   docker buildx create --name ci --driver remote unix:///run/layerd/buildkitd.sock
///   docker buildx --builder ci build \
///       --cache-to type=gha-compatible,mode=max --cache-from type=gha-compatible .
///
/// Or take buildkitd's place, with it as a child: its signals, its output and
/// its exit status are then those of this process.
///
///   layerd sidecar -- buildkitd --config /etc/buildkit/buildkitd.toml
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct SidecarArgs {
    /// Where clients connect: unix:///path or tcp://host:port (port 0: any free
    /// one). May be given more than once. A TCP address beyond loopback needs
    /// --tls-client-ca: whoever can connect can build. With buildkitd as a
    /// child, the default is buildkitd's own: unix:///run/buildkit/buildkitd.sock.
    #[arg(
        long,
        env = "LAYERD_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value_if("child", ArgPredicate::IsPresent, BUILDKITD),
        default_value = "unix:///run/layerd/buildkitd.sock"
    )]
    listen: Vec<Endpoint>,

    /// Where buildkitd listens: unix:///path or tcp://host:port.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD",
        value_name = "ADDR",
        conflicts_with = "child",
        default_value = BUILDKITD
    )]
    buildkitd: Endpoint,

    /// Where the cache is kept. Several sidecars of one host may share it; it
    /// must not be on a network file system.
    #[arg(
        long,
        env = "LAYERD_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/layerd"
    )]
    data_dir: PathBuf,

    /// The project of builds that name none: usually the repository.
    #[arg(
        long,
        env = "LAYERD_PROJECT",
        value_name = "NAME",
        default_value = "default"
    )]
    project: ProjectId,

    /// The git ref of builds that name none; `main` means refs/heads/main.
    #[arg(
        long,
        env = "LAYERD_REF",
        value_name = "REF",
        default_value = "refs/heads/main"
    )]
    r#ref: GitRef,

    /// A ref that comes next after a build's own where an import has to be cut;
    /// may be given more than once, and the order counts.
    #[arg(
        long,
        env = "LAYERD_FALLBACK",
        value_name = "REF",
        value_delimiter = ','
    )]
    fallback: Vec<GitRef>,

    /// How imports travel: `pull` is lazy, and needs a port that buildkitd
    /// reaches; `session` always works, and makes BuildKit load what it does
    /// not need; `auto` tries whether the port is reached, and uses it then.
    #[arg(
        long,
        env = "LAYERD_IMPORT_CARRIER",
        value_name = "CARRIER",
        default_value = "auto"
    )]
    import_carrier: ImportCarrier,

    /// Where imports can be pulled from. Keep it on loopback unless buildkitd
    /// is elsewhere: what is served, over plain HTTP, is protected by names
    /// alone. 0.0.0.0 needs --pull-advertise.
    #[arg(
        long,
        env = "LAYERD_PULL_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:0"
    )]
    pull_listen: String,

    /// The address of --pull-listen as buildkitd sees it, where that differs.
    #[arg(long, env = "LAYERD_PULL_ADVERTISE", value_name = "HOST:PORT")]
    pull_advertise: Option<String>,

    /// How many cache records an import may have, counted at the weight of
    /// ordinary ones (10 layers deep): BuildKit takes them all in for every
    /// build. Where there are more, the build's own ref comes first, then its
    /// fallbacks, then what is newest.
    #[arg(
        long,
        env = "LAYERD_MAX_GRAPH_RECORDS",
        value_name = "N",
        default_value_t = 10_000
    )]
    max_graph_records: u64,

    /// How long the read of a layer that an import has named is tried again
    /// while it fails: BuildKit fails a build that can't read one.
    #[arg(
        long,
        env = "LAYERD_BLOB_PATIENCE",
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "60s"
    )]
    blob_patience: Duration,

    /// How long the error of a failed build may be held back while the cache of
    /// the steps that did not fail is exported; 0 exports nothing then.
    #[arg(
        long,
        env = "LAYERD_FAILED_EXPORT_TIMEOUT",
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "30s"
    )]
    failed_export_timeout: Duration,

    /// TCP: the certificate chain to show, PEM.
    #[arg(
        long,
        env = "LAYERD_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// TCP: the key of --tls-cert, PEM.
    #[arg(
        long,
        env = "LAYERD_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// TCP: only clients with a certificate of these authorities may connect, PEM.
    #[arg(
        long,
        env = "LAYERD_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_client_ca: Option<PathBuf>,

    /// buildkitd over TLS: the authorities of its certificate, PEM.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD_TLS_CA",
        value_name = "FILE",
        conflicts_with = "child"
    )]
    buildkitd_tls_ca: Option<PathBuf>,

    /// buildkitd over TLS: the certificate chain to show to it, PEM.
    #[arg(long, env = "LAYERD_BUILDKITD_TLS_CERT", value_name = "FILE", requires_all = ["buildkitd_tls_ca", "buildkitd_tls_key"])]
    buildkitd_tls_cert: Option<PathBuf>,

    /// buildkitd over TLS: the key of --buildkitd-tls-cert, PEM.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD_TLS_KEY",
        value_name = "FILE",
        requires = "buildkitd_tls_cert"
    )]
    buildkitd_tls_key: Option<PathBuf>,

    /// buildkitd over TLS: the name in its certificate, where that isn't the
    /// host of --buildkitd.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD_TLS_SERVER_NAME",
        value_name = "NAME",
        requires = "buildkitd_tls_ca"
    )]
    buildkitd_tls_server_name: Option<String>,

    /// Where /metrics, /healthz and /readyz are shown, over plain HTTP, or off.
    /// 127.0.0.1:9464 unless given; where another process has that already,
    /// nowhere.
    #[arg(long, env = "LAYERD_METRICS", value_name = "ADDR|off")]
    metrics: Option<MetricsAddress>,

    /// A TOML file with these options as keys: `data-dir = "/cache"`.
    #[arg(long, env = "LAYERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Start buildkitd with these arguments, on a private socket, and take its
    /// place. Its own --addr is not among them: that is what --listen says.
    #[arg(last = true, value_name = "BUILDKITD [ARGS]", value_parser = child::word)]
    child: Vec<String>,
}

/// Runs until SIGTERM or SIGINT, or until the child ends.
pub async fn run(args: SidecarArgs) -> anyhow::Result<ExitCode> {
    raise_file_limit();
    if args.child.is_empty() {
        alone(args).await
    } else {
        with_child(args).await
    }
}

async fn alone(args: SidecarArgs) -> anyhow::Result<ExitCode> {
    let upstream = upstream(&args)?;
    let listeners = listeners(&args, Some(&args.buildkitd)).await?;
    let beside = Beside::bind(&args).await?;
    readiness::begin(&beside.cache).await;
    let closing = signals::closed_by_signal()?;
    announce(&args, &args.buildkitd, &listeners, &beside)?;
    let (door, _beside) = door(args, upstream, beside, &closing);
    buildkit::serve(door, listeners, closing).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn with_child(args: SidecarArgs) -> anyhow::Result<ExitCode> {
    // What can go wrong here does so before a buildkitd is started for it; and
    // clients that come meanwhile wait to be accepted.
    let listeners = listeners(&args, None).await?;
    let beside = Beside::bind(&args).await?;
    let mut pair = Pair::start(&args.child)?;
    if let Err(code) = pair.ready().await {
        return Ok(code);
    }
    readiness::begin(&beside.cache).await;
    announce(&args, pair.endpoint(), &listeners, &beside)?;
    let closing = Closing::default();
    let (door, _beside) = door(args, pair.upstream(), beside, &closing);
    let serving = buildkit::serve(door, listeners, closing.clone());
    Ok(pair.serve(serving, closing).await)
}

/// Says that clients can connect, and where.
fn announce(
    args: &SidecarArgs,
    buildkitd: &Endpoint,
    listeners: &[Listener],
    beside: &Beside,
) -> anyhow::Result<()> {
    let mut ready = String::from("ready");
    for listener in listeners {
        ready += &format!(" listen={}", listener.endpoint()?);
    }
    if let Some(pull) = &beside.pull {
        ready += &format!(" pull={}", pull.address()?);
    }
    if let Some(shown_at) = &beside.shown_at {
        ready += &format!(" metrics={}", shown_at.address()?);
    }
    tracing::info!(%buildkitd, data_dir = %args.data_dir.display(), "{ready}");
    // Scripts wait for this line; one that has gone away needs none.
    let _ = writeln!(std::io::stdout(), "{ready}");
    Ok(())
}

/// What the door has beside its clients.
struct Beside {
    metrics: SidecarMetrics,
    cache: Arc<LocalCache>,
    pull: Option<PullListener>,
    shown_at: Option<operator::Listener>,
}

impl Beside {
    async fn bind(args: &SidecarArgs) -> anyhow::Result<Self> {
        let metrics = SidecarMetrics::new();
        let cache = LocalCache::new(&args.data_dir).counting(metrics.subsumed.clone());
        Ok(Self {
            metrics,
            cache: Arc::new(cache),
            pull: pull_listener(args).await?,
            shown_at: operate::listen(args.metrics).await?,
        })
    }
}

/// The door, and what runs beside it until it is dropped.
fn door(
    args: SidecarArgs,
    upstream: Upstream,
    beside: Beside,
    closing: &Closing,
) -> (buildkit::Config, JoinSet<()>) {
    let (metrics, local) = (beside.metrics, beside.cache);
    let cache: Arc<dyn Cache> = Arc::new(Metered::new(local.clone(), metrics.cache.clone()));
    let mut tasks = JoinSet::new();
    if let Some(listener) = beside.shown_at {
        let checks = readiness::checks(&upstream, &local, closing);
        let registry = metrics.registry;
        tasks.spawn(listener.serve(Shown { registry, checks }));
        let (store, grown) = (metrics.store, metrics.cache.grown());
        let followed = local.clone();
        tasks.spawn(async move { store.follow(followed, grown).await });
    }
    // So that the first build doesn't wait for it.
    let limits = Limits {
        records: args.max_graph_records,
        form: Form::Whole,
    };
    tasks.spawn(async move {
        match local.warm(&limits).await {
            Ok(exports) => tracing::info!(exports, "exports are united before the first build"),
            Err(error) => tracing::debug!(%error, "nothing was united before the first build"),
        }
    });
    let builder = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let config = buildkit::Config {
        upstream,
        cache,
        defaults: Defaults {
            project: args.project,
            git_ref: args.r#ref,
            fallbacks: args.fallback,
        },
        builder,
        carrier: args.import_carrier,
        pull: beside.pull,
        max_graph_records: args.max_graph_records,
        blob_patience: args.blob_patience,
        failed_export_timeout: args.failed_export_timeout,
        metrics: metrics.door,
    };
    (config, tasks)
}

async fn pull_listener(args: &SidecarArgs) -> anyhow::Result<Option<PullListener>> {
    if args.import_carrier == ImportCarrier::Session {
        return Ok(None);
    }
    let bound = PullListener::bind(&args.pull_listen, args.pull_advertise.clone()).await;
    let bound =
        bound.with_context(|| format!("can't listen on {} (--pull-listen)", args.pull_listen))?;
    let ip = bound.address()?.ip();
    if ip.is_unspecified() && args.pull_advertise.is_none() {
        bail!(
            "--pull-listen {} is every address of this host, and none that buildkitd can connect to: name one of them instead, or give --pull-advertise HOST:PORT as buildkitd reaches it",
            args.pull_listen
        );
    }
    if !ip.is_loopback() {
        tracing::warn!(address = %bound.address()?, "imports can be pulled from other hosts, over plain HTTP: what is served there is protected by names that can't be guessed, and by nothing else");
    }
    Ok(Some(bound))
}

fn upstream(args: &SidecarArgs) -> anyhow::Result<Upstream> {
    let tls = match (&args.buildkitd, args.buildkitd_tls_ca.clone()) {
        (_, None) => None,
        (Endpoint::Unix(_), Some(_)) => {
            bail!("--buildkitd-tls-ca needs a tcp:// address in --buildkitd")
        }
        (Endpoint::Tcp(_), Some(ca)) => {
            let identity = args
                .buildkitd_tls_cert
                .clone()
                .zip(args.buildkitd_tls_key.clone());
            let server_name = args.buildkitd_tls_server_name.clone();
            Some(
                ClientTls {
                    roots: Roots::Only(ca),
                    identity,
                    server_name,
                    alpn: Alpn::H2,
                }
                .connector()?,
            )
        }
    };
    Ok(Upstream::new(args.buildkitd.clone(), tls))
}

/// Binds every address of --listen, none of which may be `buildkitd`'s own.
async fn listeners(
    args: &SidecarArgs,
    buildkitd: Option<&Endpoint>,
) -> anyhow::Result<Vec<Listener>> {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let tls = tls.map(|(cert, key)| {
        ServerTls {
            cert,
            key,
            client_ca: args.tls_client_ca.clone(),
            alpn: Alpn::H2,
        }
        .acceptor()
    });
    let tls = tls.transpose()?;
    let mut listeners = Vec::new();
    for endpoint in &args.listen {
        if Some(endpoint) == buildkitd {
            bail!("--listen and --buildkitd are the same address: {endpoint}");
        }
        let listener = Listener::bind(endpoint, tls.clone()).await;
        let listener = listener.with_context(|| format!("can't listen on {endpoint}"))?;
        if listener.is_open_to_others() && args.tls_client_ca.is_none() {
            bail!(
                "{endpoint} is reachable from other hosts, and whoever can connect can build: give --tls-cert, --tls-key and --tls-client-ca, or listen on loopback"
            );
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A connection is a file; the usual soft limit is far below the hard one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
