//! What `layerd sidecar` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::ArgPredicate;

use super::child;
use super::hub::HubArgs;
use crate::cli::config_file::ConfigArgs;
use crate::cli::retention::RetentionArgs;
use crate::cli::tls::TlsArgs;
use crate::config::{Endpoint, MetricsAddress};
use crate::doors::buildkit::ImportCarrier;
use crate::place::{GitRef, ProjectId};
use crate::units::parse_duration;

/// Where buildkitd listens unless it is told otherwise.
const BUILDKITD: &str = "unix:///run/buildkit/buildkitd.sock";

/// Serve `type=gha-compatible` in front of one buildkitd.
///
/// Everything is passed on to buildkitd; only what --cache-to and --cache-from
/// say of `type=gha-compatible` is answered here, from the data directory or
/// from a hub.
///
///   layerd sidecar --listen unix:///run/layerd/buildkitd.sock \
///                  --buildkitd unix:///run/buildkit/buildkitd.sock
///   docker buildx create --name ci --driver remote unix:///run/layerd/buildkitd.sock
///   docker buildx --builder ci build \
///       --cache-to type=gha-compatible,mode=max --cache-from type=gha-compatible .
///
/// To share the cache with other hosts, name the hub of them all, and say
/// nothing else:
///
///   layerd sidecar --hub http://cache:8700
///
/// Or take buildkitd's place, with it as a child: its signals, its output and
/// its exit status are then those of this process.
///
///   layerd sidecar -- buildkitd --config /etc/buildkit/buildkitd.toml
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    mut_arg("tls_cert", |arg| arg.help("TCP: the certificate chain to show, PEM")),
    mut_arg("tls_key", |arg| arg.help("TCP: the key of --tls-cert, PEM")),
    mut_arg("tls_client_ca", |arg| arg.help("TCP: only clients with a certificate of these authorities may connect, PEM")),
)]
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
    pub(super) listen: Vec<Endpoint>,

    /// Where buildkitd listens: unix:///path or tcp://host:port.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD",
        value_name = "ADDR",
        conflicts_with = "child",
        default_value = BUILDKITD
    )]
    pub(super) buildkitd: Endpoint,

    /// Where the cache is kept, or with --hub what this host keeps of it. Several
    /// sidecars of one host may share it; it must not be on a network file
    /// system.
    #[arg(
        long,
        env = "LAYERD_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/layerd"
    )]
    pub(super) data_dir: PathBuf,

    #[command(flatten)]
    pub(super) hub: HubArgs,

    #[command(flatten)]
    pub(super) retention: RetentionArgs,

    /// The project of builds that name none: usually the repository.
    #[arg(
        long,
        env = "LAYERD_PROJECT",
        value_name = "NAME",
        default_value = "default"
    )]
    pub(super) project: ProjectId,

    /// The git ref of builds that name none; `main` means refs/heads/main.
    #[arg(
        long,
        env = "LAYERD_REF",
        value_name = "REF",
        default_value = "refs/heads/main"
    )]
    pub(super) r#ref: GitRef,

    /// A ref that comes next after a build's own where an import has to be cut;
    /// may be given more than once, and the order counts.
    #[arg(
        long,
        env = "LAYERD_FALLBACK",
        value_name = "REF",
        value_delimiter = ','
    )]
    pub(super) fallback: Vec<GitRef>,

    /// How imports travel: `pull` is lazy, and needs a port that buildkitd
    /// reaches; `session` always works, and makes BuildKit load what it does
    /// not need; `auto` tries whether the port is reached, and uses it then.
    #[arg(
        long,
        env = "LAYERD_IMPORT_CARRIER",
        value_name = "CARRIER",
        default_value = "auto"
    )]
    pub(super) import_carrier: ImportCarrier,

    /// Where imports can be pulled from. Keep it on loopback unless buildkitd
    /// is elsewhere: what is served, over plain HTTP, is protected by names
    /// alone. 0.0.0.0 needs --pull-advertise.
    #[arg(
        long,
        env = "LAYERD_PULL_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:0"
    )]
    pub(super) pull_listen: String,

    /// The address of --pull-listen as buildkitd sees it, where that differs.
    #[arg(long, env = "LAYERD_PULL_ADVERTISE", value_name = "HOST:PORT")]
    pub(super) pull_advertise: Option<String>,

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
    pub(super) max_graph_records: u64,

    /// How long the read of a layer that an import has named is tried again
    /// while it fails: BuildKit fails a build that can't read one.
    #[arg(
        long,
        env = "LAYERD_BLOB_PATIENCE",
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "60s"
    )]
    pub(super) blob_patience: Duration,

    /// How long the error of a failed build may be held back while the cache of
    /// the steps that did not fail is exported; 0 exports nothing then.
    #[arg(
        long,
        env = "LAYERD_FAILED_EXPORT_TIMEOUT",
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "30s"
    )]
    pub(super) failed_export_timeout: Duration,

    #[command(flatten)]
    pub(super) tls: TlsArgs,

    /// buildkitd over TLS: the authorities of its certificate, PEM.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD_TLS_CA",
        value_name = "FILE",
        conflicts_with = "child"
    )]
    pub(super) buildkitd_tls_ca: Option<PathBuf>,

    /// buildkitd over TLS: the certificate chain to show to it, PEM.
    #[arg(long, env = "LAYERD_BUILDKITD_TLS_CERT", value_name = "FILE", requires_all = ["buildkitd_tls_ca", "buildkitd_tls_key"])]
    pub(super) buildkitd_tls_cert: Option<PathBuf>,

    /// buildkitd over TLS: the key of --buildkitd-tls-cert, PEM.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD_TLS_KEY",
        value_name = "FILE",
        requires = "buildkitd_tls_cert"
    )]
    pub(super) buildkitd_tls_key: Option<PathBuf>,

    /// buildkitd over TLS: the name in its certificate, where that isn't the
    /// host of --buildkitd.
    #[arg(
        long,
        env = "LAYERD_BUILDKITD_TLS_SERVER_NAME",
        value_name = "NAME",
        requires = "buildkitd_tls_ca"
    )]
    pub(super) buildkitd_tls_server_name: Option<String>,

    /// Where /metrics, /healthz and /readyz are shown, over plain HTTP, or off.
    /// 127.0.0.1:9464 unless given; where another process has that already,
    /// nowhere.
    #[arg(long, env = "LAYERD_METRICS", value_name = "ADDR|off")]
    pub(super) metrics: Option<MetricsAddress>,

    #[command(flatten)]
    config: ConfigArgs,

    /// Start buildkitd with these arguments, on a private socket, and take its
    /// place. Its own --addr is not among them: that is what --listen says.
    #[arg(last = true, value_name = "BUILDKITD [ARGS]", value_parser = child::word)]
    pub(super) child: Vec<String>,
}
