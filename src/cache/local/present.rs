//! Which of the blobs that a union names are there.
//!
//! Thousands of files are looked at, so that what was found is kept as long as
//! nothing came or went in the store.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::LocalCache;
use super::open::Opened;
use super::unions::United;
use crate::blobs::Generation;
use crate::cache::{Cache as _, CacheError};
use crate::digest::Digest;

/// How long a look-up may hash blobs that are under suspicion.
const SUSPICION: Duration = Duration::from_secs(1);

impl LocalCache {
    /// Whether each of these blobs is in the store, with that many bytes.
    pub async fn are_there(&self, blobs: &[(Digest, u64)]) -> Result<Vec<bool>, CacheError> {
        let opened = self.opener.opened().await?;
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let found = opened.blobs.sizes(&digests).await?;
        let found = found.into_iter().zip(blobs);
        Ok(found
            .map(|(found, (_, size))| found == Some(*size))
            .collect())
    }

    /// Blobs of `united` that are not as recorded, gone or of another size, or
    /// that could not be read.
    pub(super) async fn absent(
        &self,
        opened: &Opened,
        united: &mut United,
        generation: Option<Generation>,
    ) -> Result<HashSet<Digest>, CacheError> {
        let mut absent = self.gone(opened, united, generation).await?;
        absent.extend(self.verified.avoided(Instant::now()));
        Ok(absent)
    }

    /// Whether blobs are under suspicion, and it is for this look-up to hash
    /// them; not to be done while it keeps others from the union.
    pub(super) fn is_to_look(&self) -> bool {
        self.verified.is_suspect() && self.verified.may_look(Instant::now())
    }

    /// Hashes these, for a while; gives those that are not what they should be.
    pub(super) async fn wrong(&self, blobs: &HashMap<Digest, u64>) -> HashSet<Digest> {
        let mut wrong = HashSet::new();
        let looking = async {
            for blob in blobs.keys() {
                if self.verify(blob).await.is_err() {
                    wrong.insert(*blob);
                }
            }
        };
        // What is not reached now may be by the next look-up.
        if tokio::time::timeout(SUSPICION, looking).await.is_ok() {
            self.verified.trust();
        }
        wrong
    }

    /// Blobs of `united` that are gone or of another size; looked for once
    /// where nothing has come or gone since.
    async fn gone(
        &self,
        opened: &Opened,
        united: &mut United,
        generation: Option<Generation>,
    ) -> Result<HashSet<Digest>, CacheError> {
        if let Some((at, gone)) = &united.gone
            && generation.as_ref() == Some(at)
            && !self.verified.is_suspect()
        {
            return Ok(gone.clone());
        }
        let recorded: Vec<Digest> = united.blobs.keys().copied().collect();
        let found = opened.blobs.sizes(&recorded).await?;
        let gone = recorded.iter().zip(&found);
        let gone = gone.filter(|(blob, found)| **found != united.blobs.get(blob).copied());
        let gone: HashSet<Digest> = gone.map(|(blob, _)| *blob).collect();
        united.gone = generation.map(|at| (at, gone.clone()));
        Ok(gone)
    }
}
