//! Texts by pattern.
//!
//! `*` stands for any characters of one segment, none included, and `**` for
//! any characters at all, `/` included. Everything else stands for itself.

mod search;

use std::fmt;
use std::str::FromStr;

pub use self::search::{Effort, Found, find};

/// The most wildcards in one pattern: matching passes over a text once for each.
pub const MAX_WILDCARDS: usize = 16;

/// A piece of a pattern, cut where its wildcards are.
enum Part<'a> {
    Literal(&'a [u8]),
    Segment,
    Any,
}

/// How many wildcards a pattern has.
pub fn wildcards(pattern: &str) -> usize {
    let literal = |part: &Part<'_>| matches!(part, Part::Literal(_));
    parts(pattern).filter(|part| !literal(part)).count()
}

/// Whether a text matches. The time is linear in the lengths of both, times the
/// number of wildcards.
pub fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let Some(star) = pattern.find('*') else {
        return pattern.as_bytes() == text;
    };
    // What most texts differ in is cheap to see.
    let (start, pattern) = pattern.split_at(star);
    let Some(text) = text.strip_prefix(start.as_bytes()) else {
        return false;
    };
    // Whether what has been read of the pattern matches so much of the text.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in parts(pattern) {
        match part {
            // From the end, since each place is reached from one before it.
            Part::Literal(literal) => {
                for at in (0..reached.len()).rev() {
                    reached[at] = at
                        .checked_sub(literal.len())
                        .is_some_and(|from| reached[from] && &text[from..at] == literal);
                }
            }
            Part::Segment => spread(&mut reached, |at| text[at] != b'/'),
            Part::Any => spread(&mut reached, |_| true),
        }
    }
    reached[text.len()]
}

/// From every place that is reached, also those behind it, as far as the
/// wildcard takes what stands between.
fn spread(reached: &mut [bool], takes: impl Fn(usize) -> bool) {
    for at in 1..reached.len() {
        reached[at] |= reached[at - 1] && takes(at - 1);
    }
}

fn parts(pattern: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        let (part, length) = match rest.find('*') {
            None if rest.is_empty() => return None,
            None => (Part::Literal(rest.as_bytes()), rest.len()),
            Some(0) if rest.starts_with("**") => (Part::Any, 2),
            Some(0) => (Part::Segment, 1),
            Some(star) => (Part::Literal(&rest.as_bytes()[..star]), star),
        };
        rest = &rest[length..];
        Some(part)
    })
}

/// A pattern of any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        matches(&self.0, text)
    }

    /// What every text that matches starts with.
    pub fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// Whether one text alone matches.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("***") {
            return Err("* is for one segment and ** for several; *** is neither".to_owned());
        }
        if wildcards(text) > MAX_WILDCARDS {
            return Err(format!("it has more than {MAX_WILDCARDS} wildcards"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_says_neither_is_none() {
        assert!("a***".parse::<Glob>().is_err());
        assert!("*a".repeat(MAX_WILDCARDS + 1).parse::<Glob>().is_err());
        let glob: Glob = "acme/*".parse().unwrap();
        assert!(glob.matches("acme/") && !glob.matches("acme/shop/x"));
        assert_eq!((glob.prefix(), glob.is_exact()), ("acme/", false));
    }
}
