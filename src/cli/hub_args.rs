//! Which hub a command asks, and who asks.
//!
//! A hub that the environment names does not count where the command line names
//! a store: that one is meant. Whoever types both a hub and the catalog or the
//! bucket of a store is told to choose.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

use super::unshown::Unshown;
use crate::cache::remote::{Hub, HubAddress, Metrics, TokenSource};
use crate::tls::{Alpn, ClientTls, Connector, Roots};

/// The options.
#[derive(Clone, Debug, Default, Args)]
struct Options {
    /// The hub to ask: http://HOST:PORT or https://HOST:PORT. Given more than
    /// once, they are addresses of one hub. One that only LAYERD_HUB names does
    /// not count beside --data-dir, --catalog or --blobs.
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

    #[command(flatten)]
    cert: HubCert,
}

/// What is shown to a hub that asks for certificates.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct HubCert {
    /// https: the certificate chain to show to --hub, PEM.
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
}

impl HubCert {
    /// The chain and its key.
    pub(in crate::cli) fn identity(&self) -> Option<(PathBuf, PathBuf)> {
        self.hub_cert.clone().zip(self.hub_key.clone())
    }
}

/// Which hub, if any. In a command that may work on a store as well this comes
/// before the options of that, which clap takes out of what it has parsed one
/// by one.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct HubArgs {
    options: Options,
    hubs: Vec<HubAddress>,
}

/// The options that name a store, and whether they can be there beside a hub.
const STORE: [(&str, bool); 3] = [("data_dir", true), ("catalog", false), ("blobs", false)];

impl Args for HubArgs {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment_args_for_update(command)
    }
}

impl FromArgMatches for HubArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let options = Options::from_arg_matches(matches)?;
        // An option that the command does not have can't be asked for.
        let is_typed = |name: &str| {
            matches.ids().any(|id| id == name)
                && matches.value_source(name) == Some(ValueSource::CommandLine)
        };
        let store: Vec<_> = STORE.iter().filter(|(name, _)| is_typed(name)).collect();
        let hubs = options.hubs.iter().flatten().cloned().collect();
        if !is_typed("hub") {
            return Ok(Self {
                hubs: if store.is_empty() { hubs } else { Vec::new() },
                options,
            });
        }
        match store.iter().find(|(_, beside)| !beside) {
            None => Ok(Self { options, hubs }),
            Some((name, _)) => Err(Error::raw(
                ErrorKind::ArgumentConflict,
                format!("--hub cannot be used with --{name}: name one or the other\n"),
            )),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl HubArgs {
    /// Its addresses; none where no hub is asked.
    pub(in crate::cli) fn addresses(&self) -> &[HubAddress] {
        &self.hubs
    }

    /// The file with the token.
    pub(in crate::cli) fn token_file(&self) -> Option<&PathBuf> {
        self.options.hub_token_file.as_ref()
    }

    /// How its certificate is checked, and which is shown.
    pub(in crate::cli) fn tls(&self, alpn: Alpn) -> Option<ClientTls> {
        let options = &self.options;
        let tls = || ClientTls {
            roots: Roots::System(options.hub_ca.clone()),
            identity: options.cert.identity(),
            server_name: None,
            alpn,
        };
        self.hubs.iter().any(HubAddress::is_tls).then(tls)
    }

    /// It, as an engine speaks to it, and the token for that.
    pub(in crate::cli) fn engine(&self, calls: Metrics) -> anyhow::Result<(Arc<Hub>, TokenSource)> {
        let token = match self.token_file() {
            None => TokenSource::none(),
            Some(file) => TokenSource::file(file).context("--hub-token-file")?,
        };
        let tls = self.tls(Alpn::H2);
        let tls: Option<Connector> = tls
            .map(|tls| tls.connector().context("TLS to the hub"))
            .transpose()?;
        let hub = Hub::new(self.hubs.iter().cloned(), tls, calls);
        Ok((Arc::new(hub), token))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Either {
        #[command(flatten)]
        hub: HubArgs,
        #[arg(long, default_value = "/var/lib/layerd")]
        data_dir: PathBuf,
        #[arg(long)]
        catalog: Option<String>,
    }

    fn asked(arguments: &[&str]) -> Result<usize, Error> {
        let words = ["layerd"].iter().chain(arguments);
        Ok(Either::try_parse_from(words)?.hub.addresses().len())
    }

    #[test]
    fn who_types_a_hub_and_a_catalog_has_to_choose() {
        let hub = ["--hub", "http://a:8700,http://b:8700"];
        assert_eq!(asked(&hub).unwrap(), 2);
        assert_eq!(
            asked(&[&hub[..], &["--data-dir", "/x"]].concat()).unwrap(),
            2
        );
        let both = asked(&[&hub[..], &["--catalog", "postgres://x"]].concat());
        assert_eq!(both.unwrap_err().kind(), ErrorKind::ArgumentConflict);
    }
}
