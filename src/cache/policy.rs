//! Which export an import gets, and what of it.
//!
//! Plain functions of values; [`LocalCache`](super::LocalCache) asks the catalog
//! and the store on their behalf.

use std::collections::HashSet;

use jiff::Timestamp;

use super::Want;
use crate::catalog::Layer;
use crate::digest::Digest;
use crate::place::{GitRef, Place};

/// How many exports of one place are tried, newest first, before the place is
/// given up: more than one only where blobs were lost.
pub(super) const EXPORTS_TRIED: usize = 32;

/// A place to look at, and how old what it gives may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub(super) place: Place,
    pub(super) not_before: Option<Timestamp>,
}

impl Candidate {
    /// Whether an export of that time is too old. Older ones of its place are,
    /// too.
    pub(super) fn rejects(&self, time: Timestamp) -> bool {
        self.not_before.is_some_and(|not_before| time < not_before)
    }
}

/// The places to look at, in order: the first want's own, then along its
/// fallbacks, then the next want's. The newest export of the first place that
/// has one is served.
pub(super) fn candidates(wants: &[Want]) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let of_want = |want: &Want| {
        let refs = std::iter::once(&want.place.git_ref).chain(&want.fallbacks);
        let candidate = |git_ref: &GitRef| Candidate {
            place: Place {
                git_ref: git_ref.clone(),
                ..want.place.clone()
            },
            not_before: want.not_before,
        };
        refs.map(candidate).collect::<Vec<_>>()
    };
    wants
        .iter()
        .flat_map(of_want)
        .filter(|candidate| seen.insert(candidate.clone()))
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

    fn want(own: Place, fallbacks: &[&str]) -> Want {
        let fallbacks = fallbacks
            .iter()
            .map(|git_ref| git_ref.parse().unwrap())
            .collect();
        Want {
            place: own,
            fallbacks,
            not_before: None,
        }
    }

    fn places(wants: &[Want]) -> Vec<Place> {
        candidates(wants)
            .into_iter()
            .map(|candidate| candidate.place)
            .collect()
    }

    #[test]
    fn a_want_is_followed_along_its_fallbacks_before_the_next_one() {
        let wants = [
            want(place("feature", "a"), &["dev", "main"]),
            want(place("main", "b"), &["feature"]),
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
        let want = want(place("main", "a"), &["main"]);
        assert_eq!(places(&[want.clone(), want]), [place("main", "a")]);
    }

    #[test]
    fn what_is_older_than_wanted_is_rejected() {
        let times: [Timestamp; 3] = [1, 2, 3].map(|second| Timestamp::from_second(second).unwrap());
        let recent = Want {
            not_before: Some(times[1]),
            ..want(place("main", "a"), &[])
        };
        let rejected =
            |want| times.map(|time| candidates(std::slice::from_ref(want))[0].rejects(time));
        assert_eq!(rejected(&recent), [true, false, false]);
        assert_eq!(rejected(&want(place("main", "a"), &[])), [false; 3]);
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
