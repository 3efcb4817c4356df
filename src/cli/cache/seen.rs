//! The cache that a command looks at: a data directory, or that of a hub.

use anyhow::{Context as _, bail};
use clap::Args;

use super::Store;
use crate::catalog::{
    Catalog as _, Export, ExportHead, ExportId, Filter, Saving, SavingFilter, SqliteCatalog,
};
use crate::cli::hub_api::{HubApi, Wanted};
use crate::cli::hub_args::HubArgs;
use crate::doors::admin::ExportDetails;
use crate::step::Step;

/// Which cache.
#[derive(Debug, Args)]
pub(super) struct Seen {
    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    store: Store,
}

/// It, open.
pub(super) enum Cache<'a> {
    Here(&'a Store, Box<SqliteCatalog>),
    Hub(HubApi),
}

impl Seen {
    pub(super) async fn open(&self) -> anyhow::Result<Cache<'_>> {
        Ok(match self.hub.api()? {
            Some(api) => Cache::Hub(api),
            None => Cache::Here(&self.store, Box::new(self.store.catalog().await?)),
        })
    }
}

impl Cache<'_> {
    /// Exports, newest first, and how many there are if that was counted.
    pub(super) async fn list(
        &self,
        filter: &Filter,
        counted: bool,
    ) -> anyhow::Result<(Vec<ExportHead>, Option<u64>)> {
        match self {
            Self::Here(_, catalog) => {
                let exports = catalog.list(filter).await?;
                let all = match counted {
                    true => Some(catalog.count(filter).await?),
                    false => None,
                };
                Ok((exports, all))
            }
            Self::Hub(hub) => {
                let wanted = Wanted::at(&["exports"])
                    .with("project", filter.project.as_ref())
                    .with("ref", filter.git_ref.as_ref())
                    .with("scope", filter.scope.as_ref())
                    .with("kind", filter.kind);
                let limit = filter.limit.map(|limit| limit as usize);
                Ok((hub.items(wanted, limit).await?, None))
            }
        }
    }

    /// The export with that number.
    pub(super) async fn export(&self, id: ExportId) -> anyhow::Result<Export> {
        let hub = match self {
            Self::Here(store, catalog) => return store.export(catalog, id).await,
            Self::Hub(hub) => hub,
        };
        let number = id.to_string();
        let details: ExportDetails = hub.get(Wanted::at(&["exports", &number])).await?;
        let config = hub.bytes(Wanted::at(&["exports", &number, "config"])).await;
        let config = config.with_context(|| format!("the config of export {id}"))?;
        if crate::digest::Digest::of(&config) != details.config {
            bail!("the config of export {id} came damaged from {}", hub.at());
        }
        Ok(Export {
            head: details.export,
            config_digest: details.config,
            config: config.into(),
            layers: details.layers,
            steps: details.steps.into_iter().map(Step::from).collect(),
        })
    }

    /// What builds were saved.
    pub(super) async fn savings(&self, filter: &SavingFilter) -> anyhow::Result<Vec<Saving>> {
        match self {
            Self::Here(_, catalog) => Ok(catalog.savings(filter).await?),
            Self::Hub(hub) => {
                let wanted = Wanted::at(&["savings"])
                    .with("project", filter.project.as_ref())
                    .with("ref", filter.git_ref.as_ref())
                    .with("since", filter.since);
                hub.items(wanted, None).await
            }
        }
    }

    pub(super) async fn close(&self) {
        if let Self::Here(_, catalog) = self {
            catalog.close().await;
        }
    }
}
