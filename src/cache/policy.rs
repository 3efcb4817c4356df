//! What a build may see, and what of it comes first.
//!
//! Plain functions of values; [`LocalCache`](super::LocalCache) asks the catalog
//! on their behalf. A want sees every ref of its project, its own and its
//! fallbacks first; one that is narrowed sees those alone.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Want;
use crate::access::RefPattern;
use crate::catalog::ledger::FlushNote;
use crate::catalog::{ExportHead, ExportId, Filter, Kind};
use crate::place::{GitRef, ProjectId, Scope};

/// How long builds that find something are told of a flush.
const TOLD_BESIDE: Duration = Duration::from_secs(12 * 3600);

/// Exports that builds may see together: of a project, of some refs, and of one
/// scope unless of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sight {
    project: ProjectId,
    refs: Refs,
    scope: Option<Scope>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Refs {
    All,
    One(GitRef),
    /// Those that any of the patterns matches.
    Matching(Vec<RefPattern>),
}

impl Refs {
    fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Matching(_), Self::One(git_ref)) => self.has(git_ref),
            _ => self == other,
        }
    }

    fn has(&self, git_ref: &GitRef) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == git_ref,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(git_ref)),
        }
    }
}

impl Sight {
    /// Exports among which all of it are.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            project: Some(self.project.clone()),
            git_ref: match &self.refs {
                Refs::One(git_ref) => Some(git_ref.clone()),
                Refs::All | Refs::Matching(_) => None,
            },
            scope: self.scope.clone(),
            kind: Some(Kind::Cache),
            ..Filter::default()
        }
    }

    /// Whether one of those is of it.
    pub(super) fn has(&self, head: &ExportHead) -> bool {
        self.refs.has(&head.place.git_ref)
    }

    fn covers(&self, other: &Self) -> bool {
        self.project == other.project
            && self.refs.cover(&other.refs)
            && (self.scope.is_none() || self.scope == other.scope)
    }
}

/// All that wants see together, each export in one of them; the same for the
/// same wants in any order.
pub(super) fn sights(wants: &[Want]) -> Vec<Sight> {
    let mut all = BTreeSet::new();
    for want in wants {
        let scope = Some(want.place.scope.clone()).filter(|scope| !scope.is_any());
        let sight = |refs| Sight {
            project: want.place.project.clone(),
            refs,
            scope: scope.clone(),
        };
        let readable = readable(want);
        if want.narrowed {
            let refs = std::iter::once(&want.place.git_ref).chain(&want.fallbacks);
            let refs = refs.filter(|git_ref| readable.has(git_ref));
            all.extend(refs.map(|git_ref| sight(Refs::One(git_ref.clone()))));
        } else {
            all.insert(sight(readable));
        }
    }
    let covered = |sight: &Sight| {
        let mut others = all.iter().filter(|other| *other != sight);
        others.any(|other| other.covers(sight))
    };
    let kept = all.iter().filter(|sight| !covered(sight));
    kept.cloned().collect()
}

fn readable(want: &Want) -> Refs {
    match &want.readable {
        None => Refs::All,
        Some(patterns) if patterns.iter().any(RefPattern::is_every) => Refs::All,
        Some(patterns) => {
            let patterns = BTreeSet::from_iter(patterns.iter().cloned());
            Refs::Matching(patterns.into_iter().collect())
        }
    }
}

/// Whether something that the want sees may have gone with that flush.
pub(super) fn sees_flush(want: &Want, note: &FlushNote) -> bool {
    let sees = |sight: &Sight| {
        sight.project == note.project
            && note.git_ref.as_ref().is_none_or(|one| sight.refs.has(one))
            && (sight.scope.is_none() || note.scope.is_none() || sight.scope == note.scope)
    };
    sights(std::slice::from_ref(want)).iter().any(sees)
}

/// Whether a build that finds nothing is told of a flush: as long as it is kept.
pub(super) fn tells(_: &FlushNote, _: Timestamp) -> bool {
    true
}

/// Whether a build that finds something all the same is: where it may miss what
/// went, for half a day.
pub(super) fn tells_beside(note: &FlushNote, now: Timestamp) -> bool {
    let age = Duration::try_from(now.duration_since(note.at)).unwrap_or_default();
    note.exports > 0 && age <= TOLD_BESIDE
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
            readable: None,
        }
    }

    fn head(id: i64, place: Place) -> ExportHead {
        ExportHead {
            id: ExportId(id),
            time: Timestamp::UNIX_EPOCH,
            place,
            kind: Kind::Cache,
            entry: None,
            builder: String::new(),
            records: 0,
            layers: 0,
            bytes: 0,
        }
    }

    fn seen(wants: &[Want]) -> Vec<(Option<String>, Option<String>)> {
        let text = |sight: Sight| {
            let refs = match sight.refs {
                Refs::All => None,
                Refs::One(git_ref) => Some(git_ref.to_string()),
                Refs::Matching(patterns) => {
                    let texts: Vec<_> = patterns.iter().map(RefPattern::as_str).collect();
                    Some(texts.join(" "))
                }
            };
            (refs, sight.scope.map(|scope| scope.to_string()))
        };
        sights(wants).into_iter().map(text).collect()
    }

    #[test]
    fn a_build_that_finds_something_is_told_of_a_flush_that_took_something_for_half_a_day() {
        let told = |exports, hours: i32| {
            let note = FlushNote {
                project: "p".parse().unwrap(),
                git_ref: None,
                scope: None,
                at: Timestamp::UNIX_EPOCH,
                by: "alice".to_owned(),
                exports,
            };
            let now = Timestamp::from_second(3600 * i64::from(hours)).unwrap();
            (tells(&note, now), tells_beside(&note, now))
        };
        assert_eq!(told(1, 12), (true, true));
        assert_eq!(told(1, 13), (true, false));
        assert_eq!(told(0, 1), (true, false));
        // By a clock that is behind.
        assert_eq!(told(1, -1), (true, true));
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

    fn limited(want: Want, readable: &[&str]) -> Want {
        let patterns = readable.iter().map(|text| text.parse().unwrap());
        Want {
            readable: Some(patterns.collect()),
            ..want
        }
    }

    #[test]
    fn what_may_not_be_read_is_not_seen() {
        let wide = want(place("main", "s"), &[], false);
        let refs = ["refs/heads/release/*", "refs/heads/main"];
        let one = |text: &str| vec![(Some(text.to_owned()), Some("s".to_owned()))];
        assert_eq!(
            seen(&[limited(wide.clone(), &refs)]),
            one("refs/heads/main refs/heads/release/*")
        );
        assert_eq!(
            seen(&[limited(wide, &["**"])]),
            [(None, Some("s".to_owned()))]
        );
        let narrow = want(place("topic", "s"), &["main", "other"], true);
        assert_eq!(
            seen(&[limited(narrow.clone(), &refs)]),
            one("refs/heads/main")
        );
        assert!(seen(&[limited(narrow, &[])]).is_empty());
    }

    #[test]
    fn a_sight_by_patterns_has_the_refs_that_they_match_alone() {
        let wide = want(place("main", "s"), &[], false);
        let sights = sights(&[limited(wide, &["refs/heads/release/*"])]);
        let has = |git_ref| sights[0].has(&head(1, place(git_ref, "s")));
        assert!(has("release/1"));
        assert!(!has("main"));
    }
}
