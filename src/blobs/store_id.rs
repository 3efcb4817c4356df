//! Which store it is: a number that it was given when it was first used, and
//! that its catalog has noted. What a catalog does not name is removed, so that
//! no store may have two.

use std::fmt;
use std::str::FromStr;

use super::BlobError;

/// The number of a store, shown as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(u128);

/// That a text is no such number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the number of a store: expected 32 hex digits")]
pub struct InvalidStoreId;

/// When a number is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// If there is none yet.
    First,
    /// In place of any that there is.
    Anew,
}

impl StoreId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// What is in a store at `place`, as its number.
    pub(super) fn read(bytes: &[u8], place: &str) -> Result<Self, BlobError> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        text.trim().parse().map_err(|why| BlobError::Io {
            context: format!("cannot tell which store {place} is"),
            source: std::io::Error::other::<InvalidStoreId>(why),
        })
    }

    /// What is written into a store.
    pub(super) fn written(self) -> Vec<u8> {
        format!("{self}\n").into_bytes()
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = InvalidStoreId;

    fn from_str(text: &str) -> Result<Self, InvalidStoreId> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parsed = is_plain.then(|| u128::from_str_radix(text, 16).ok());
        parsed.flatten().map(Self).ok_or(InvalidStoreId)
    }
}
