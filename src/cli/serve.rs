//! `layerd serve`: the hub.

mod args;
mod backends;
mod checked;
mod housekeeping;
mod identity;
mod pages;
mod readiness;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

pub use self::args::ServeArgs;
use self::args::{Auth, OnOff, Storage};
use self::backends::Backends;
use self::housekeeping::House;
use self::identity::Identities;
use super::{misuse, operate};
use crate::access::{Access, Keys, Revoked, Shares};
use crate::cache::collecting::Collecting;
use crate::cache::guard::Guarded;
use crate::cache::{Cache, CacheError, LocalCache, Metered};
use crate::catalog::Catalog;
use crate::doors::front::{self, Closing};
use crate::doors::operator::Shown;
use crate::doors::{admin, gha, hub};
use crate::tls::Alpn;

/// How long a start waits to learn whose the layers are.
const BINDING: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    operate::raise_file_limit();
    let keys = keys(&args)?;
    let quotas = args.retention.quotas()?;
    let tls = args.tls.acceptor(Alpn::Http)?;
    if args.check_config {
        return checked::check(&args, keys).await;
    }
    let metrics = operate::HubMetrics::new();
    let operate::HubMetrics { mut registry, .. } = metrics;
    let backends = Backends::open(&args.storage(), &mut registry).await?;
    let access = access_by(keys, &backends.catalog);
    let identities = Identities::open(&args, &access, &backends.catalog, &mut registry)?;
    identities.warn();
    let listener = TcpListener::bind(&args.listen).await;
    let listener = listener.with_context(|| format!("can't listen at {}", args.listen))?;
    let shown_at = operate::listen(args.metrics, operate::HUB_PORT).await?;
    let closing = closed_by_signal()?;
    let local = LocalCache::over(Arc::clone(&backends.catalog), Arc::clone(&backends.blobs));
    let local = local.keeping(quotas, args.retention.keep(), metrics.collecting.clone());
    let local = local.bounding_uploads(args.retention.limits(None).max_bytes);
    let local = Arc::new(local.counting(metrics.subsumed));
    let cache: Arc<dyn Cache> = Arc::new(Metered::new(local.clone(), metrics.cache.clone()));
    match tokio::time::timeout(BINDING, local.bind()).await {
        Ok(Err(error @ CacheError::Foreign(_))) => return Err(error.into()),
        Ok(Err(error)) => tracing::warn!(%error, "whose the layers are is asked again later"),
        Err(_) => tracing::warn!("whose the layers are is asked again later"),
        Ok(Ok(())) => {}
    }
    let mut ready = format!("ready listen={}", address(&listener, tls.is_some())?);
    if let Some(shown_at) = &shown_at {
        ready += &format!(" metrics={}", shown_at.address()?);
    }
    let collecting = Collecting {
        cache: local.clone(),
        limits: args.retention.limits(None),
    };
    let pages = pages::pages(
        admin::Config {
            access: Arc::clone(&access),
            catalog: Arc::clone(&backends.catalog),
            collecting: collecting.clone(),
            refusals: metrics.refusals.clone(),
            flushes: metrics.flushes.clone(),
            names: args.names(),
            others: pages::described(),
        },
        identities.exchange(),
    );
    let house = House {
        catalog: Arc::clone(&backends.catalog),
        cache: local.clone(),
        bucket: backends.bucket.clone(),
        disk: backends.disk.clone(),
        size: metrics.store,
        grown: metrics.cache.grown(),
        leases: metrics.leases,
        collecting,
        projects: metrics.collecting,
        audit_max_age: args.audit_max_age,
    };
    let keeping = tokio::spawn(house.keep());
    let showing = shown_at.map(|shown_at| {
        let checks = readiness::checks(&backends, &closing);
        tokio::spawn(shown_at.serve(Shown {
            registry,
            checks,
            notes: Vec::new(),
        }))
    });
    tracing::info!(
        catalog = backends.catalog_at,
        blobs = backends.blobs_at,
        auth = if args.asks_for_tokens() {
            "token"
        } else {
            "none"
        },
        "{ready}"
    );
    // Scripts wait for this line; one that has gone away needs none.
    let _ = writeln!(std::io::stdout(), "{ready}");
    let tasks = TaskTracker::new();
    let uploads = Shares::halved(args.max_uploads);
    let guarded = Guarded::new(cache, local).counting(metrics.refusals.clone(), metrics.flushes);
    let runners = gha::router(gha::Config {
        access: Arc::clone(&access),
        entries: guarded.entries(),
        cache: guarded.clone(),
        base: gha::Base {
            public: args.public_url,
            tls: tls.is_some(),
        },
        redirect: args.gha_redirect == OnOff::On,
        uploads: uploads.clone(),
        tasks: tasks.clone(),
        metrics: metrics.gha,
    });
    let calls = hub::open(hub::Config {
        access,
        cache: guarded,
        uploads,
        tasks: tasks.clone(),
        metrics: metrics.door,
        refusals: metrics.refusals,
    });
    let front = front::Config {
        listener,
        tls,
        calls,
        pages: pages.merge(runners),
        max_connections: args.max_connections,
        max_of_address: args.max_connections_per_address,
        tasks,
        metrics: metrics.front,
    };
    front::serve(front, closing).await;
    keeping.abort();
    if let Some(showing) = showing {
        showing.abort();
    }
    backends.close().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Whom a hub is open to.
fn access_by(keys: Option<Keys>, catalog: &Arc<dyn Catalog>) -> Arc<Access> {
    Arc::new(match keys {
        Some(keys) => Access::Token(keys, Revoked::new(Arc::clone(catalog))),
        None => Access::Open,
    })
}

/// The keys of tokens, where clients need one.
fn keys(args: &ServeArgs) -> anyhow::Result<Option<Keys>> {
    match (args.auth, &args.token_key_file) {
        (Some(Auth::Token), None) => Err(misuse(
            "--auth token needs --token-key-file: `layerd token key -o FILE` makes one",
        )),
        (Some(Auth::Token), Some(path)) => Ok(Some(Keys::open(path)?)),
        (Some(Auth::None), Some(_)) => Err(misuse(
            "--token-key-file goes with --auth token, not with --auth none",
        )),
        (Some(Auth::None), None) => Ok(None),
        (None, Some(path)) => Ok(Some(Keys::open(path)?)),
        (None, None) if args.is_on_loopback()? => Ok(None),
        (None, None) => Err(misuse(format!(
            "{} is reached by other hosts, and everybody there could read and write every \
             project: say --auth token with --token-key-file, or --auth none if the network \
             keeps others out",
            args.listen
        ))),
    }
}

fn address(listener: &TcpListener, tls: bool) -> anyhow::Result<String> {
    let scheme = if tls { "https" } else { "http" };
    Ok(format!("{scheme}://{}", listener.local_addr()?))
}

/// The first SIGTERM or SIGINT lets calls end, a second one has the hub stop at
/// once.
fn closed_by_signal() -> anyhow::Result<Closing> {
    let closing = Closing::default();
    let Closing { drain, hang_up } = closing.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for token in [drain, hang_up] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("finishing what runs; once more to stop at once");
            token.cancel();
        }
    });
    Ok(closing)
}

impl ServeArgs {
    fn storage(&self) -> Storage<'_> {
        Storage {
            data_dir: &self.data_dir,
            catalog: self.catalog.as_deref(),
            blobs: self.blobs.as_deref(),
            catalog_connections: self.catalog_connections,
            upload_buffers: self.upload_buffers,
            disk_cache: self.disk_cache_size,
        }
    }
}
