//! What `layerd serve` is told.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};

use crate::cli::config_file::ConfigArgs;
use crate::cli::retention::RetentionArgs;
use crate::cli::tls::TlsArgs;
use crate::config::MetricsAddress;
use crate::doors::gha::PublicUrl;
use crate::units::{parse_duration, parse_size};

/// Serve one cache to the sidecars of many runners.
///
/// A hub keeps the log of exports and the layers: by default in a data
/// directory, at scale in Postgres and in a bucket, which any number of hubs
/// may share.
///
///   layerd serve --listen 127.0.0.1:8700 --data-dir /var/lib/layerd-hub
///   layerd sidecar --hub http://127.0.0.1:8700
///
/// For other hosts, with tokens:
///
///   layerd token key -o /etc/layerd/keys/2026.pem
///   layerd serve --listen 0.0.0.0:8700 --auth token --token-key-file /etc/layerd/keys \
///                --tls-cert cert.pem --tls-key key.pem \
///                --catalog postgres://layerd@db/layerd --blobs s3://my-cache/layers
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ServeArgs {
    /// Where sidecars connect: HOST:PORT (port 0: any free one). Beyond
    /// loopback it needs --auth.
    #[arg(
        long,
        env = "LAYERD_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8700",
        value_parser = host_and_port
    )]
    pub(super) listen: String,

    /// Where the log and the layers are kept, as far as --catalog and --blobs
    /// say nothing else, and what --disk-cache-size keeps. It must not be on a
    /// network file system.
    #[arg(
        long,
        env = "LAYERD_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/layerd-hub"
    )]
    pub(super) data_dir: PathBuf,

    /// The log of exports: postgres://USER:PASSWORD@HOST/DATABASE. Keep the
    /// password off the command line: in LAYERD_CATALOG, PGPASSWORD or the
    /// password file. SQLite in --data-dir unless given.
    #[arg(
        long,
        env = "LAYERD_CATALOG",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) catalog: Option<String>,

    /// The layers: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or
    /// az://CONTAINER/PREFIX. Options and credentials come from the provider's
    /// usual environment variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …) or
    /// the URL's query. Files in --data-dir unless given.
    #[arg(long, env = "LAYERD_BLOBS", value_name = "URL", hide_env_values = true)]
    pub(super) blobs: Option<String>,

    /// Who may use the hub: `token` wants a token of every client, `none` lets
    /// everybody who can connect do everything. `none` unless given, which a
    /// hub that others can reach refuses to take for an answer.
    #[arg(long, env = "LAYERD_AUTH", value_name = "AUTH")]
    pub(super) auth: Option<Auth>,

    /// The keys that tokens are signed with: a file, or a folder of them. They
    /// are read again when they change; see `layerd token`.
    #[arg(long, env = "LAYERD_TOKEN_KEY_FILE", value_name = "PATH")]
    pub(super) token_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) tls: TlsArgs,

    /// Where clients of the GitHub Actions cache reach this hub, where that is
    /// not what they call it themselves: https://HOST:PORT. What they upload
    /// and download goes to addresses that begin with it.
    #[arg(long, env = "LAYERD_PUBLIC_URL", value_name = "URL")]
    pub(super) public_url: Option<PublicUrl>,

    /// Whether such clients are sent to the bucket for what is there in one
    /// piece, if they come back where they don't reach it. That costs them time:
    /// say `off` where it is so.
    #[arg(
        long,
        env = "LAYERD_GHA_REDIRECT",
        value_name = "on|off",
        default_value = "on"
    )]
    pub(super) gha_redirect: OnOff,

    /// How much of a bucket is kept in --data-dir too, so that layers that are
    /// read often come from there; the least recently used goes first. 0: none.
    #[arg(
        long,
        env = "LAYERD_DISK_CACHE_SIZE",
        value_name = "SIZE",
        value_parser = parse_size,
        default_value = "0"
    )]
    pub(super) disk_cache_size: u64,

    #[command(flatten)]
    pub(super) retention: RetentionArgs,

    /// Layers that are uploaded at a time, of one client half of that; others
    /// wait.
    #[arg(
        long,
        env = "LAYERD_MAX_UPLOADS",
        value_name = "N",
        default_value_t = 8,
        value_parser = at_least_one
    )]
    pub(super) max_uploads: usize,

    /// Connections that one address may have open; one more is closed. Raise it
    /// where many runners share an address.
    #[arg(
        long,
        env = "LAYERD_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value_t = 256,
        value_parser = at_least_one
    )]
    pub(super) max_connections_per_address: usize,

    /// Connections at a time, of all addresses; one more waits to be accepted.
    #[arg(
        long,
        env = "LAYERD_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 4096,
        value_parser = at_least_one
    )]
    pub(super) max_connections: usize,

    /// Memory for uploads to a bucket, all together; others wait.
    #[arg(
        long,
        env = "LAYERD_UPLOAD_BUFFERS",
        value_name = "SIZE",
        value_parser = buffers,
        default_value = "64MiB"
    )]
    pub(super) upload_buffers: u64,

    /// Connections to Postgres at most.
    #[arg(
        long,
        env = "LAYERD_CATALOG_CONNECTIONS",
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) catalog_connections: u32,

    /// How long the audit log is kept: who exported, flushed, revoked, and so
    /// on. `layerd audit` shows it.
    #[arg(
        long,
        env = "LAYERD_AUDIT_MAX_AGE",
        value_name = "DURATION",
        value_parser = parse_duration,
        default_value = "400d"
    )]
    pub(super) audit_max_age: Duration,

    /// Where /metrics, /healthz and /readyz are shown, over plain HTTP, or off.
    /// 127.0.0.1:9465 unless given; where another process has that already,
    /// nowhere.
    #[arg(long, env = "LAYERD_METRICS", value_name = "ADDR|off")]
    pub(super) metrics: Option<MetricsAddress>,

    /// Check all of this, and whether the database, the bucket and the keys of
    /// issuers are reached, and end.
    #[arg(
        long,
        env = "LAYERD_CHECK_CONFIG",
        value_name = "true|false",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true"
    )]
    pub(super) check_config: bool,

    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Who may use a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Auth {
    /// Everybody who can connect.
    None,
    /// Whoever has a token.
    Token,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOff {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Where things are kept.
pub(super) struct Storage<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) catalog: Option<&'a str>,
    pub(super) blobs: Option<&'a str>,
    pub(super) catalog_connections: u32,
    pub(super) upload_buffers: u64,
    pub(super) disk_cache: u64,
}

impl ServeArgs {
    /// Whether this host alone can connect.
    pub(super) fn is_on_loopback(&self) -> anyhow::Result<bool> {
        let mut addresses = self
            .listen
            .to_socket_addrs()
            .with_context(|| format!("--listen {}", self.listen))?;
        Ok(addresses.all(|address| address.ip().is_loopback()))
    }

    /// What this hub is called: the hosts that it was told of.
    pub(super) fn names(&self) -> Vec<String> {
        let listen = self
            .listen
            .rsplit_once(':')
            .map(|(host, _)| host.to_owned());
        let public = self.public_url.as_ref().and_then(PublicUrl::host);
        listen.into_iter().chain(public).collect()
    }

    /// Whether clients need a token.
    pub(super) fn asks_for_tokens(&self) -> bool {
        self.auth == Some(Auth::Token) || (self.auth.is_none() && self.token_key_file.is_some())
    }
}

/// A name or an address, and a port; whether the name is known is seen later.
fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("HOST:PORT is expected, with a port of at most 65535".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

/// What two parts of a layer take, at least.
fn buffers(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 16 << 20;
    match parse_size(text)? {
        size if size < LEAST => Err("at least 16MiB".to_owned()),
        size => Ok(size),
    }
}
