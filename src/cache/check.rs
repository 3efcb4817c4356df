//! Whether what is stored is what was stored: every blob hashed again, every
//! export held against the blobs that it names.

use std::collections::{BTreeMap, HashSet};

use futures::StreamExt as _;
use futures::stream::TryStreamExt as _;
use serde::Serialize;

use super::CacheError;
use crate::blobs::{BlobError, BlobStore, DiskStore};
use crate::catalog::{Catalog, ExportId, Filter, Kind};
use crate::digest::{Digest, Hasher};
use crate::graph::Config;

/// Exports read at a time.
const PAGE: u32 = 256;
/// Blobs of which is asked at a time who keeps them.
const BLOBS: usize = 4096;

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Exports in the log.
    pub exports: u64,
    /// Blobs in the store, without those that leases keep.
    pub blobs: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// What has left the log, and is still kept for builds that may read it.
    pub leased: Leased,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
    /// Blobs that no export names: uploads whose export never came, or is
    /// still to come.
    pub unreferenced: Vec<Unreferenced>,
    /// Uploads that were left behind and that nobody writes to now.
    pub stale_ingests: Vec<StaleIngest>,
}

/// What leases alone keep. Nobody is served it any more, so that nothing of it
/// that is missing is a problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leased {
    /// Exports that have left the log.
    pub exports: u64,
    /// Blobs that only those name, and that are there.
    pub blobs: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Such blobs that are not there.
    pub missing: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// The bytes are not those of the name.
    Corrupt {
        /// The blob.
        digest: Digest,
        /// What its bytes hash to.
        actual: Digest,
        /// The exports that name it.
        exports: Vec<ExportId>,
    },
    /// The blob has more or fewer bytes than its exports recorded.
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Bytes recorded.
        expected: u64,
        /// Bytes found.
        actual: u64,
        /// The exports that name it.
        exports: Vec<ExportId>,
    },
    /// Exports name a blob that is not there.
    Missing {
        /// The blob.
        digest: Digest,
        /// Bytes recorded.
        size: u64,
        /// The exports that name it.
        exports: Vec<ExportId>,
    },
    /// A blob could not be read to its end.
    Unreadable {
        /// The blob.
        digest: Digest,
        /// What the system said.
        error: String,
    },
    /// An export can't be read, or its config does not parse.
    BadExport {
        /// The export.
        export: ExportId,
        /// What is wrong with it.
        error: String,
    },
}

/// A blob that no export names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unreferenced {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An upload that was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StaleIngest {
    /// Its file.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Checks everything, `parallel` blobs at a time; tells `progress` the bytes
