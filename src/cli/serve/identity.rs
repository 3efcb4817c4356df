//! What a hub's file says of identities, and what becomes of it.

use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::registry::Registry;

use super::args::ServeArgs;
use crate::access::Access;
use crate::access::identity::{Config, Exchange, Metrics};
use crate::catalog::Catalog;
use crate::cli::misuse;

/// The exchange of a hub, where its file names issuers.
pub(super) struct Identities {
    exchange: Option<Arc<Exchange>>,
    warnings: Vec<String>,
}

impl Identities {
    /// Reads the tables of `--config`. A hub that could not sign a token is not
    /// started.
    pub(super) fn open(
        args: &ServeArgs,
        access: &Arc<Access>,
        catalog: &Arc<dyn Catalog>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::register(registry);
        let mut identities = Self {
            exchange: None,
            warnings: Vec::new(),
        };
        let Some(path) = args.config.path() else {
            return Ok(identities);
        };
        let shown = path.display();
        let toml = std::fs::read_to_string(path).with_context(|| shown.to_string())?;
        let config = Config::parse(&toml).map_err(anyhow::Error::msg);
        let config = config.with_context(|| shown.to_string())?;
        if config.is_empty() {
            return Ok(identities);
        }
        if !access.mints() {
            return Err(misuse(format!(
                "{shown} names issuers, and there is no private key to sign tokens with: say \
                 --auth token, and give --token-key-file a private key (`layerd token key -o \
                 FILE` makes one)"
            )));
        }
        let exchange = Exchange::open(&config, Arc::clone(access), Arc::clone(catalog), metrics);
        let exchange = exchange.map_err(anyhow::Error::msg);
        identities.exchange = Some(Arc::new(exchange.with_context(|| shown.to_string())?));
        identities.warnings = config.warnings;
        Ok(identities)
    }

    /// Says what an operator may want to know.
    pub(super) fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// What `--check-config` says: whether all issuers' keys are to be had.
    pub(super) async fn check(&self) -> bool {
        for warning in &self.warnings {
            println!("warning: {warning}");
        }
        let mut well = true;
        if let Some(exchange) = &self.exchange {
            for (issuer, keys) in exchange.look().await {
                match keys {
                    Ok(1) => println!("issuer {issuer}: ok, 1 key"),
                    Ok(count) => println!("issuer {issuer}: ok, {count} keys"),
                    Err(why) => {
                        println!("issuer {issuer}: {why}");
                        well = false;
                    }
                }
            }
        }
        well
    }

    /// What gives tokens for identities, where any are known.
    pub(super) fn exchange(&self) -> Option<Arc<Exchange>> {
        self.exchange.clone()
    }
}
