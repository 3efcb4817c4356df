//! Pins: what is about to be stored or named is not removed meanwhile.
//!
//! A blob that is being removed right now is waited for: that takes moments,
//! and where whoever removes it was killed, until it is condemned no more.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::sleep;

use super::open::Opened;
use super::quota::Allowance;
use crate::blobs::{BlobError, Ingest};
use crate::catalog::{Catalog, CatalogError};
use crate::digest::Digest;

/// How long an upload is kept for its export.
const UPLOADED: Duration = Duration::from_secs(6 * 3600);
/// How long what an export names is kept for it to be published.
pub(super) const NAMED: Duration = Duration::from_secs(3600);
/// How long somebody who was killed may hold others up: longer than anything is
/// condemned.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Pins blobs for `ttl`, and waits while any is condemned. Gives those that
/// still are when the patience is over.
async fn pin(
    catalog: &dyn Catalog,
    blobs: &[Digest],
    ttl: Duration,
) -> Result<Vec<Digest>, CatalogError> {
    let since = Instant::now();
    let mut condemned = catalog.pin(blobs, ttl).await?;
    while !condemned.is_empty() && since.elapsed() < PATIENCE {
        sleep(LOOK).await;
        condemned = catalog.pin(&condemned, ttl).await?;
    }
    Ok(condemned)
}

/// Pins what an export names. What can't be had is missing.
pub(super) async fn name(opened: &Opened, blobs: &[Digest]) -> Result<Vec<Digest>, CatalogError> {
    pin(&*opened.catalog, blobs, NAMED).await
}

/// An upload that is pinned before it is stored, and that its project has room
/// for.
pub(super) struct Pinned {
    pub(super) ingest: Box<dyn Ingest>,
    pub(super) opened: std::sync::Arc<Opened>,
    pub(super) allowance: Option<Allowance>,
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
            let condemned = pin(&*self.opened.catalog, &[digest], UPLOADED).await;
            let condemned = condemned.map_err(unpinned)?;
            if !condemned.is_empty() {
                return Err(unpinned("it is still being removed"));
            }
        }
        let (digest, size) = self.ingest.commit(size, expected).await?;
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
