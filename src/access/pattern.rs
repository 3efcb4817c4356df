//! Refs by pattern: `refs/heads/*`.
//!
//! `*` stands for any characters of one segment, none included, and `**` for
//! any characters at all, `/` included, as in the branch filters of GitHub's
//! workflows. Everything else stands for itself. As with a ref, a text that does
//! not start with `refs/` is about branches: `main` is `refs/heads/main`, and
//! `*` is `refs/heads/*`. Only `**` alone is every ref there is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::glob::{self, MAX_WILDCARDS};
use crate::place::{GitRef, InvalidName};

/// The pattern that every ref matches.
const EVERY: &str = "refs/**";

/// A pattern of refs; one without a wildcard is that one ref.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefPattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// With its wildcards filled in, it would be no ref.
    #[error("no ref looks like this: {0}")]
    Name(#[from] InvalidName),
    /// More wildcards than are looked at.
    #[error("it has more than {MAX_WILDCARDS} wildcards")]
    Wildcards,
    /// `***`.
    #[error("* is for one segment and ** for several; *** is neither")]
    Stars,
}

impl RefPattern {
    /// The pattern that every ref matches.
    pub fn every() -> Self {
        Self(EVERY.to_owned())
    }

    /// The text, whole: it starts with `refs/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only ref that matches, where the pattern has no wildcard.
    pub fn exact(&self) -> Option<GitRef> {
        // What has no wildcard was parsed as a ref.
        (!self.0.contains('*')).then(|| self.0.parse().ok())?
    }

    /// Whether every ref matches. A pattern that merely amounts to it, such as
    /// `refs**`, does not count.
    pub fn is_every(&self) -> bool {
        self.0 == EVERY
    }

    /// Whether a ref matches. The time is linear in the lengths of both, times
    /// the bounded number of wildcards.
    pub fn matches(&self, git_ref: &GitRef) -> bool {
        glob::matches(&self.0, git_ref.as_str())
    }
}

impl FromStr for RefPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text == "**" {
            return Ok(Self::every());
        }
        if text.contains("***") {
            return Err(InvalidPattern::Stars);
        }
        // A pattern is as good as the ref that it has when each wildcard stands
        // for one letter, and as long as that may be.
        let filled: GitRef = text.replace("**", "xx").replace('*', "x").parse()?;
        if glob::wildcards(text) > MAX_WILDCARDS {
            return Err(InvalidPattern::Wildcards);
        }
        let prefix = &filled.as_str()[..filled.as_str().len() - text.len()];
        Ok(Self(format!("{prefix}{text}")))
    }
}

impl From<GitRef> for RefPattern {
    fn from(git_ref: GitRef) -> Self {
        Self(git_ref.as_str().to_owned())
    }
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for RefPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RefPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> RefPattern {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn matches(text: &str, git_ref: &str) -> bool {
        pattern(text).matches(&git_ref.parse().unwrap())
    }

    #[test]
    fn a_star_stays_in_its_segment_and_two_do_not() {
        for (text, matching, other) in [
            ("main", "refs/heads/main", "refs/heads/main2"),
            ("refs/heads/*", "refs/heads/main", "refs/heads/feat/x"),
            ("*", "refs/heads/main", "refs/tags/v1"),
            ("refs/heads/**", "refs/heads/feat/x", "refs/tags/v1"),
            ("**", "refs/tags/v1", "refs/heads/.."),
            ("refs/pull/*/merge", "refs/pull/7/merge", "refs/pull/7/head"),
            ("release-*", "refs/heads/release-", "refs/heads/release"),
            ("a**b", "refs/heads/ax/y/b", "refs/heads/ax/y/c"),
            ("a/*/**/z", "refs/heads/a/b/c/d/z", "refs/heads/a/b/z"),
            ("a*a*a", "refs/heads/aaa", "refs/heads/aa"),
        ] {
            assert!(matches(text, matching), "{text} {matching}");
            if let Ok(other) = other.parse() {
                assert!(!pattern(text).matches(&other), "{text} {other}");
            }
        }
    }

    #[test]
    fn a_pattern_is_whole_however_it_was_written() {
        for (text, whole) in [
            ("main", "refs/heads/main"),
            ("feat/*", "refs/heads/feat/*"),
            ("**", "refs/**"),
            ("refs/tags/**", "refs/tags/**"),
        ] {
            assert_eq!(pattern(text).as_str(), whole);
            assert_eq!(pattern(whole), pattern(text));
        }
        assert_eq!(pattern("main").exact(), Some("main".parse().unwrap()));
        assert_eq!(pattern("*").exact(), None);
        assert!(pattern("**").is_every() && !pattern("refs/heads/**").is_every());
    }

    #[test]
    fn what_no_ref_could_match_is_no_pattern() {
        for text in [
            "",
            "/",
            "a//b",
            "../*",
            "a\0*",
            "a b*",
            "***",
            "a/***",
            "[ab]*",
            "a?",
            "*.lock",
            "refs/heads/",
            "\\*",
        ] {
            assert!(text.parse::<RefPattern>().is_err(), "{text:?}");
        }
        let many = "*/".repeat(MAX_WILDCARDS) + "*";
        assert_eq!(many.parse::<RefPattern>(), Err(InvalidPattern::Wildcards));
        assert!("x".repeat(2000).parse::<RefPattern>().is_err());
        assert!(serde_json::from_str::<RefPattern>("7").is_err());
    }

    /// The worst that fits: 16 wildcards, each of which could end anywhere. One
    /// that tried all ways would not come to an end.
    #[test]
    fn the_worst_pattern_is_done_with_soon() {
        for wildcard in ["*", "**"] {
            let text = format!("a{wildcard}").repeat(MAX_WILDCARDS) + "b";
            let git_ref = "a".repeat(1000);
            assert!(!matches(&text, &git_ref));
        }
    }

    /// What a pattern means, told as simply as possible.
    fn model(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| model(rest, &text[n..])),
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|n| !text[..*n].contains(&b'/'))
                .any(|n| model(rest, &text[n..])),
            [letter, rest @ ..] => text.first() == Some(letter) && model(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_the_model_says(
            text in "(refs/)?[ab*]{1,4}(/[ab*]{1,3}){0,3}",
            refs in prop::collection::vec("refs/(heads/)?[ab]{1,3}(/[ab]{1,3}){0,3}", 1..20),
        ) {
            if let Ok(pattern) = text.parse::<RefPattern>() {
                for git_ref in refs {
                    let git_ref: GitRef = git_ref.parse().unwrap();
                    let expected = model(pattern.as_str().as_bytes(), git_ref.as_str().as_bytes());
                    prop_assert_eq!(pattern.matches(&git_ref), expected, "{} {}", pattern, git_ref);
                }
            }
        }

        #[test]
        fn whatever_is_written_is_a_pattern_or_an_error(text in any::<String>()) {
            if let Ok(pattern) = text.parse::<RefPattern>() {
                prop_assert_eq!(pattern.as_str().parse(), Ok(pattern.clone()));
                pattern.matches(&GitRef::default());
            }
        }
    }
}
