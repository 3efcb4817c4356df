//! What an export is held against before it is published.

use std::collections::{BTreeMap, BTreeSet};

use super::open::Opened;
use super::shared::kept_steps;
use crate::access::RefPattern;
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
pub(super) async fn steps(
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
