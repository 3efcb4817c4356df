//! Publishing: what an export is held against, and how it enters the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::open::Opened;
use super::pinning::Names;
use super::shared::kept_steps;
use super::{LocalCache, parse};
use crate::access::RefPattern;
use crate::cache::descriptors::to_layer;
use crate::cache::{CacheError, Publication, Published, steps};
use crate::catalog::{CatalogError, ExportId, NewExport};
use crate::digest::Digest;
use crate::graph::{Config, Manifest};
use crate::place::ProjectId;
use crate::step::Step;

impl LocalCache {
    /// As [`Cache::publish`](crate::cache::Cache::publish).
    pub(super) async fn append(&self, export: Publication) -> Result<Published, CacheError> {
        let (manifest, config) = parse(export.manifest.clone(), export.config.clone()).await?;
        let opened = self.opener.opened_for_writing().await?;
        let sizes = BTreeMap::from_iter(manifest.sizes()?);
        let blobs = sizes.keys().copied().collect();
        let names = Names::pin(&opened, &export.place.project, blobs).await?;
        let named: Vec<Digest> = sizes.keys().copied().collect();
        let place = export.place.clone();
        let appended = self
            .append_named(&opened, &names, export, (manifest, config), &sizes)
            .await;
        // Who is not to try again has uploaded for nothing.
        let ended = matches!(
            appended,
            Ok(_) | Err(CacheError::Exhausted(_) | CacheError::Flushed(_))
        );
        if ended && appended.is_err() {
            self.watch.forget(&place.project, &named);
        }
        self.subsuming.let_go(Arc::clone(&opened), names, ended);
        let (id, published) = appended?;
        self.grown.notify_one();
        self.subsuming.begin(opened, place, id);
        Ok(published)
    }

    async fn append_named(
        &self,
        opened: &Opened,
        names: &Names,
        export: Publication,
        (manifest, config): (Manifest, Config),
        sizes: &BTreeMap<Digest, u64>,
    ) -> Result<(ExportId, Published), CacheError> {
        let missing = missing(opened, &export.place.project, &export.uploaded, sizes).await?;
        if !missing.is_empty() {
            return Err(CacheError::Missing(missing));
        }
        let of = (&export.place.project, export.readable.as_deref());
        let steps = steps(opened, of, &config, export.steps).await;
        let room = self.make_room(opened, &export.place, sizes).await?;
        // As exactly as it is kept.
        let time = Timestamp::now();
        let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        // The log must never name what a crash of the machine could still take.
        opened.blobs.persist().await?;
        names.check(opened).await?;
        let place = export.place.clone();
        let id = opened
            .catalog
            .append(NewExport {
                place: export.place,
                time,
                builder: export.builder,
                records: config.records.len() as u64,
                config: export.config.bytes,
                layers: manifest.layers.into_iter().map(to_layer).collect(),
                steps: steps::with_cut_dates(&steps, time),
                began: export.began,
            })
            .await
            .map_err(refused)?;
        if let Some(room) = room {
            self.settle(opened, &place, sizes, room).await;
        }
        let published = Published {
            id: Some(id),
            queued: false,
            records: config.records.len(),
            layers: sizes.len(),
            bytes: sizes.values().sum(),
            steps,
        };
        Ok((id, published))
    }
}

fn refused(error: CatalogError) -> CacheError {
    match error {
        CatalogError::Flushed { .. } => CacheError::Flushed(error.to_string()),
        error => error.into(),
    }
}

/// Blobs that the project may not name: absent, of another size than the
/// manifest says, or neither uploaded by this export nor held already.
async fn missing(
    opened: &Opened,
    project: &ProjectId,
    uploaded: &BTreeSet<Digest>,
    sizes: &BTreeMap<Digest, u64>,
) -> Result<Vec<Digest>, CacheError> {
    let all: Vec<Digest> = sizes.keys().copied().collect();
    let held = BTreeSet::from_iter(opened.catalog.held(project, &all).await?);
    // The store is asked about no others: how long it takes to answer would tell
    // what others have there.
    let mut own = all;
    own.retain(|digest| uploaded.contains(digest) || held.contains(digest));
    let mut found = opened.blobs.sizes(&own).await?;
    for (digest, found) in own.iter().zip(&mut found) {
        // Until now nothing but a pin kept it: what is remembered of its size
        // may be of another time.
        if !held.contains(digest) {
            *found = opened.blobs.size(digest).await?;
        }
    }
    let found: BTreeMap<Digest, Option<u64>> = own.into_iter().zip(found).collect();
    let is_missing =
        |(digest, size): &(&Digest, &u64)| found.get(digest).copied().flatten() != Some(**size);
    let missing = sizes.iter().filter(is_missing);
    Ok(missing.map(|(digest, _)| *digest).collect())
}

/// The steps of an export's records: `ran` by its build, or known from earlier
/// exports of the project. An export is worth more than its names.
async fn steps(
    opened: &Opened,
    (project, readable): (&ProjectId, Option<&[RefPattern]>),
    config: &Config,
    ran: Vec<Step>,
) -> Vec<Step> {
    let nameless = steps::nameless(config, &ran);
    let kept = kept_steps(opened.catalog.as_ref(), project, readable, &nameless).await;
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "the names of steps of earlier exports can't be read");
        Vec::new()
    });
    steps::of_export(config, ran, kept)
}
