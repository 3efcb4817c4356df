//! What clients of both versions say, taken apart.
//!
//! Those of the second version speak twirp's JSON, in which a number of 64 bits
//! may be a text, names may be written in two ways, and what is empty is left
//! out (protobuf.dev/programming-guides/json). What is not known is skipped:
//! newer clients say more.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::address::single;
use super::failure::Failure;
use crate::entry::{EntryKey, EntryName, EntryVersion, InvalidKey};

/// Keys of one look-up. `@actions/cache` takes 10, and BuildKit says its own
/// twice.
pub const MAX_KEYS: usize = 32;

/// `CreateCacheEntryRequest`.
#[derive(Debug, Deserialize)]
pub struct Create {
    key: String,
    version: String,
}

/// `FinalizeCacheEntryUploadRequest`.
#[derive(Debug, Deserialize)]
pub struct Finalize {
    key: String,
    version: String,
    /// What the upload has to have, in bytes.
    #[serde(
        default,
        alias = "sizeBytes",
        rename = "size_bytes",
        deserialize_with = "number"
    )]
    pub size: u64,
}

/// `GetCacheEntryDownloadURLRequest`.
#[derive(Debug, Deserialize)]
pub struct Find {
    key: String,
    #[serde(default, alias = "restoreKeys")]
    restore_keys: Option<Vec<String>>,
    version: String,
}

/// The first version's request to reserve a key.
#[derive(Debug, Deserialize)]
pub struct Reserve {
    key: String,
    version: String,
    /// What will come, in bytes, as far as the client knows.
    #[serde(default, rename = "cacheSize")]
    pub size: Option<u64>,
}

/// The first version's end of an upload.
#[derive(Debug, Deserialize)]
pub struct Commit {
    /// What the upload has to have, in bytes.
    pub size: u64,
}

/// What is looked for.
#[derive(Debug, PartialEq, Eq)]
pub struct LookUp {
    /// The keys, those that count more first.
    pub keys: Vec<EntryKey>,
    /// Their version.
    pub version: EntryVersion,
}

impl Create {
    /// What is reserved.
    pub fn name(&self) -> Result<EntryName, Failure> {
        name(&self.key, &self.version)
    }
}

impl Finalize {
    /// What was reserved.
    pub fn name(&self) -> Result<EntryName, Failure> {
        name(&self.key, &self.version)
    }
}

impl Reserve {
    /// What is reserved.
    pub fn name(&self) -> Result<EntryName, Failure> {
        name(&self.key, &self.version)
    }
}

impl Find {
    /// What is looked for.
    pub fn look_up(&self) -> Result<LookUp, Failure> {
        let restore = self.restore_keys.iter().flatten().map(String::as_str);
        look_up(
            [self.key.as_str()].into_iter().chain(restore),
            &self.version,
        )
    }
}

/// What the first version looks for: `keys=a,b&version=v`.
pub fn look_up_of(query: &str) -> Result<LookUp, Failure> {
    let value = |name: &str| {
        let value = single(query, name)?;
        value.ok_or_else(|| Failure::invalid(format!("{name} is missing")))
    };
    let (keys, version) = (value("keys")?, value("version")?);
    look_up(keys.split(','), &version)
}

fn look_up<'a>(keys: impl Iterator<Item = &'a str>, version: &str) -> Result<LookUp, Failure> {
    let mut found: Vec<EntryKey> = Vec::new();
    for key in keys {
        let key = parsed("key", key)?;
        // Twice the same in a row is what BuildKit says.
        if found.last() != Some(&key) {
            found.push(key);
        }
        if found.len() > MAX_KEYS {
            let text = format!("at most {MAX_KEYS} keys are looked for at once");
            return Err(Failure::invalid(text));
        }
    }
    Ok(LookUp {
        keys: found,
        version: parsed("version", version)?,
    })
}

