//! Where the cache of a sidecar is: its own store, or a hub; and the hubs that
//! builds may name themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args};

use super::args::SidecarArgs;
use super::identity::IdentityArgs;
use super::readiness;
use crate::blobs::TierOptions;
use crate::cache::backends::{Allowed, Backends, HubSettings};
use crate::cache::remote::{Destinations, Hub, HubAddress, Near, Outbox, TokenSource};
use crate::cache::{LocalCache, Metered};
use crate::cli::hub_args::HubCert;
use crate::cli::misuse;
use crate::cli::operate::SidecarMetrics;
use crate::cli::unshown::Unshown;
use crate::tls::{Alpn, ClientTls, Connector, Roots};
use crate::units::parse_size;

/// How long exports that wait may hold the end up.
const DRAIN: Duration = Duration::from_secs(30);

/// What can be said of hubs.
#[derive(Debug, Args)]
pub(super) struct HubArgs {
    /// The hub whose cache this host shares: http://HOST:PORT or
    /// https://HOST:PORT (`layerd serve`). --data-dir then keeps what this host
    /// has had of it. Given more than once, they are addresses of one hub, and
    /// the next is asked where one fails. A hub that is down costs hits, and
    /// never a build.
    #[arg(
        long = "hub",
        id = "hub",
        env = "LAYERD_HUB",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ',',
        value_parser = Unshown::<HubAddress>::default()
    )]
    hubs: Vec<Option<HubAddress>>,

    /// A file with this host's token, for builds that bring none (`token=`);
    /// read again when it changes. It goes to --hub, and to no other hub.
    #[arg(
        long = "hub-token-file",
        id = "hub_token_file",
        env = "LAYERD_HUB_TOKEN_FILE",
        value_name = "FILE",
        requires = "hub"
    )]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    who: IdentityArgs,

    /// https: authorities to trust for hubs besides those of this system, PEM.
    #[arg(
        long = "hub-ca",
        id = "hub_ca",
        env = "LAYERD_HUB_CA",
        value_name = "FILE"
    )]
    ca: Option<PathBuf>,

    #[command(flatten)]
    cert: HubCert,

    /// A hub that builds may name with `url=` though it is not --hub; `*` for
    /// any. Only the build's own `token=` is sent there. May be given more than
    /// once.
    #[arg(
        long = "allow-hub",
        id = "allow_hub",
        env = "LAYERD_ALLOW_HUB",
        hide_env_values = true,
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = Unshown::<Allowed>::default()
    )]
    allowed: Vec<Option<Allowed>>,

    /// How much of a hub's layers --data-dir keeps, such as 20GiB; what was used
    /// least recently goes first.
    #[arg(
        long = "disk-cache-size",
        id = "disk_cache_size",
        env = "LAYERD_DISK_CACHE_SIZE",
        value_name = "SIZE",
        value_parser = parse_size,
        default_value = "20GiB"
    )]
    disk_cache_size: u64,

    /// Has builds wait for --data-dir alone: an export goes to the hub later,
    /// and again until it arrives, also after a restart. For hosts that stay.
    #[arg(
        long = "async-export",
        id = "async_export",
        env = "LAYERD_ASYNC_EXPORT",
        value_name = "true|false",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true"
    )]
    async_export: bool,
}

/// The caches of a sidecar.
pub(super) struct Caches {
    backends: Arc<Backends>,
    embedded: Option<Arc<LocalCache>>,
    hub: Option<Arc<Hub>>,
    outbox: Option<Outbox>,
}

impl Caches {
    /// Wires up what `args` say. Nothing is connected yet.
    pub(super) async fn open(args: &SidecarArgs, metrics: &SidecarMetrics) -> anyhow::Result<Self> {
        if args.hub.hubs().next().is_none() {
            return Self::own(args, metrics).await;
        }
        let mut settings = settings(args, metrics).await?;
        let tls = args.hub.tls(args.hub.cert.identity())?;
        let hub = Hub::new(args.hub.hubs().cloned(), tls, metrics.hub.clone());
        let hub = Arc::new(hub);
        let identity = args.hub.who.identity(args.hub.hubs().next())?;
        let token = match (&args.hub.token_file, identity) {
            (Some(file), _) => TokenSource::file(file).context("--hub-token-file")?,
            (None, Some(identity)) => TokenSource::exchanged(hub.clone(), identity),
            (None, None) => TokenSource::none(),
        };
        let destinations = args.hub.destinations(&settings);
        let destinations = destinations.own(hub.clone(), token.clone());
        let outbox = outbox(args, &settings, destinations).await?;
        settings.near.trim().await;
        settings.outbox = outbox.clone();
        let backends = Backends::hub(hub.clone(), token, settings);
        let backends = backends.allowing(args.hub.allowed(), None);
        Ok(Self {
            backends: Arc::new(backends),
            embedded: None,
            hub: Some(hub),
            outbox,
        })
    }

    async fn own(args: &SidecarArgs, metrics: &SidecarMetrics) -> anyhow::Result<Self> {
        let local = LocalCache::new(&args.data_dir).counting(metrics.subsumed.clone());
        let local = local.keeping(
            args.retention.quotas()?,
            args.retention.keep(),
            metrics.collecting.clone(),
        );
        let local = Arc::new(local);
        let cache = Metered::new(local.clone(), metrics.cache.clone());
        let mut settings = match args.hub.allowed().is_empty() {
            true => None,
            false => Some(settings(args, metrics).await?),
        };
        let mut outbox = None;
        if let Some(settings) = &mut settings {
            let destinations = args.hub.destinations(settings);
            outbox = self::outbox(args, settings, destinations).await?;
            settings.near.trim().await;
            settings.outbox = outbox.clone();
        }
        let backends = Backends::embedded(Arc::new(cache));
        Ok(Self {
            backends: Arc::new(backends.allowing(args.hub.allowed(), settings)),
            embedded: Some(local),
            hub: None,
            outbox,
        })
    }

