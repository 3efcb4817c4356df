//! Which export an import gets, and what of it.
//!
//! Plain functions of values; [`LocalCache`](super::LocalCache) asks the catalog
//! and the store on their behalf.

use std::collections::HashSet;

use super::Want;
use crate::catalog::Layer;
use crate::digest::Digest;
use crate::place::Place;

/// How many exports of one place are tried, newest first, before the place is
/// given up: more than one only where blobs were lost.
pub(super) const EXPORTS_TRIED: usize = 32;

/// The places to look at, in order: the first want's own, then along its
/// fallbacks, then the next want's. The newest export of the first place that
/// has one is served.
pub(super) fn places(wants: &[Want]) -> Vec<Place> {
    let mut seen = HashSet::new();
    wants
        .iter()
        .flat_map(|want| {
            let own = want.place.clone();
            let fallback = |git_ref: &_| Place {
                git_ref: Clone::clone(git_ref),
                ..want.place.clone()
            };
            std::iter::once(own).chain(want.fallbacks.iter().map(fallback))
        })
        .filter(|place| seen.insert(place.clone()))
        .collect()
}

/// The layers that can be delivered, and the blobs that can't: missing, or of
/// another size than recorded. `found` has the size of each layer's blob.
pub(super) fn withdraw(layers: Vec<Layer>, found: &[Option<u64>]) -> (Vec<Layer>, Vec<Digest>) {
    let (kept, withdrawn): (Vec<_>, Vec<_>) = layers
        .into_iter()
        .zip(found)
        .partition(|(layer, found)| **found == Some(layer.size));
    let mut withdrawn: Vec<Digest> = withdrawn
        .into_iter()
        .map(|(layer, _)| layer.digest)
        .collect();
    withdrawn.sort_unstable();
    withdrawn.dedup();
    (
        kept.into_iter().map(|(layer, _)| layer).collect(),
        withdrawn,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn place(git_ref: &str, scope: &str) -> Place {
        Place {
            project: "p".parse().unwrap(),
            git_ref: git_ref.parse().unwrap(),
            scope: scope.parse().unwrap(),
        }
    }

    fn layer(content: &str) -> Layer {
        Layer {
            digest: Digest::of(content.as_bytes()),
            size: content.len() as u64,
            media_type: "m".to_owned(),
            diff_id: None,
            created_at: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn a_want_is_followed_along_its_fallbacks_before_the_next_one() {
        let wants = [
            Want {
                place: place("feature", "a"),
                fallbacks: vec!["dev".parse().unwrap(), "main".parse().unwrap()],
            },
            Want {
                place: place("main", "b"),
                fallbacks: vec!["feature".parse().unwrap()],
            },
        ];
        let order = [
            place("feature", "a"),
            place("dev", "a"),
            place("main", "a"),
            place("main", "b"),
            place("feature", "b"),
        ];
        assert_eq!(places(&wants), order);
    }

    #[test]
    fn no_place_is_asked_twice() {
        let want = Want {
            place: place("main", "a"),
            fallbacks: vec!["main".parse().unwrap()],
        };
        assert_eq!(places(&[want.clone(), want]), [place("main", "a")]);
    }

    #[test]
    fn what_is_missing_or_of_another_size_is_withdrawn_once() {
        let layers = vec![
            layer("kept"),
            layer("gone"),
            layer("short"),
            layer("kept"),
            layer("gone"),
        ];
        let (kept, mut withdrawn) = withdraw(layers, &[Some(4), None, Some(1), Some(4), None]);
        assert_eq!(kept, [layer("kept"), layer("kept")]);
        let mut expected = [layer("gone").digest, layer("short").digest];
        expected.sort_unstable();
        withdrawn.sort_unstable();
        assert_eq!(withdrawn, expected);
    }
}
