//! `layerd token exchange`: a token for a CI's identity.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::display::print;
use crate::access::Secret;
use crate::cache::remote::{Hub, HubAddress, Identity, Metrics};
use crate::cli::hub_args::HubCert;
use crate::cli::unshown::Unshown;
use crate::tls::{Alpn, ClientTls, Roots};

/// Exchange the CI's own identity for a token of the hub, and print it.
///
/// The hub's configuration says which identities get what. The identity token
/// is the CI's (OpenID Connect): from a file, from GitHub, or from the
/// environment, in LAYERD_IDENTITY_TOKEN. A sidecar does this by itself with
/// --hub-identity or --hub-identity-file, and goes on doing it, so that nothing
/// runs out in a long job.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd token exchange --hub https://cache:8700 --github -o token
  layerd token exchange --hub https://cache:8700 --identity-token-file id.jwt
  LAYERD_IDENTITY_TOKEN=$ID_TOKEN layerd token exchange --hub https://cache:8700")]
pub(super) struct ExchangeArgs {
    /// The hub; given more than once, they are addresses of one.
    #[arg(
        long,
        env = "LAYERD_HUB",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = Unshown::<HubAddress>::default(),
        required = true
    )]
    hub: Vec<Option<HubAddress>>,

    /// A file with the identity token.
    #[arg(
        long,
        env = "LAYERD_HUB_IDENTITY_FILE",
        value_name = "FILE",
        conflicts_with = "github"
    )]
    identity_token_file: Option<PathBuf>,

    /// Ask GitHub Actions for it: the job needs `permissions: id-token: write`.
    #[arg(long)]
    github: bool,

    /// Who GitHub is to make it for, as the hub expects it: the first --hub
    /// unless given.
    #[arg(long, env = "LAYERD_HUB_IDENTITY_AUDIENCE", value_name = "TEXT")]
    audience: Option<String>,

    /// The identity token itself: for the environment, since others see the
    /// command line.
    #[arg(
        long,
        env = "LAYERD_IDENTITY_TOKEN",
        value_name = "TOKEN",
        hide = true,
        hide_env_values = true
    )]
    identity_token: Option<Secret>,

    /// Where to write the token, readable for this user alone; printed unless
    /// given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// https: authorities to trust besides those of this system, PEM.
    #[arg(long, env = "LAYERD_HUB_CA", value_name = "FILE")]
    hub_ca: Option<PathBuf>,

    #[command(flatten)]
    cert: HubCert,

    /// A TOML file with these options as keys; it may be the one of a sidecar.
    #[arg(long, env = "LAYERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: ExchangeArgs) -> anyhow::Result<ExitCode> {
    let hubs: Vec<_> = args.hub.iter().flatten().cloned().collect();
    let Some(first) = hubs.first() else {
        bail!("--hub names no hub");
    };
    let identity = identity(&args, first)?;
    let tls = match hubs.iter().any(HubAddress::is_tls) {
        false => None,
        true => {
            let tls = ClientTls {
                roots: Roots::System(args.hub_ca.clone()),
                identity: args.cert.identity(),
                server_name: None,
                alpn: Alpn::H2,
            };
            Some(tls.connector().context("TLS to hubs")?)
        }
    };
    let hub = Hub::new(hubs, tls, Metrics::default());
    let identity = identity.current().await.map_err(anyhow::Error::msg)?;
    let given = hub.exchange(&identity).await.map_err(anyhow::Error::msg)?;
    match &args.output {
        None => print(given.token.expose())?,
        Some(path) => {
            write(path, &given.token).with_context(|| format!("can't write {}", path.display()))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn identity(args: &ExchangeArgs, hub: &HubAddress) -> anyhow::Result<Identity> {
    if args.github {
        let audience = args.audience.clone();
        let audience = audience.unwrap_or_else(|| hub.to_string());
        return Ok(Identity::github(&audience));
    }
    match (&args.identity_token_file, &args.identity_token) {
        (Some(file), _) => Identity::file(file).context("--identity-token-file"),
        (None, Some(token)) => Ok(Identity::given(token.clone())),
        (None, None) => bail!(
            "whose token? give --identity-token-file, --github, or the identity token in \
             LAYERD_IDENTITY_TOKEN"
        ),
    }
}

/// Whole or not at all: a sidecar may be reading it.
fn write(path: &Path, token: &Secret) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    writeln!(file, "{}", token.expose())?;
    file.persist(path)?;
    Ok(())
}
