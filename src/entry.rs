//! What an entry of GitHub's cache is called: a key, and the version of what
//! made it.
//!
//! Both are types that can only be built valid, as those of
//! [`place`](crate::place) are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The longest key and version, in characters: `@actions/cache` takes no longer
/// key (`checkKey` in `packages/cache/src/cache.ts`), and neither does GitHub.
pub const MAX_KEY: usize = 512;

/// The greatest character: no key holds it, so that it ends the range of all
/// that begin with a key.
const LAST: char = '\u{10ffff}';

/// Why a text is no key and no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_KEY`].
    #[error("it is longer than {MAX_KEY} characters")]
    TooLong,
    /// A comma, which separates keys in a request, or a control character.
    #[error("it holds a comma or a control character")]
    Forbidden,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text, as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidKey;

            fn from_str(text: &str) -> Result<Self, InvalidKey> {
                parse(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text!(
    /// What a client calls an entry: `linux-cargo-1f3a`. Case counts.
    EntryKey
);

text!(
    /// How the client made it: a digest of paths and compression. Entries of
    /// other versions are not seen.
    EntryVersion
);

impl EntryKey {
    /// What all that begins with this key comes before, by bytes.
    pub(crate) fn end(&self) -> String {
        format!("{}{LAST}", self.0)
    }
}

/// Both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct EntryName {
    /// The key.
    #[schema(value_type = String)]
    pub key: EntryKey,
    /// The version.
    #[schema(value_type = String)]
    pub version: EntryVersion,
}

fn parse(text: &str) -> Result<String, InvalidKey> {
    if text.is_empty() {
        return Err(InvalidKey::Empty);
    }
    if text.chars().nth(MAX_KEY).is_some() {
        return Err(InvalidKey::TooLong);
    }
    if text.contains(|letter: char| letter.is_control() || letter == ',' || letter == LAST) {
        return Err(InvalidKey::Forbidden);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<EntryKey, InvalidKey> {
        text.parse()
    }

    #[test]
    fn a_key_is_taken_as_it_is_or_not_at_all() {
        assert_eq!(key(" Linux-é/1 ").unwrap().as_str(), " Linux-é/1 ");
        assert_eq!(key(""), Err(InvalidKey::Empty));
        assert_eq!(key(&"é".repeat(513)), Err(InvalidKey::TooLong));
        assert!(key(&"é".repeat(512)).is_ok());
        for text in ["a,b", "a\nb", "a\0", "\u{10ffff}"] {
            assert_eq!(key(text), Err(InvalidKey::Forbidden), "{text:?}");
        }
    }

    #[test]
    fn what_begins_with_a_key_lies_between_it_and_its_end() {
        let begin = key("go").unwrap();
        for text in ["go", "go-1", "goé", "go\u{10fffe}\u{10fffe}"] {
            assert!(*text >= *begin.as_str() && *text < *begin.end(), "{text}");
        }
        for text in ["g", "gn", "gp", "Go"] {
            assert!(
                !(*text >= *begin.as_str() && *text < *begin.end()),
                "{text}"
            );
        }
    }
}
