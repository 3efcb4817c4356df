//! What BuildKit means by a key.
//!
//! Its exporter saves layers as `buildkit-blob-1-<digest>` and the index as
//! `index-<scope>-1-<8 hex of sha256(ref)>#<number>`; the importer looks for the
//! index by what comes before `#` (`cache/remotecache/gha/gha.go` in BuildKit,
//! `SaveMutable` in go-actions-cache). Signed ones end in `-sig`: they and all
//! others mean nothing but themselves.

use crate::digest::Digest;
use crate::entry::EntryName;
use crate::place::{GitRef, Scope};

/// The version of what BuildKit saves: sha256 of `|go-actionscache-1.0`
/// (`version` in go-actions-cache). A key of another version is anybody's.
pub const BUILDKIT_VERSION: &str =
    "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2";

/// What a key of an entry means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A layer.
    Blob(Digest),
    /// The index of a scope.
    Index {
        /// The scope.
        scope: Scope,
        /// How the sha256 of its ref begins, in hex.
        hash: String,
        /// What follows the `#`, if there is one.
        number: Option<String>,
    },
    /// Nothing but itself.
    Entry,
}

impl Meaning {
    /// What is meant by that name.
    pub fn of(name: &EntryName) -> Self {
        if name.version.as_str() != BUILDKIT_VERSION {
            return Self::Entry;
        }
        let key = name.key.as_str();
        if let Some(digest) = key.strip_prefix("buildkit-blob-1-") {
            return digest.parse().map_or(Self::Entry, Self::Blob);
        }
        index(key).unwrap_or(Self::Entry)
    }
}

fn index(key: &str) -> Option<Meaning> {
    let rest = key.strip_prefix("index-")?;
    let (rest, number) = match rest.rsplit_once('#') {
        Some((rest, number)) if number.bytes().all(|digit| digit.is_ascii_digit()) => {
            (rest, Some(number.to_owned()))
        }
        _ => (rest, None),
    };
    let (scope, hash) = rest.rsplit_once("-1-")?;
    let is_hash = hash.len() == HASH
        && hash
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_hash.then_some(Meaning::Index {
        scope: scope.parse().ok()?,
        hash: hash.to_owned(),
        number,
    })
}

/// How many digits there are of a ref.
const HASH: usize = 8;

/// Whether a ref is the one with that hash. A token may have called it by its
/// short name, or the default one by none (Gitea's and act's do).
pub(crate) fn is_of(git_ref: &GitRef, hash: &str) -> bool {
    let full = git_ref.as_str();
    let short = full.strip_prefix("refs/heads/");
    let unnamed = (*git_ref == GitRef::default()).then_some("");
    let mut names = [Some(full), short, unnamed].into_iter().flatten();
    names.any(|name| Digest::of(name.as_bytes()).hex().starts_with(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, version: &str) -> Meaning {
        Meaning::of(&EntryName {
            key: key.parse().unwrap(),
            version: version.parse().unwrap(),
        })
    }

    #[test]
    fn buildkits_version_is_that_of_its_client() {
        assert_eq!(Digest::of(b"|go-actionscache-1.0").hex(), BUILDKIT_VERSION);
    }

    #[test]
    fn layers_and_indexes_are_known_by_their_keys_and_nothing_else_is() {
        let blob = Digest::of(b"layer");
        assert_eq!(
            of(&format!("buildkit-blob-1-{blob}"), BUILDKIT_VERSION),
            Meaning::Blob(blob)
        );
        let index = |scope: &str, number: Option<&str>| Meaning::Index {
            scope: scope.parse().unwrap(),
            hash: "0123abcd".to_owned(),
            number: number.map(str::to_owned),
        };
        for (key, meaning) in [
            ("index-buildkit-1-0123abcd", index("buildkit", None)),
            ("index-buildkit-1-0123abcd#", index("buildkit", Some(""))),
            (
                "index-buildkit-1-0123abcd#17",
                index("buildkit", Some("17")),
            ),
            ("index-a-1-b#c-1-0123abcd#1", index("a-1-b#c", Some("1"))),
            ("index-buildkit-1-0123abcd-sig#1", Meaning::Entry),
            ("index-buildkit-1-0123abcd#x", Meaning::Entry),
            ("index-buildkit-1-0123ABCD#1", Meaning::Entry),
            ("index-buildkit-2-0123abcd#1", Meaning::Entry),
            ("index--1-0123abcd#1", Meaning::Entry),
            ("buildkit-blob-1-sha256:00", Meaning::Entry),
            ("npm-1", Meaning::Entry),
        ] {
            assert_eq!(of(key, BUILDKIT_VERSION), meaning, "{key}");
        }
        assert_eq!(
            of(&format!("buildkit-blob-1-{blob}-sig"), BUILDKIT_VERSION),
            Meaning::Entry
        );
        assert_eq!(
            of(&format!("buildkit-blob-1-{blob}"), "other"),
            Meaning::Entry
        );
    }

    #[test]
    fn a_ref_is_known_by_its_hash_under_either_name() {
        let main = GitRef::default();
        for name in ["refs/heads/main", "main", ""] {
            assert!(
                is_of(&main, &Digest::of(name.as_bytes()).hex()[..8]),
                "{name}"
            );
        }
        assert!(!is_of(&main, &Digest::of(b"dev").hex()[..8]));
    }
}
