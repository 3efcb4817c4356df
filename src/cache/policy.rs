//! What a build may see, and what of it comes first.
//!
//! Plain functions of values; [`LocalCache`](super::LocalCache) asks the catalog
//! on their behalf. A want sees every ref of its project, its own and its
//! fallbacks first; one that is narrowed sees those alone.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::Want;
use crate::catalog::{ExportHead, ExportId, Filter};
use crate::place::{GitRef, ProjectId, Scope};

/// Exports that builds may see together: of a project, and of one ref and one
/// scope unless of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sight {
    project: ProjectId,
    git_ref: Option<GitRef>,
    scope: Option<Scope>,
}

impl Sight {
    /// The exports of it.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            project: Some(self.project.clone()),
            git_ref: self.git_ref.clone(),
            scope: self.scope.clone(),
            ..Filter::default()
        }
    }

    fn covers(&self, other: &Self) -> bool {
        fn within<T: PartialEq>(wide: &Option<T>, narrow: &Option<T>) -> bool {
            wide.is_none() || wide == narrow
        }
        self.project == other.project
            && within(&self.git_ref, &other.git_ref)
            && within(&self.scope, &other.scope)
    }
}

/// All that wants see together, each export in one of them; the same for the
/// same wants in any order.
pub(super) fn sights(wants: &[Want]) -> Vec<Sight> {
    let mut all = BTreeSet::new();
    for want in wants {
        let scope = Some(want.place.scope.clone()).filter(|scope| !scope.is_any());
        let sight = |git_ref| Sight {
            project: want.place.project.clone(),
            git_ref,
            scope: scope.clone(),
        };
        if want.narrowed {
            let refs = std::iter::once(&want.place.git_ref).chain(&want.fallbacks);
            all.extend(refs.map(|git_ref| sight(Some(git_ref.clone()))));
        } else {
            all.insert(sight(None));
        }
    }
    let covered = |sight: &Sight| {
        let mut others = all.iter().filter(|other| *other != sight);
        others.any(|other| other.covers(sight))
    };
    let kept = all.iter().filter(|sight| !covered(sight));
    kept.cloned().collect()
}

/// The exports in the order in which a budget keeps them: of the wants' own
/// refs, of their fallbacks in turn, then the others; the newest first.
pub(super) fn order<'a>(
    wants: &[Want],
    heads: impl IntoIterator<Item = &'a ExportHead>,
) -> Vec<ExportId> {
    let rank = |want: &Want, head: &ExportHead| {
        let (place, of) = (&want.place, &head.place);
        if place.project != of.project || !(place.scope.is_any() || place.scope == of.scope) {
            return usize::MAX;
        }
        let mut refs = std::iter::once(&place.git_ref).chain(&want.fallbacks);
        let named = refs.position(|git_ref| *git_ref == of.git_ref);
        named.unwrap_or(1 + want.fallbacks.len())
    };
    let mut ranked: Vec<_> = heads
        .into_iter()
        .map(|head| {
            let ranks = wants.iter().enumerate();
            let first = ranks.map(|(number, want)| (rank(want, head), number)).min();
            (first, Reverse(head.id))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, Reverse(id))| id).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::place::Place;

    fn place(git_ref: &str, scope: &str) -> Place {
        Place {
            project: "p".parse().unwrap(),
            git_ref: git_ref.parse().unwrap(),
            scope: scope.parse().unwrap(),
        }
    }

    fn want(own: Place, fallbacks: &[&str], narrowed: bool) -> Want {
        Want {
            place: own,
            fallbacks: fallbacks.iter().map(|name| name.parse().unwrap()).collect(),
            narrowed,
            not_before: None,
            compression: None,
        }
    }

    fn head(id: i64, place: Place) -> ExportHead {
        ExportHead {
            id: ExportId(id),
            time: Timestamp::UNIX_EPOCH,
            place,
            builder: String::new(),
            records: 0,
            layers: 0,
            bytes: 0,
        }
    }

    fn seen(wants: &[Want]) -> Vec<(Option<String>, Option<String>)> {
        let text = |sight: Sight| {
            (
                sight.git_ref.map(|git_ref| git_ref.to_string()),
                sight.scope.map(|scope| scope.to_string()),
            )
        };
        sights(wants).into_iter().map(text).collect()
    }

    #[test]
    fn a_want_sees_every_ref_in_its_scope() {
        let all = want(place("feature", "a"), &["main"], false);
        assert_eq!(seen(&[all]), [(None, Some("a".to_owned()))]);
        let any = want(place("feature", "*"), &[], false);
        assert_eq!(seen(&[any]), [(None, None)]);
    }

    #[test]
    fn a_narrowed_want_sees_its_own_ref_and_its_fallbacks() {
        let narrow = want(place("feature", "a"), &["main"], true);
        let expected = ["refs/heads/feature", "refs/heads/main"]
            .map(|git_ref| (Some(git_ref.to_owned()), Some("a".to_owned())));
        assert_eq!(seen(&[narrow]), expected);
    }

    #[test]
    fn what_one_want_sees_is_not_seen_twice() {
        let wants = [
            want(place("feature", "a"), &["main"], true),
            want(place("main", "a"), &[], false),
            want(place("main", "*"), &[], true),
        ];
        let expected = [
            (None, Some("a".to_owned())),
            (Some("refs/heads/main".to_owned()), None),
        ];
        assert_eq!(seen(&wants), expected);
        let turned: Vec<_> = wants.iter().rev().cloned().collect();
        assert_eq!(seen(&turned), expected);
    }

    #[test]
    fn own_comes_before_fallbacks_and_those_before_what_is_newer() {
        let heads = [
            head(1, place("main", "a")),
            head(2, place("feature", "a")),
            head(3, place("other", "a")),
            head(4, place("dev", "a")),
            head(5, place("feature", "a")),
            head(6, place("other", "a")),
        ];
        let wants = [want(place("feature", "a"), &["dev", "main"], false)];
        let ids = order(&wants, &heads).into_iter().map(|id| id.0);
        assert_eq!(ids.collect::<Vec<_>>(), [5, 2, 4, 1, 6, 3]);
    }
}
