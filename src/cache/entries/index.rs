//! The index that BuildKit reads, made anew for each that reads it.
//!
//! Whoever was told of one bears an address that says what they may see. What is
//! served is the union of that moment, which any hub can put together.

use bytes::Bytes;

use super::Entries;
use crate::cache::{Cache as _, CacheError, Documents, Form, Limits, LookedUp, Want};

/// Of an index: as many records as an import by a sidecar has, in one document.
pub(in crate::cache) const LIMITS: Limits = Limits {
    records: 10_000,
    form: Form::Whole,
};

impl Entries {
    /// The index of all that `want` sees; none where that is nothing.
    pub async fn index(&self, want: Want) -> Result<Option<Bytes>, CacheError> {
        match self.local.look_up(&[want], &LIMITS).await? {
            LookedUp::Import(import) => match import.documents {
                Documents::Whole(index) => Ok(Some(index)),
                Documents::Parts { .. } => Ok(None),
            },
            LookedUp::Nothing(_) => Ok(None),
        }
    }
}