fn name(key: &str, version: &str) -> Result<EntryName, Failure> {
    Ok(EntryName {
        key: parsed("key", key)?,
        version: parsed("version", version)?,
    })
}

fn parsed<T: std::str::FromStr<Err = InvalidKey>>(what: &str, text: &str) -> Result<T, Failure> {
    let parsed = text.parse();
    parsed
        .map_err(|error: InvalidKey| Failure::invalid(format!("the {what} can't be used: {error}")))
}

/// A number, or a text of digits.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Either;

    impl Visitor<'_> for Either {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.ok_or_else(|| E::custom("not a number of bytes"))
        }
    }

    deserializer.deserialize_any(Either)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(look_up: &LookUp) -> Vec<&str> {
        look_up.keys.iter().map(EntryKey::as_str).collect()
    }

    #[test]
    fn a_size_is_a_number_or_a_text_and_may_be_left_out() {
        for (text, size) in [
            (r#"{"key":"k","version":"v","size_bytes":7}"#, 7),
            (r#"{"key":"k","version":"v","size_bytes":"7"}"#, 7),
            (r#"{"key":"k","version":"v","sizeBytes":"7"}"#, 7),
            (r#"{"key":"k","version":"v"}"#, 0),
            (r#"{"key":"k","version":"v","metadata":{"a":[1]}}"#, 0),
        ] {
            let finalize: Finalize = serde_json::from_str(text).unwrap();
            assert_eq!(finalize.size, size, "{text}");
            assert_eq!(finalize.name().unwrap().key.as_str(), "k");
        }
        for size in [
            "-1", "1.5", "\"-1\"", "\"\"", "\"1e3\"", "null", "true", "[]",
        ] {
            let text = format!(r#"{{"key":"k","version":"v","size_bytes":{size}}}"#);
            assert!(serde_json::from_str::<Finalize>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_come_in_their_order_and_once_in_a_row() {
        for (text, expected) in [
            (r#"{"key":"a","version":"v"}"#, vec!["a"]),
            (
                r#"{"key":"a","version":"v","restore_keys":null}"#,
                vec!["a"],
            ),
            (
                r#"{"key":"a","version":"v","restore_keys":["a","b","a"]}"#,
                vec!["a", "b", "a"],
            ),
            (
                r#"{"key":"a","version":"v","restoreKeys":["c"]}"#,
                vec!["a", "c"],
            ),
        ] {
            let find: Find = serde_json::from_str(text).unwrap();
            assert_eq!(keys(&find.look_up().unwrap()), expected, "{text}");
        }
        let first = look_up_of("keys=a%2Fb,c+d&version=v&x=y").unwrap();
        assert_eq!(keys(&first), ["a/b", "c d"]);
        let first = look_up_of("version=v&keys=a%2Cb").unwrap();
        assert_eq!(keys(&first), ["a", "b"]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(513);
        let many = ["a", "b"].repeat(MAX_KEYS).join(",");
        for query in [
            "",
            "keys=a",
            "version=v",
            "keys=&version=v",
            "keys=a,,b&version=v",
            "keys=a&keys=a&version=v",
            "keys=a&version=v&version=w",
            "keys=a&version=",
            &format!("keys={long}&version=v"),
            &format!("keys=a&version={long}"),
            &format!("keys={many}&version=v"),
            "keys=a%00&version=v",
        ] {
            assert!(look_up_of(query).is_err(), "{query}");
        }
        for text in [
            r#"{"key":1,"version":"v"}"#,
            r#"{"key":"k"}"#,
            r#"{"version":"v"}"#,
            r#"{"key":null,"version":"v"}"#,
            r#"{"key":["k"],"version":"v"}"#,
        ] {
            assert!(serde_json::from_str::<Create>(text).is_err(), "{text}");
        }
        let comma: Create = serde_json::from_str(r#"{"key":"a,b","version":"v"}"#).unwrap();
        assert!(comma.name().is_err());
    }
}
