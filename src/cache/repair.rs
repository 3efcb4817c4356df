//! Mending what a check found: what is damaged or missing is named no more, and
//! what nobody names is removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::check::{Problem, Report};
use super::{CacheError, LocalCache, Swept};
use crate::blobs::{BlobStore, DiskStore};
use crate::catalog::{Catalog, ExportId};
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
/// orphans for itself.
pub async fn repair(
    catalog: &Arc<dyn Catalog>,
    blobs: &Arc<dyn BlobStore>,
    disk: Option<&DiskStore>,
    report: &Report,
) -> Result<Repairs, CacheError> {
    let mut repairs = Repairs::default();
    for problem in &report.problems {
        match problem {
            Problem::Corrupt {
                digest, exports, ..
            }
            | Problem::WrongSize {
                digest, exports, ..
            } => {
                // Named no more before it is gone.
                catalog.retire(exports).await?;
                blobs.remove(digest).await?;
                repairs.retired.extend(exports);
                repairs.removed.insert(*digest);
            }
            Problem::Missing { exports, .. } if !exports.is_empty() => {
                catalog.retire(exports).await?;
                repairs.retired.extend(exports);
            }
            Problem::BadExport { export, .. } => {
                catalog.retire(&[*export]).await?;
                repairs.retired.insert(*export);
            }
            // An upload that is gone may come again; the disk says what it says.
            Problem::Missing { .. } | Problem::Unreadable { .. } => {
                repairs.left.push(problem.clone());
            }
        }
    }
    catalog.purge().await?;
    let cache = LocalCache::over(Arc::clone(catalog), Arc::clone(blobs));
    let orphans = cache.remove_orphans().await?;
    repairs.orphans = orphans.ok_or_else(CacheError::collecting)?.removed;
    if let Some(disk) = disk {
        repairs.uploads = disk.clear_unfinished().await?;
    }
    Ok(repairs)
}