    /// Makes the data directory, where there is no hub.
    pub(super) async fn begin(&self) {
        if let Some(local) = &self.embedded {
            readiness::begin(local).await;
        }
    }

    /// Brings to the hub what waits for it.
    pub(super) async fn drain(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.drain(DRAIN).await;
        }
    }

    /// What builds choose from.
    pub(super) fn backends(&self) -> Arc<Backends> {
        Arc::clone(&self.backends)
    }

    /// The store of this host, where there is no hub.
    pub(super) fn embedded(&self) -> Option<&Arc<LocalCache>> {
        self.embedded.as_ref()
    }

    /// The hub of `--hub`.
    pub(super) fn configured_hub(&self) -> Option<&Arc<Hub>> {
        self.hub.as_ref()
    }
}

impl HubArgs {
    fn hubs(&self) -> impl Iterator<Item = &HubAddress> {
        self.hubs.iter().flatten()
    }

    fn allowed(&self) -> Vec<Allowed> {
        self.allowed.iter().flatten().cloned().collect()
    }

    /// Those that builds may name.
    fn destinations(&self, settings: &HubSettings) -> Destinations {
        let destinations = Destinations::new(settings.tls.clone(), settings.calls.clone());
        destinations.allowing(self.allowed())
    }

    /// Where no `https` is spoken, a system without authorities will do.
    fn tls(&self, identity: Option<(PathBuf, PathBuf)>) -> anyhow::Result<Option<Connector>> {
        let wanted = self.ca.is_some() || identity.is_some();
        let wanted = wanted || self.hubs().any(HubAddress::is_tls);
        let tls = ClientTls {
            roots: Roots::System(self.ca.clone()),
            identity,
            server_name: None,
            alpn: Alpn::H2,
        };
        match tls.connector() {
            Ok(connector) => Ok(Some(connector)),
            Err(error) if wanted => Err(error).context("TLS to hubs"),
            Err(error) => {
                tracing::debug!(%error, "hubs can't be spoken to over TLS");
                Ok(None)
            }
        }
    }
}

async fn settings(args: &SidecarArgs, metrics: &SidecarMetrics) -> anyhow::Result<HubSettings> {
    let options = TierOptions {
        max_bytes: args.hub.disk_cache_size,
        patience: args.blob_patience,
        ..TierOptions::default()
    };
    Ok(HubSettings {
        near: Near::open(&args.data_dir, options, metrics.tier.clone()).await,
        patience: args.blob_patience,
        // Our certificate is for our hub.
        tls: args.hub.tls(None)?,
        calls: metrics.hub.clone(),
        blobs: metrics.cache.clone(),
        outbox: None,
    })
}

impl HubArgs {
    /// Whether there is any hub that builds may mean.
    fn names_any(&self) -> bool {
        self.hubs.iter().flatten().count() + self.allowed.iter().flatten().count() > 0
    }
}

async fn outbox(
    args: &SidecarArgs,
    settings: &HubSettings,
    destinations: Destinations,
) -> anyhow::Result<Option<Outbox>> {
    if args.hub.async_export && !args.hub.names_any() {
        return Err(misuse(
            "--async-export goes with --hub: there is no other place to bring exports to",
        ));
    }
    if args.hub.async_export {
        let opened = Outbox::open(&args.data_dir, settings.near.clone(), destinations).await;
        return Ok(Some(opened.context("--async-export needs --data-dir")?));
    }
    let left = std::fs::read_dir(args.data_dir.join("outbox"));
    if left.is_ok_and(|mut left| left.next().is_some()) {
        tracing::warn!(
            "exports of an earlier run wait in the data directory: --async-export brings them to the hub"
        );
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Told {
        #[command(flatten)]
        hub: HubArgs,
    }

    #[test]
    fn an_address_that_is_none_is_refused_and_what_is_secret_in_it_never_shown() {
        for option in ["--hub", "--allow-hub"] {
            for text in [
                "http://user:hunter2@cache:8700",
                "http://user:hun,ter2@cache:8700",
                "http://user:hunter2@",
                "user:hunter2@cache",
                "http://cache:8700?token=hunter2",
                "http://cache:8700,http://cache/hunter2",
            ] {
                for said in [
                    vec![format!("{option}={text}")],
                    vec![option.into(), text.into()],
                ] {
                    let words = std::iter::once("layerd".to_owned()).chain(said);
                    let error = Told::try_parse_from(words).unwrap_err();
                    let told = format!("{error} {error:?}");
                    assert!(told.contains(option), "{told}");
                    for secret in ["hunter2", "hun", "ter2"] {
                        assert!(!told.contains(secret), "{text}: {told}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_address_is_none() {
        let told = Told::try_parse_from(["layerd", "--hub=", "--allow-hub="]).unwrap();
        assert_eq!(told.hub.hubs().count(), 0);
        assert!(told.hub.allowed().is_empty());
        let told = Told::try_parse_from(["layerd", "--hub=http://a,,http://b,"]).unwrap();
        assert_eq!(told.hub.hubs().count(), 2);
    }
}