/// of each chunk that was hashed.
///
/// `disk` is the store, where that is one: what was left behind is only seen
/// there.
pub async fn check(
    blobs: &dyn BlobStore,
    disk: Option<&DiskStore>,
    catalog: &dyn Catalog,
    parallel: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Report, CacheError> {
    let mut report = Report::default();
    // The log first: a blob is there before an export names it, so what comes
    // in meanwhile is never reported as missing.
    let mut referenced = referenced(catalog).await?;
    report.leased.exports = catalog.leased().await?;
    check_exports(catalog, &mut report).await?;

    let mut hashed = blobs
        .list()
        .await?
        .map(|listed| async {
            let (digest, size) = listed?;
            Ok::<_, BlobError>((digest, size, hash(blobs, &digest, size, progress).await))
        })
        .buffer_unordered(parallel);
    let (mut wrong, mut unreadable) = (Vec::new(), Vec::new());
    while let Some((digest, size, actual)) = hashed.try_next().await? {
        let recorded = referenced.remove(&digest);
        if let (
            Some(Reference {
                size: expected,
                lasts: false,
            }),
            Ok(actual),
        ) = (&recorded, &actual)
            && (*expected, *actual) == (size, digest)
        {
            report.leased.blobs += 1;
            report.leased.bytes += size;
            continue;
        }
        report.blobs += 1;
        report.bytes += size;
        match (recorded.map(|recorded| recorded.size), actual) {
            (_, Err(error)) => unreadable.push(Problem::Unreadable {
                digest,
                error: error.to_string(),
            }),
            (Some(expected), _) if expected != size => {
                let exports = catalog.naming(&digest).await?;
                wrong.push(Problem::WrongSize {
                    digest,
                    expected,
                    actual: size,
                    exports,
                });
            }
            (_, Ok(actual)) if actual != digest => {
                let exports = catalog.naming(&digest).await?;
                wrong.push(Problem::Corrupt {
                    digest,
                    actual,
                    exports,
                });
            }
            (None, Ok(_)) => report.unreferenced.push(Unreferenced { digest, size }),
            (Some(_), Ok(_)) => {}
        }
    }
    drop(hashed);
    report.problems.append(&mut wrong);
    for (digest, Reference { size, lasts }) in referenced {
        if !lasts {
            report.leased.missing += 1;
            continue;
        }
        let exports = catalog.naming(&digest).await?;
        report.problems.push(Problem::Missing {
            digest,
            size,
            exports,
        });
    }
    report.problems.append(&mut unreadable);
    report.unreferenced.sort_unstable_by_key(|blob| blob.digest);
    let unfinished = match disk {
        Some(disk) => disk.unfinished().await?,
        None => Vec::new(),
    };
    let stale = unfinished.into_iter().filter(|ingest| !ingest.in_use);
    report.stale_ingests = stale
        .map(|ingest| StaleIngest {
            file: ingest.path.display().to_string(),
            size: ingest.size,
        })
        .collect();
    Ok(report)
}

/// A blob that is to be there.
struct Reference {
    size: u64,
    /// Whether more than leases keeps it.
    lasts: bool,
}

/// What is to be there, by digest.
async fn referenced(catalog: &dyn Catalog) -> Result<BTreeMap<Digest, Reference>, CacheError> {
    let mut all = BTreeMap::new();
    let mut pages = catalog.referenced().try_chunks(BLOBS);
    while let Some(page) = pages.try_next().await.map_err(|error| error.1)? {
        let digests: Vec<Digest> = page.iter().map(|(digest, _)| *digest).collect();
        let lasting: HashSet<Digest> = catalog.lasting(&digests).await?.into_iter().collect();
        all.extend(page.into_iter().map(|(digest, size)| {
            let lasts = lasting.contains(&digest);
            (digest, Reference { size, lasts })
        }));
    }
    Ok(all)
}

/// Reads every export as a look-up would.
async fn check_exports(catalog: &dyn Catalog, report: &mut Report) -> Result<(), CacheError> {
    let mut before = None;
    loop {
        let page = catalog
            .list(&Filter {
                before,
                limit: Some(PAGE),
                ..Filter::default()
            })
            .await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        before = Some(last.id);
        for head in &page {
            report.exports += 1;
            let bad = match catalog.get(head.id).await {
                Ok(Some(export)) if head.kind == Kind::Cache => {
                    let parsed = Config::parse(&export.config);
                    parsed.err().map(|error| error.to_string())
                }
                // What is said of an entry says nothing of a cache.
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            report.problems.extend(bad.map(|error| Problem::BadExport {
                export: head.id,
                error,
            }));
        }
    }
}

/// What the bytes of a blob hash to.
pub(super) async fn hash(
    blobs: &dyn BlobStore,
    digest: &Digest,
    size: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Digest, BlobError> {
    let mut bytes = blobs.read(digest, 0, size).await?;
    let mut hasher = Hasher::default();
    while let Some(chunk) = bytes.try_next().await? {
        progress(chunk.len() as u64);
        hasher = hash_chunk(hasher, chunk).await?;
    }
    Ok(hasher.finish())
}

/// On a thread of its own, so that blobs are hashed on all cores.
async fn hash_chunk(mut hasher: Hasher, chunk: bytes::Bytes) -> Result<Hasher, BlobError> {
    tokio::task::spawn_blocking(move || {
        hasher.update(&chunk);
        hasher
    })
    .await
    .map_err(|stopped| BlobError::Io {
        context: "hashing was cut off".to_owned(),
        source: stopped.into(),
    })
}
