//! `layerd sidecar`: the door in front of one buildkitd, which may be its child.

mod args;
mod child;
mod hub;
mod identity;
mod readiness;
mod signals;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

pub use self::args::SidecarArgs;
use self::child::pair::Pair;
pub use self::child::tether::{TetherArgs, run as tether};
use self::hub::Caches;
use super::misuse;
use super::operate::{self, SidecarMetrics};
use crate::cache::collecting::Collecting;
use crate::cache::{Form, Limits};
use crate::config::Endpoint;
use crate::doors::buildkit::{
    self, Closing, Defaults, ImportCarrier, Listener, PullListener, Upstream,
};
use crate::doors::operator::{self, Shown};
use crate::tls::{Alpn, ClientTls, Roots};

/// What the own store may keep unless something is said of that: 50 GiB.
const OWN_STORE: u64 = 50 << 30;
/// How long a start is left alone with its first builds.
const COLLECTED_AFTER: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT, or until the child ends.
pub async fn run(args: SidecarArgs) -> anyhow::Result<ExitCode> {
    operate::raise_file_limit();
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
    beside.caches.begin().await;
    let closing = signals::closed_by_signal()?;
    announce(&args, &args.buildkitd, &listeners, &beside)?;
    let (door, beside) = door(args, upstream, beside, &closing);
    buildkit::serve(door, listeners, closing).await;
    beside.end().await;
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
    beside.caches.begin().await;
    announce(&args, pair.endpoint(), &listeners, &beside)?;
    let closing = Closing::default();
    let (door, beside) = door(args, pair.upstream(), beside, &closing);
    let serving = buildkit::serve(door, listeners, closing.clone());
    let code = pair.serve(serving, closing).await;
    beside.end().await;
    Ok(code)
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
    caches: Caches,
    pull: Option<PullListener>,
    shown_at: Option<operator::Listener>,
}

impl Beside {
    async fn bind(args: &SidecarArgs) -> anyhow::Result<Self> {
        let metrics = SidecarMetrics::new();
        let caches = Caches::open(args, &metrics).await?;
        Ok(Self {
            metrics,
            caches,
            pull: pull_listener(args).await?,
            shown_at: operate::listen(args.metrics, operate::SIDECAR_PORT).await?,
        })
    }
}

/// What runs beside a door until this is dropped.
struct Running {
    _tasks: JoinSet<()>,
    caches: Caches,
}

impl Running {
    /// To be called when the door has closed.
    async fn end(self) {
        self.caches.drain().await;
    }
}

/// The door, and what runs beside it.
fn door(
    args: SidecarArgs,
    upstream: Upstream,
    beside: Beside,
    closing: &Closing,
) -> (buildkit::Config, Running) {
    let (metrics, caches) = (beside.metrics, beside.caches);
    let mut tasks = JoinSet::new();
    if let Some(listener) = beside.shown_at {
        let shown = Shown {
            registry: metrics.registry,
            checks: readiness::checks(&upstream, caches.embedded(), closing),
            notes: readiness::notes(caches.configured_hub()),
        };
        tasks.spawn(listener.serve(shown));
        if let Some(followed) = caches.embedded().cloned() {
            let (store, grown) = (metrics.store, metrics.cache.grown());
            tasks.spawn(async move { store.follow(followed, grown).await });
        }
    }
    // So that the first build doesn't wait for it.
    let limits = Limits {
        records: args.max_graph_records,
        form: Form::Whole,
    };
    if let Some(local) = caches.embedded().cloned() {
        tasks.spawn(async move {
            match local.warm(&limits).await {
                Ok(exports) => tracing::info!(exports, "exports are united before the first build"),
                Err(error) => tracing::debug!(%error, "nothing was united before the first build"),
            }
        });
    }
    if let Some(cache) = caches.embedded().cloned() {
        let limits = args.retention.limits(Some(OWN_STORE));
        let collecting = Collecting { cache, limits };
        tasks.spawn(async move {
            tokio::time::sleep(COLLECTED_AFTER).await;
            tokio::join!(collecting.collect(), collecting.note_uses());
        });
    }
    let builder = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let config = buildkit::Config {
        upstream,
        caches: caches.backends(),
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
    let running = Running {
        _tasks: tasks,
        caches,
    };
    (config, running)
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
        return Err(misuse(format!(
            "--pull-listen {} is every address of this host, and none that buildkitd can connect to: name one of them instead, or give --pull-advertise HOST:PORT as buildkitd reaches it",
            args.pull_listen
        )));
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
            return Err(misuse(
                "--buildkitd-tls-ca needs a tcp:// address in --buildkitd",
            ));
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
    let tls = args.tls.acceptor(Alpn::H2)?;
    let mut listeners = Vec::new();
    for endpoint in &args.listen {
        if Some(endpoint) == buildkitd {
            return Err(misuse(format!(
                "--listen and --buildkitd are the same address: {endpoint}"
            )));
        }
        let listener = Listener::bind(endpoint, tls.clone()).await;
        let listener = listener.with_context(|| format!("can't listen on {endpoint}"))?;
        if listener.is_open_to_others() && !args.tls.asks_for_certificates() {
            return Err(misuse(format!(
                "{endpoint} is reachable from other hosts, and whoever can connect can build: give --tls-cert, --tls-key and --tls-client-ca, or listen on loopback"
            )));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}
