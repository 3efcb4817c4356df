//! What an operator sees of a daemon: its metrics in one registry, and the
//! address that they are shown at.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::access::Refusals;
use crate::blobs::TierMetrics;
use crate::cache::flushes::Flushes;
use crate::cache::{self, StoreSize, Subsumed, collecting, remote};
use crate::config::MetricsAddress;
use crate::doors::operator::Listener;
use crate::doors::{buildkit, front, gha, hub};

/// Where a sidecar shows its metrics when nobody says where.
pub const SIDECAR_PORT: u16 = 9464;
/// The same of a hub.
pub const HUB_PORT: u16 = 9465;

/// Every metric of a sidecar.
pub struct SidecarMetrics {
    /// All of them.
    pub registry: Registry,
    /// Those of the door.
    pub door: buildkit::Metrics,
    /// Those of the cache.
    pub cache: cache::Metrics,
    /// That of the log.
    pub subsumed: Subsumed,
    /// Those of what goes.
    pub collecting: collecting::Metrics,
    /// That of the data directory.
    pub store: StoreSize,
    /// Those of calls to hubs.
    pub hub: remote::Metrics,
    /// Those of the disk in front of hubs.
    pub tier: TierMetrics,
}

impl SidecarMetrics {
    /// All at 0.
    pub fn new() -> Self {
        let mut registry = registry();
        Self {
            door: buildkit::Metrics::register(&mut registry),
            cache: cache::Metrics::register(&mut registry),
            subsumed: Subsumed::register(&mut registry),
            collecting: collecting::Metrics::register(&mut registry),
            store: StoreSize::register(&mut registry),
            hub: remote::Metrics::register(&mut registry),
            tier: TierMetrics::register(&mut registry),
            registry,
        }
    }
}

/// Every metric of a hub but those of its backends, which register themselves.
pub struct HubMetrics {
    /// All of them.
    pub registry: Registry,
    /// Those of its connections.
    pub front: front::Metrics,
    /// Those of the door.
    pub door: hub::Metrics,
    /// Those of the door for runners.
    pub gha: gha::Metrics,
    /// Those of the cache.
    pub cache: cache::Metrics,
    /// That of the log.
    pub subsumed: Subsumed,
    /// Those of what goes.
    pub collecting: collecting::Metrics,
    /// That of the blob store.
    pub store: StoreSize,
    /// Those of who may not.
    pub refusals: Refusals,
    /// Those of flushes.
    pub flushes: Flushes,
    /// How many leases it has handed out.
    pub leases: Gauge,
}

impl HubMetrics {
    /// All at 0.
    pub fn new() -> Self {
        let mut registry = registry();
        let leases = Gauge::default();
        registry.register(
            "layerd_hub_leases",
            "Leases that sidecars have taken or renewed here, and that last",
            leases.clone(),
        );
        Self {
            leases,
            front: front::Metrics::register(&mut registry),
            door: hub::Metrics::register(&mut registry),
            gha: gha::Metrics::register(&mut registry),
            cache: cache::Metrics::register(&mut registry),
            subsumed: Subsumed::register(&mut registry),
            collecting: collecting::Metrics::register(&mut registry),
            store: StoreSize::register(&mut registry),
            refusals: Refusals::register(&mut registry),
            flushes: Flushes::register(&mut registry),
            registry,
        }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("layerd_build", "The version that runs", version);
    registry
}

/// A connection is a file; the usual soft limit is far below the hard one.
pub fn raise_file_limit() {
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

/// Binds the address that was asked for, or the default one. That another
/// process has the default is no reason not to start, since several sidecars
/// may run on a host: this one then shows nothing, and says so.
pub async fn listen(
    asked: Option<MetricsAddress>,
    default_port: u16,
) -> anyhow::Result<Option<Listener>> {
    match asked {
        Some(MetricsAddress::Off) => Ok(None),
        Some(MetricsAddress::At(address)) => Listener::bind(address)
            .await
            .map(Some)
            .with_context(|| format!("can't show metrics at {address}")),
        None => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, default_port));
            let bound = Listener::bind(address).await;
            Ok(bound
                .inspect_err(|error| {
                    tracing::warn!(%address, %error, "no metrics are shown: name another address with --metrics");
                })
                .ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::access::identity;
    use crate::blobs::StoreMetrics;
    use crate::catalog::{self, PostgresCatalog};

    /// The names that a reader of `/metrics` sees, with what OpenMetrics puts
    /// behind them.
    fn registered() -> BTreeSet<String> {
        let mut text = String::new();
        encode(&mut text, &SidecarMetrics::new().registry).unwrap();
        let mut hub = HubMetrics::new().registry;
        catalog::Metrics::register(&mut hub);
        StoreMetrics::register(&mut hub);
        identity::Metrics::register(&mut hub);
        let database = PostgresCatalog::connect("postgres://127.0.0.1/x", Default::default());
        database.unwrap().register(&mut hub);
        encode(&mut text, &hub).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .map(|line| match line.split_once(' ').unwrap() {
                (name, "counter") => format!("{name}_total"),
                (name, "info") => format!("{name}_info"),
                (name, _) => name.to_owned(),
            })
            .collect()
    }

    /// The names in the first column of README's table of metrics.
    fn documented() -> BTreeSet<String> {
        let readme = include_str!("../../README.md");
        let rows = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| `layerd_"));
        rows.map(|row| format!("layerd_{}", row.split('`').next().unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn the_readme_lists_every_metric_and_no_other() {
        assert_eq!(registered(), documented());
    }

    #[tokio::test]
    async fn counters_and_units_are_named_as_prometheus_has_them() {
        for name in registered() {
            assert!(!name.contains("total_total"), "{name}");
            assert!(name.starts_with("layerd_"), "{name}");
        }
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error_only_where_it_was_asked_for() {
        let first = listen(Some("127.0.0.1:0".parse().unwrap()), SIDECAR_PORT)
            .await
            .unwrap();
        let address = first.unwrap().address().unwrap();
        let kept = Listener::bind(address).await.unwrap();
        let asked = MetricsAddress::At(kept.address().unwrap());
        assert!(listen(Some(asked), SIDECAR_PORT).await.is_err());
        assert!(
            listen(Some(MetricsAddress::Off), SIDECAR_PORT)
                .await
                .unwrap()
                .is_none()
        );
        // Whoever has the default by now, the other one is told.
        let _one = listen(None, SIDECAR_PORT).await.unwrap();
        assert!(listen(None, SIDECAR_PORT).await.unwrap().is_none());
    }
}
