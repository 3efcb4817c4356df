//! Mending what a check found: what is damaged or missing is named no more, and
//! what nobody names is removed.
//!
//! A check takes hours, and others store and name blobs meanwhile: what it found
//! is looked at again right before anything goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::timeout;

use super::check::{Problem, Report, hash};
use super::local::{REMOVAL, in_time};
use super::{CacheError, LocalCache, Swept};
use crate::blobs::{BlobError, BlobStore, DiskStore, Version};
use crate::catalog::{CONDEMNED, Catalog, ExportId};
use crate::digest::Digest;

/// What was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// Exports that left the log, since they name what can't be served or can't
    /// be read themselves.
    pub retired: BTreeSet<ExportId>,
    /// Blobs that were not what they should be, and are gone.
    pub removed: BTreeSet<Digest>,
    /// Blobs that nothing named, and are gone.
    pub orphans: Swept,
    /// Uploads that were left behind, and are gone.
    pub uploads: u64,
    /// Problems that are left.
    pub left: Vec<Problem>,
}

/// Mends what `report` says. Another process that collects meanwhile keeps the
/// orphans for itself. A store and a log that have nothing in common are left
/// alone: most likely they are those of two caches.
pub async fn repair(
    catalog: &Arc<dyn Catalog>,
    blobs: &Arc<dyn BlobStore>,
    disk: Option<&DiskStore>,
    report: &Report,
) -> Result<Repairs, CacheError> {
    blobs.ready().await?;
    if let Some(why) = stranger(report) {
        return Err(CacheError::Refused(format!(
            "nothing is repaired: {why}; is it the store of that log? See --data-dir, --catalog and --blobs"
        )));
    }
    let cache = LocalCache::over(Arc::clone(catalog), Arc::clone(blobs));
    cache.bind().await?;
    let mut mending = Mending {
        catalog: &**catalog,
        blobs: &**blobs,
        repairs: Repairs::default(),
    };
    for problem in &report.problems {
        match problem {
            Problem::Corrupt { digest, .. } => mending.damaged(problem, digest, None).await?,
            Problem::WrongSize {
                digest, expected, ..
            } => mending.damaged(problem, digest, Some(*expected)).await?,
            Problem::Missing {
                digest,
                size,
                exports,
            } if !exports.is_empty() => mending.missing(digest, *size).await?,
            Problem::BadExport { export, .. } => mending.retire(&[*export]).await?,
            // An upload that is gone may come again; the disk says what it says.
            Problem::Missing { .. } | Problem::Unreadable { .. } => {
                mending.repairs.left.push(problem.clone());
            }
        }
    }
    let mut repairs = mending.repairs;
    catalog.purge().await?;
    let orphans = cache.remove_orphans().await?;
    repairs.orphans = orphans.ok_or_else(CacheError::collecting)?.removed;
    if let Some(disk) = disk {
        repairs.uploads = disk.clear_unfinished().await?;
    }
    Ok(repairs)
}

/// Why the store seems to be another one than that of the log.
fn stranger(report: &Report) -> Option<&'static str> {
    let nameless = |problem: &&Problem| match problem {
        Problem::Corrupt { exports, .. } => exports.is_empty(),
        Problem::Unreadable { .. } => true,
        _ => false,
    };
    let nameless = report.problems.iter().filter(nameless).count() + report.unreferenced.len();
    let missing = |problem: &Problem| matches!(problem, Problem::Missing { .. });
    if report.leased.blobs > 0 {
        return None;
    }
    if report.exports == 0 && report.blobs > 0 {
        return Some("there are blobs, and no export at all is in the log");
    }
    let none_is_there = report.blobs == nameless as u64;
    (none_is_there && report.problems.iter().any(missing))
        .then_some("not one of the blobs that the log names is there")
}

/// What became of a blob that was damaged.
enum Found {
    /// It was stored anew.
    Sound,
    /// It is gone.
    Absent,
    /// It is as it was, and these bytes are.
    Damaged(Version),
}

struct Mending<'a> {
    catalog: &'a dyn Catalog,
    blobs: &'a dyn BlobStore,
    repairs: Repairs,
}

impl Mending<'_> {
    async fn retire(&mut self, exports: &[ExportId]) -> Result<(), CacheError> {
        self.catalog.retire(exports).await?;
        self.repairs.retired.extend(exports);
        Ok(())
    }

    async fn missing(&mut self, digest: &Digest, size: u64) -> Result<(), CacheError> {
        if self.blobs.size(digest).await? == Some(size) {
            return Ok(());
        }
        let exports = self.catalog.naming(digest).await?;
        self.retire(&exports).await
    }

    /// It is hashed before it is condemned, which is for seconds only, however
    /// long hashing takes; whoever stores it anew meanwhile makes another version
    /// of it, and that stays.
    async fn damaged(
        &mut self,
        problem: &Problem,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<(), CacheError> {
        let found = match self.look(digest, expected).await {
            Ok(Found::Sound) => return Ok(()),
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(blob = %digest, %error, "a damaged blob could not be looked at again");
                self.repairs.left.push(problem.clone());
                return Ok(());
            }
        };
        let exports = self.catalog.naming(digest).await?;
        // Named no more before it is gone.
        self.retire(&exports).await?;
        let Found::Damaged(version) = found else {
            return Ok(());
        };
        self.catalog.purge().await?;
        // Who uploads it anew waits until it is gone. Where a lease keeps what
        // named it, it can't be condemned, and goes all the same: nobody can use
        // it, and who looks for it is to upload it.
        let began = self.catalog.now().await?;
        let condemned = self.catalog.condemn(&[*digest], CONDEMNED).await?;
        let removed = match self.blobs.version(digest).await {
            Ok(there) if there.as_ref() != Some(&version) => Some(false),
            Ok(_) if !in_time(self.catalog, began).await => None,
            // It may yet be removed: condemned until that is certain.
            Ok(_) => match timeout(REMOVAL, self.blobs.remove(digest)).await {
                Ok(removed) => removed.map(|()| Some(true))?,
                Err(_) => return self.leave(problem),
            },
            Err(_) => None,
        };
        match removed {
            Some(true) => {
                self.repairs.removed.insert(*digest);
            }
            Some(false) => {}
            None => self.leave(problem)?,
        }
        Ok(self.catalog.acquit(&condemned).await?)
    }

    fn leave(&mut self, problem: &Problem) -> Result<(), CacheError> {
        tracing::warn!(?problem, "a damaged blob could not be removed");
        self.repairs.left.push(problem.clone());
        Ok(())
    }

    /// What it is by now.
    async fn look(&self, digest: &Digest, expected: Option<u64>) -> Result<Found, BlobError> {
        let Some(version) = self.blobs.version(digest).await? else {
            return Ok(Found::Absent);
        };
        Ok(match self.is_sound(digest, expected).await? {
            true => Found::Sound,
            false => Found::Damaged(version),
        })
    }

    /// Whether it is by now what it should be.
    async fn is_sound(&self, digest: &Digest, expected: Option<u64>) -> Result<bool, BlobError> {
        let Some(size) = self.blobs.size(digest).await? else {
            return Ok(false);
        };
        let right = expected.is_none_or(|expected| expected == size);
        Ok(right && hash(self.blobs, digest, size, &|_| ()).await? == *digest)
    }
}
