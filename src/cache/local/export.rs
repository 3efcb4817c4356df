//! What an export is held against before it is published.

use std::collections::{BTreeMap, BTreeSet};

use super::open::Opened;
use crate::cache::{CacheError, steps};
use crate::digest::Digest;
use crate::graph::Config;
use crate::place::ProjectId;
use crate::step::Step;

/// Blobs that the project may not name: absent, of another size than the
/// manifest says, or neither uploaded by this export nor held already.
pub(super) async fn missing(
    opened: &Opened,
    project: &ProjectId,
    uploaded: &BTreeSet<Digest>,
    sizes: &BTreeMap<Digest, u64>,
) -> Result<Vec<Digest>, CacheError> {
    let all: Vec<Digest> = sizes.keys().copied().collect();
    let held = BTreeSet::from_iter(opened.catalog.held(project, &all).await?);
    let mut found = opened.blobs.sizes(&all).await?;
    for (digest, found) in all.iter().zip(&mut found) {
        // Until now nothing but a pin kept it: what is remembered of its size
        // may be of another time.
        if !held.contains(digest) && uploaded.contains(digest) {
            *found = opened.blobs.size(digest).await?;
        }
    }
    let deliverable = |digest: &Digest, found: &Option<u64>| {
        *found == sizes.get(digest).copied() && (uploaded.contains(digest) || held.contains(digest))
    };
    Ok(all
        .iter()
        .zip(&found)
        .filter(|(digest, found)| !deliverable(digest, found))
        .map(|(digest, _)| *digest)
        .collect())
}

/// The steps of an export's records: `ran` by its build, or known from earlier
/// exports of the project. An export is worth more than its names.
pub(super) async fn steps(
    opened: &Opened,
    project: &ProjectId,
    config: &Config,
    ran: Vec<Step>,
) -> Vec<Step> {
    let nameless = steps::nameless(config, &ran);
    let kept = opened.catalog.steps(project, &nameless).await;
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "the names of steps of earlier exports can't be read");
        Vec::new()
    });
    steps::of_export(config, ran, kept)
}
