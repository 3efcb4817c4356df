//! The digest of a record: a cache key, and no blob's name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// Longer than any algorithm's name and hex digits.
const MAX_LENGTH: usize = 256;

/// What a step is without its inputs: `algorithm:encoded`, as in the OCI image
/// specification. Any algorithm may stand here, since nothing is ever hashed
/// to be compared with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RecordDigest(Arc<str>);

impl RecordDigest {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parsed(text: &str) -> Option<Self> {
        let (algorithm, encoded) = text.split_once(':')?;
        let algorithm_ok = algorithm.split(['+', '.', '_', '-']).all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        let encoded_ok = !encoded.is_empty()
            && encoded
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte));
        (text.len() <= MAX_LENGTH && algorithm_ok && encoded_ok).then(|| Self(text.into()))
    }
}

/// A text that is no digest of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected algorithm:encoded")]
pub struct InvalidRecordDigest;

impl FromStr for RecordDigest {
    type Err = InvalidRecordDigest;

    fn from_str(text: &str) -> Result<Self, InvalidRecordDigest> {
        Self::parsed(text).ok_or(InvalidRecordDigest)
    }
}

impl fmt::Display for RecordDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RecordDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_algorithm_of_the_image_specification_parses() {
        for text in [
            "sha256:00ff",
            "sha512:Ab",
            "random:abc",
            "multihash+base58:QmRZ",
            "a.b_c-d:x=_-",
        ] {
            assert_eq!(RecordDigest::parsed(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_digest_does_not_parse() {
        for text in [
            "",
            ":",
            "sha256",
            "sha256:",
            ":00",
            "SHA256:00",
            "sha256:a/b",
            "a++b:0",
            "sha256:a b",
            "sha256:a:b",
        ] {
            assert_eq!(RecordDigest::parsed(text), None, "{text:?}");
        }
        assert_eq!(
            RecordDigest::parsed(&format!("sha256:{}", "0".repeat(MAX_LENGTH))),
            None
        );
    }
}
