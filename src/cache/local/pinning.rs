//! Pins: what is about to be stored or named is not removed meanwhile.
//!
//! A blob that is being removed right now is waited for: that takes moments,
//! and where whoever removes it was killed, until it is condemned no more.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::sleep;

use super::open::Opened;
use super::quota::Allowance;
use crate::blobs::{BlobError, Ingest};
use crate::cache::CacheError;
use crate::catalog::{Catalog, CatalogError, PinHolder};
use crate::digest::Digest;
use crate::place::ProjectId;

/// How long an upload is kept for its export.
const UPLOADED: Duration = Duration::from_secs(2 * 3600);
/// How long what an export names is kept for it to be published.
const NAMED: Duration = Duration::from_secs(3600);
/// How long somebody who was killed may hold others up: longer than anything is
/// condemned.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Pins blobs for `ttl`, and waits while any is condemned. Gives those that
/// still are when the patience is over.
async fn pin(
    catalog: &dyn Catalog,
    holder: PinHolder,
    blobs: &[Digest],
    ttl: Duration,
) -> Result<Vec<Digest>, CatalogError> {
    let since = Instant::now();
    let mut condemned = catalog.pin(holder, blobs, ttl).await?;
    while !condemned.is_empty() && since.elapsed() < PATIENCE {
        sleep(LOOK).await;
        condemned = catalog.pin(holder, &condemned, ttl).await?;
    }
    Ok(condemned)
}

/// What an export names, until it is published.
#[derive(Debug)]
pub(super) struct Names {
    holder: PinHolder,
    project: ProjectId,
    blobs: Vec<Digest>,
    /// By the catalog's clock, as the pins are.
    since: Timestamp,
}

impl Names {
    /// Pins all of it, which must be before it is looked whether it is there.
    /// What can't be had is missing.
    pub(super) async fn pin(
        opened: &Opened,
        project: &ProjectId,
        blobs: Vec<Digest>,
    ) -> Result<Self, CacheError> {
        let names = Self {
            holder: PinHolder::random(),
            project: project.clone(),
            blobs,
            since: opened.catalog.now().await?,
        };
        match pin(&*opened.catalog, names.holder, &names.blobs, NAMED).await {
            Ok(condemned) if condemned.is_empty() => Ok(names),
            pinned => {
                names.give_up(opened).await;
                Err(pinned.map_or_else(CacheError::from, CacheError::Missing))
            }
        }
    }

    /// Whether the pins are good for long enough to publish.
    pub(super) async fn check(&self, opened: &Opened) -> Result<(), CacheError> {
        let taken = opened.catalog.now().await?.duration_since(self.since);
        match Duration::try_from(taken).is_ok_and(|taken| taken > NAMED / 2) {
            true => Err(CacheError::Unavailable(
                "publishing the export took too long".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// An export names it now, or none will: it waits for none, either.
    pub(super) async fn let_go(self, opened: &Opened) {
        let uploads = opened.uploads.end(&self.project, &self.blobs);
        for (holder, blobs) in uploads {
            unpin(opened, holder, &blobs).await;
        }
        self.give_up(opened).await;
    }

    /// It is not named now; what was uploaded may be, by another attempt.
    pub(super) async fn give_up(self, opened: &Opened) {
        unpin(opened, self.holder, &self.blobs).await;
    }
}

/// What can't be let go now is when its time is over.
async fn unpin(opened: &Opened, holder: PinHolder, blobs: &[Digest]) {
    if let Err(error) = opened.catalog.unpin(holder, blobs).await {
        tracing::debug!(%error, "pins are left to expire");
    }
}

/// An upload that is pinned before it is stored, and that its project has room
/// for.
pub(super) struct Pinned {
    pub(super) ingest: Box<dyn Ingest>,
    pub(super) opened: Arc<Opened>,
    pub(super) allowance: Option<Allowance>,
    pub(super) whose: Whose,
}

/// Who names an upload until something else does.
pub(super) enum Whose {
    /// The exports of a project that this process takes.
    Export(ProjectId),
    /// A holder of its own, for so long.
    Holder(PinHolder, Duration),
}

#[async_trait]
impl Ingest for Pinned {
    fn offset(&self) -> u64 {
        self.ingest.offset()
    }

    fn digest(&self) -> Digest {
        self.ingest.digest()
    }

    fn started_at(&self) -> SystemTime {
        self.ingest.started_at()
    }

    fn updated_at(&self) -> SystemTime {
        self.ingest.updated_at()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        if let Some(allowance) = &self.allowance {
            let size = self.ingest.offset().saturating_add(bytes.len() as u64);
            allowance.check(size)?;
        }
        self.ingest.write(bytes).await
    }

    async fn append(&mut self, blob: &Digest, size: u64) -> Result<bool, BlobError> {
        if let Some(allowance) = &self.allowance {
            allowance.check(self.ingest.offset().saturating_add(size))?;
        }
        self.ingest.append(blob, size).await
    }

    async fn restart(&mut self) -> Result<(), BlobError> {
        self.ingest.restart().await
    }

    async fn commit(
        self: Box<Self>,
        size: Option<u64>,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let digest = self.ingest.digest();
        // What is not what it should be is not stored, either.
        if expected.is_none_or(|expected| expected == digest) {
            let catalog = &*self.opened.catalog;
            let (holder, ttl) = match &self.whose {
                Whose::Export(project) => (self.opened.uploads.begin(project, digest), UPLOADED),
                Whose::Holder(holder, ttl) => (*holder, *ttl),
            };
            let condemned = pin(catalog, holder, &[digest], ttl).await;
            let condemned = condemned.map_err(unpinned)?;
            if !condemned.is_empty() {
                return Err(unpinned("it is still being removed"));
            }
        }
        let committed = self.ingest.commit(size, expected).await;
        if committed.is_err()
            && let Whose::Export(project) = &self.whose
        {
            // Its pin ends by itself: others may have the same.
            self.opened.uploads.end(project, &[digest]);
        }
        let (digest, size) = committed?;
        if let Some(allowance) = self.allowance {
            allowance.uploaded(digest, size);
        }
        Ok((digest, size))
    }

    async fn abort(self: Box<Self>) -> Result<(), BlobError> {
        self.ingest.abort().await
    }
}

fn unpinned(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BlobError {
    BlobError::Io {
        context: "a layer can't be kept from being removed".to_owned(),
        source: std::io::Error::other(why),
    }
}
