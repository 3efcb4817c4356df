//! The store behind an import: a manifest, a config, and the layers they name.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::Status;

use super::super::build::Audience;
use super::refusal::{blob_refusal, refusal, unknown_content};
use crate::cache::{Cache, Document, Import};
use crate::digest::Digest;

/// What one import serves, for as long as a build could ask.
pub struct ImportStore {
    import: Import,
    cache: Arc<dyn Cache>,
    audience: Audience,
}

impl ImportStore {
    /// Serves `import` out of `cache`.
    pub fn new(import: Import, cache: Arc<dyn Cache>) -> Self {
        Self {
            import,
            cache,
            audience: Audience::default(),
        }
    }

    /// Who is told what goes wrong.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Bytes of what is served under this digest.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        let document = self
            .document(digest)
            .map(|document| document.bytes.len() as u64);
        document.or_else(|| self.import.layers.get(digest).copied())
    }

    pub(super) async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        if let Some(document) = self.document(digest) {
            return Ok(slice(&document.bytes, offset, length));
        }
        let audience = self.audience.clone();
        let digest = *digest;
        // BuildKit fails a build for wrong bytes. Told that there are none, it
        // runs the step again, unless others stand on it.
        if offset == 0
            && let Err(error) = self.cache.verify(&digest).await
        {
            lost(&audience, &digest, &error);
            return Err(unknown_content(&digest));
        }
        let bytes = self
            .cache
            .read(&digest, offset, length)
            .await
            .map_err(|error| {
                lost(&audience, &digest, &error);
                refusal(&error)
            })?;
        let bytes = bytes.map(move |chunk| {
            chunk.map_err(|error| {
                lost(&audience, &digest, &error);
                blob_refusal(error)
            })
        });
        Ok(bytes.boxed())
    }

    fn document(&self, digest: &Digest) -> Option<&Document> {
        self.import.documents.get(digest)
    }
}

/// Part of a document as one chunk; the caller has checked the bounds.
pub(super) fn slice(
    bytes: &Bytes,
    offset: u64,
    length: u64,
) -> BoxStream<'static, Result<Bytes, Status>> {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let end = usize::try_from(length).map_or(bytes.len(), |length| {
        start.saturating_add(length).min(bytes.len())
    });
    stream::iter((start < end).then(|| Ok(bytes.slice(start..end)))).boxed()
}

/// A blob that was there when it was named can't be read: the build may fail,
/// and the user should know why.
fn lost(audience: &Audience, digest: &Digest, error: &dyn std::error::Error) {
    let text = format!(
        "cached layer {digest} can't be used: {error}; if this build fails for it, the next one runs without it"
    );
    tracing::error!("{text}");
    audience.each(|build| build.warn(text.clone()));
}
