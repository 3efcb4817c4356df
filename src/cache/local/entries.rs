//! Entries of GitHub's cache, as they are looked for and read; how they come in
//! is in `intake`, for how much of that there is room in `room`, and what becomes
//! of it in `outcome`.

mod intake;
mod order;
mod outcome;
mod room;

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OnceCell};

use self::room::Uploading;
use super::LocalCache;
use super::pinning::Names;
use crate::cache::CacheError;
use crate::cache::entries::{EntryKey, EntryVersion, Part, Reader};
use crate::catalog::ExportId;
use crate::catalog::entries::EntryHead;
use crate::digest::Digest;
use crate::place::{GitRef, Place, ProjectId};

/// How long what was found can be read, though it has left the log: nobody is
/// there to renew a lease.
const READABLE: Duration = Duration::from_secs(2 * 3600);
/// How long one lease stands for all that is found.
const YOUNG: Duration = Duration::from_secs(300);
/// How long taking one may hold a look-up up.
const LIMIT: Duration = Duration::from_millis(500);
/// What the secret is called that signs addresses.
const SECRET: &str = "entries";

/// What one process remembers.
#[derive(Debug, Default)]
pub(super) struct Served {
    secret: OnceCell<[u8; 32]>,
    /// When a lease was taken for readers.
    leased: Mutex<Option<Instant>>,
    uploading: Uploading,
}

impl LocalCache {
    /// What is found from now on can be read for two hours, where the catalog
    /// takes writes: else nothing leaves it, or by somebody who can't know.
    pub(in crate::cache) async fn keep_for_readers(&self) {
        let taken = tokio::time::timeout(LIMIT, async {
            let mut leased = self.entries.leased.lock().await;
            if leased.is_some_and(|taken| taken.elapsed() < YOUNG) {
                return Ok(());
            }
            let opened = self.opener.opened_for_writing().await?;
            opened.catalog.take_lease(READABLE + YOUNG).await?;
            *leased = Some(Instant::now());
            Ok::<_, CacheError>(())
        });
        match taken.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no lease could be taken for readers"),
            Err(_) => tracing::debug!("the catalog gave no lease for readers in time"),
        }
    }

    /// As [`Entries::find_entry`](crate::catalog::Entries::find_entry); it was of
    /// use then.
    pub(in crate::cache) async fn find_entry(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        keys: &[EntryKey],
        version: &EntryVersion,
    ) -> Result<Option<EntryHead>, CacheError> {
        let opened = self.opener.opened().await?;
        let found = opened.catalog.find_entry(project, refs, keys, version);
        let found = found.await?;
        if let Some(entry) = &found
            && opened.catalog.refusal().is_none()
            && let Err(error) = opened.catalog.note_entry_use(entry.id).await
        {
            tracing::warn!(export = %entry.id, %error, "that an entry was of use is not noted");
        }
        Ok(found)
    }

    pub(in crate::cache) async fn open_entry(
        &self,
        entry: ExportId,
    ) -> Result<Option<Reader>, CacheError> {
        let opened = self.opener.opened().await?;
        let layers = opened.catalog.entry_layers(entry).await?;
        Ok(layers.map(|layers| self.reader(layers)))
    }

    pub(in crate::cache) async fn open_blob(
        &self,
        digest: Digest,
        size: u64,
    ) -> Result<Option<Reader>, CacheError> {
        if self.blobs.size(&digest).await? != Some(size) {
            return Ok(None);
        }
        self.used.read(&digest);
        Ok(Some(self.reader(vec![(digest, size)])))
    }

    fn reader(&self, parts: Vec<(Digest, u64)>) -> Reader {
        let part = |(digest, size)| Part { digest, size };
        let parts = parts.into_iter().map(part).collect();
        Reader::new(self.blobs.clone(), parts)
    }

    pub(in crate::cache) async fn entry_secret(&self) -> Result<[u8; 32], CacheError> {
        let made = self.entries.secret.get_or_try_init(|| async {
            let opened = self.opener.opened_for_writing().await?;
            let fresh: [u8; 32] = rand::random();
            Ok::<_, CacheError>(opened.catalog.secret(SECRET, &fresh).await?)
        });
        made.await.copied()
    }

    /// The size of a blob that is there, which an export to `place` may name from
    /// now on, for so long.
    pub(in crate::cache) async fn possess_there(
        &self,
        place: &Place,
        digest: Digest,
        ttl: Duration,
    ) -> Result<Option<u64>, CacheError> {
        let opened = self.opener.opened_for_writing().await?;
        let names = match Names::pin(&opened, &place.project, vec![digest]).await {
            Ok(names) => names,
            Err(CacheError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = opened.blobs.size(&digest).await?;
        if let Some(size) = size {
            let blob = [(digest, size)];
            let of = (&place.project, &place.git_ref);
            opened.catalog.possess(of.0, of.1, &blob, ttl).await?;
        }
        self.subsuming.let_go(opened, names, false);
        Ok(size)
    }
}
