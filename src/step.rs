//! A step of a build, by the name that its user knows it by.
//!
//! The name is text out of somebody's Dockerfile: it may hold anything, and is
//! shown on terminals and kept for as long as the export that it belongs to.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::digest::RecordDigest;

/// Bytes of a name that are kept.
const MAX_NAME: usize = 300;
/// What stands for the rest of a longer one.
const MORE: char = '…';

/// What a builder calls a step, `[build 3/5] RUN make`: one line of at most 300
/// bytes, and nothing in it that a terminal would obey.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StepName(String);

impl StepName {
    /// The name in that text: cut, and with a replacement character for each
    /// character that is not to be shown.
    pub fn of(text: &str) -> Self {
        let shown = |letter: char| {
            if letter.is_whitespace() {
                ' '
            } else if is_steering(letter) {
                char::REPLACEMENT_CHARACTER
            } else {
                letter
            }
        };
        let mut name = String::new();
        for letter in text.trim().chars().map(shown) {
            if name.len() + letter.len_utf8() > MAX_NAME {
                while name.len() + MORE.len_utf8() > MAX_NAME {
                    name.pop();
                }
                name.push(MORE);
                break;
            }
            name.push(letter);
        }
        Self(name)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether a character steers what shows it, and shows nothing itself: control
/// characters, those that turn the direction of text, and tags, which hide text
/// in text.
fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The step that made a result of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The record: not unique by itself.
    pub record: RecordDigest,
    /// When the result was made, as the record says to the nanosecond.
    pub created_at: Timestamp,
    /// What the build that ran it called it.
    pub name: StepName,
    /// How long it ran there, to the millisecond.
    pub duration: Duration,
    /// Who ran it; unknown until it is published, and of an export that an
    /// older layerd wrote.
    pub origin: Option<Origin>,
}

/// Where a step ran.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The host.
    pub builder: String,
    /// The daemon, as far as it said which one it is.
    pub daemon: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_name_stays_as_it_is() {
        let name = "[build 3/5] RUN make && echo ü";
        assert_eq!(StepName::of(name).as_str(), name);
    }

    #[test]
    fn nothing_in_a_name_steers_a_terminal() {
        let name = StepName::of("RUN \u{1b}[2J\u{7}\u{9b}31m\r\nx\u{202e}y\u{61c}\u{e0041}\tz");
        assert_eq!(
            name.as_str(),
            "RUN \u{fffd}[2J\u{fffd}\u{fffd}31m  x\u{fffd}y\u{fffd}\u{fffd} z"
        );
    }

    proptest! {
        #[test]
        fn any_name_is_one_short_line_and_stays_so(text in any::<String>(), times in 1..200_usize) {
            let name = StepName::of(&text.repeat(times));
            prop_assert!(name.as_str().len() <= MAX_NAME);
            prop_assert!(!name.as_str().chars().any(is_steering));
            prop_assert_eq!(StepName::of(name.as_str()), name);
        }
    }
}
