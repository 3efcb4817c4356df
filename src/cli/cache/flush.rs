//! `layerd cache flush`: the next build starts clean.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::Store;
use super::display::{print, print_json};
use crate::cache::Flush;
use crate::cache::remote::{self, Hub, HubAddress, TokenSource};
use crate::catalog::ledger::{Ledger, NewFlush};
use crate::catalog::{Catalog as _, PostgresCatalog, PostgresOptions};
use crate::cli::stored::typist;
use crate::place::{GitRef, ProjectId, Scope};
use crate::tls::{Alpn, ClientTls, Roots};

/// Take exports out of the log: of a project, of one ref, or of one scope.
///
/// For readers they all go at once: the next build that would see them finds
/// nothing, and is told that the cache was flushed, when and by whom. Builds that
/// run go on with what they have, and may export some of it again. An export
/// that is published meanwhile stays.
///
/// With --hub, a hub is asked, by a token that may write all of it. Else it is
/// done in the store itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache flush --data-dir /var/lib/layerd --project default --ref main
  layerd cache flush --hub https://cache:8700 --hub-token-file token --project acme/shop
  layerd cache flush --catalog postgres://layerd@db/layerd --project acme/shop --scope web")]
pub(super) struct FlushArgs {
    #[command(flatten)]
    store: Store,

    /// The log of exports of hubs, where it is in Postgres:
    /// postgres://USER:PASSWORD@HOST/DATABASE.
    #[arg(
        long,
        env = "LAYERD_CATALOG",
        value_name = "URL",
        hide_env_values = true,
        conflicts_with = "hub"
    )]
    catalog: Option<String>,

    /// The hub to ask: http://HOST:PORT or https://HOST:PORT. Given more than
    /// once, they are addresses of one hub.
    #[arg(
        long = "hub",
        id = "hub",
        env = "LAYERD_HUB",
        value_name = "URL",
        value_delimiter = ','
    )]
    hubs: Vec<HubAddress>,

    /// A file with the token for it.
    #[arg(
        long,
        env = "LAYERD_HUB_TOKEN_FILE",
        value_name = "FILE",
        requires = "hub"
    )]
    hub_token_file: Option<PathBuf>,

    /// https: authorities to trust besides those of this system, PEM.
    #[arg(long, env = "LAYERD_HUB_CA", value_name = "FILE", requires = "hub")]
    hub_ca: Option<PathBuf>,

    /// https: the certificate chain to show, PEM.
    #[arg(long, env = "LAYERD_HUB_CERT", value_name = "FILE", requires_all = ["hub", "hub_key"])]
    hub_cert: Option<PathBuf>,

    /// https: the key of --hub-cert, PEM.
    #[arg(
        long,
        env = "LAYERD_HUB_KEY",
        value_name = "FILE",
        requires = "hub_cert"
    )]
    hub_key: Option<PathBuf>,

    /// Of this project.
    #[arg(long, value_name = "PROJECT")]
    project: ProjectId,

    /// Only of this git ref; `main` is short for `refs/heads/main`. All refs
    /// unless given.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Only of this scope. All scopes unless given.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Flushed<'a> {
    project: &'a ProjectId,
    #[serde(rename = "ref")]
    git_ref: Option<&'a GitRef>,
    scope: Option<&'a Scope>,
    exports: u64,
}

pub(super) async fn run(args: FlushArgs) -> anyhow::Result<ExitCode> {
    let exports = match args.hubs.is_empty() {
        false => by_hub(&args).await?,
        true => here(&args).await?,
    };
    let flushed = Flushed {
        project: &args.project,
        git_ref: args.git_ref.as_ref(),
        scope: args.scope.as_ref(),
        exports,
    };
    if args.json {
        print_json(&flushed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let git_ref = flushed.git_ref.map_or("every ref", GitRef::as_str);
    let scope = flushed.scope.map_or("every scope", Scope::as_str);
    let exports = match exports {
        1 => "1 export".to_owned(),
        exports => format!("{exports} exports"),
    };
    print(format_args!(
        "flushed {exports} of project {}, {git_ref}, {scope}",
        args.project
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn by_hub(args: &FlushArgs) -> anyhow::Result<u64> {
    let token = match &args.hub_token_file {
        None => TokenSource::none(),
        Some(file) => TokenSource::file(file).context("--hub-token-file")?,
    };
    let tls = match args.hubs.iter().any(HubAddress::is_tls) {
        false => None,
        true => {
            let tls = ClientTls {
                roots: Roots::System(args.hub_ca.clone()),
                identity: args.hub_cert.clone().zip(args.hub_key.clone()),
                server_name: None,
                alpn: Alpn::H2,
            };
            Some(tls.connector().context("TLS to the hub")?)
        }
    };
    let hub = Hub::new(args.hubs.clone(), tls, remote::Metrics::default());
    let flush = Flush {
        project: args.project.clone(),
        git_ref: args.git_ref.clone(),
        scope: args.scope.clone(),
    };
    Ok(remote::flush(Arc::new(hub), token, &flush).await?)
}

async fn here(args: &FlushArgs) -> anyhow::Result<u64> {
    let flush = NewFlush {
        project: args.project.clone(),
        git_ref: args.git_ref.clone(),
        scope: args.scope.clone(),
        origin: typist(),
    };
    match &args.catalog {
        Some(url) => {
            let catalog = PostgresCatalog::connect(url, PostgresOptions::default());
            let catalog = catalog.context("--catalog")?;
            let flushed = catalog.flush(&flush).await;
            catalog.close().await;
            Ok(flushed?)
        }
        None => {
            let catalog = args.store.catalog().await?;
            let flushed = catalog.flush(&flush).await;
            catalog.close().await;
            Ok(flushed?)
        }
    }
}
