//! The cache that a command looks at: a data directory, or that of a hub.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use clap::Args;

use super::Store;
use crate::blobs::DiskStore;
use crate::cache::look::{View, Viewing};
use crate::catalog::{
    Catalog as _, Export, ExportHead, ExportId, Filter, Kind, Saving, SavingFilter, SqliteCatalog,
};
use crate::cli::hub_api::{HubApi, Wanted};
use crate::cli::hub_args::HubArgs;
use crate::digest::Digest;
use crate::doors::admin::{ExportDetails, LayerOf, StepOf};
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
        match self {
            Self::Here(store, catalog) => store.export(catalog, id).await,
            Self::Hub(hub) => Ok(fetched(hub, id).await?.0),
        }
    }

    /// The union of all exports that `filters` let through together. A hub that
    /// does not say of each layer whether it is there says so of none.
    pub(super) async fn view(&self, filters: &[Filter]) -> anyhow::Result<View> {
        let hub = match self {
            Self::Here(store, catalog) => {
                let blobs = DiskStore::at(&store.data_dir);
                return Ok(View::of(&blobs, &**catalog, filters).await?);
            }
            Self::Hub(hub) => hub,
        };
        let mut all = BTreeSet::new();
        for filter in filters {
            let filter = Filter {
                kind: Some(Kind::Cache),
                ..filter.clone()
            };
            let (heads, _) = self.list(&filter, false).await?;
            all.extend(heads.into_iter().map(|head| head.id));
        }
        let (mut viewing, mut there) = (Viewing::default(), Some(BTreeMap::new()));
        for id in all {
            let (export, present) = fetched(hub, id).await?;
            let layers = export.layers.iter().map(|layer| (layer.digest, layer.size));
            there = there.zip(present).map(|(mut there, present)| {
                let layers = layers.zip(present).filter(|(_, present)| *present);
                there.extend(layers.map(|(layer, _)| layer));
                there
            });
            viewing.add(export);
        }
        let found = there.map(|there| {
            let named = viewing.named().keys();
            named
                .map(|digest| there.get(digest).copied())
                .collect::<Vec<_>>()
        });
        Ok(viewing.end(found.as_deref()))
    }

    /// Where it is.
    pub(super) fn at(&self) -> String {
        match self {
            Self::Here(store, _) => store.data_dir.display().to_string(),
            Self::Hub(hub) => hub.at(),
        }
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

/// An export of a hub, and whether each of its layers is there, where that is
/// said.
async fn fetched(hub: &HubApi, id: ExportId) -> anyhow::Result<(Export, Option<Vec<bool>>)> {
    let number = id.to_string();
    let details: ExportDetails = hub.get(Wanted::at(&["exports", &number])).await?;
    let layers = hub.items(Wanted::at(&["exports", &number, "layers"]), None);
    let layers: Vec<LayerOf> = layers.await?;
    let steps = hub.items(Wanted::at(&["exports", &number, "steps"]), None);
    let steps: Vec<StepOf> = steps.await?;
    let config = hub.bytes(Wanted::at(&["exports", &number, "config"])).await;
    let config = config.with_context(|| format!("the config of export {id}"))?;
    if Digest::of(&config) != details.config {
        bail!("the config of export {id} came damaged from {}", hub.at());
    }
    let present = layers.iter().map(|layer| layer.present).collect();
    let export = Export {
        head: details.export,
        config_digest: details.config,
        config: config.into(),
        layers: layers.into_iter().map(|layer| layer.layer).collect(),
        steps: steps.into_iter().map(Step::from).collect(),
    };
    Ok((export, present))
}
