//! Long lists of blobs, page by page.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::CatalogError;
use crate::digest::Digest;

/// Digests in a page.
pub(super) const PAGE: u32 = 4096;

/// A page: what comes next by digest, each with its size in bytes.
pub(super) type Page = Vec<(Digest, u64)>;

/// The next page of several lists in one, out of the next page of each.
pub(super) fn merged(pages: impl IntoIterator<Item = (Digest, u64)>) -> Page {
    let mut merged = BTreeMap::new();
    for (digest, size) in pages {
        let largest: &mut u64 = merged.entry(digest).or_default();
        *largest = size.max(*largest);
    }
    merged.into_iter().take(PAGE as usize).collect()
}

/// All pages as one stream; `next` gives the page behind a digest, and an empty
/// one at the end. An error is the last.
pub(super) fn stream<'a, N, F>(next: N) -> BoxStream<'a, Result<(Digest, u64), CatalogError>>
where
    N: Fn(Option<Digest>) -> F + Send + 'a,
    F: Future<Output = Result<Page, CatalogError>> + Send + 'a,
{
    let state = Some((next, None));
    stream::unfold(state, |state| async move {
        let (next, after) = state?;
        match next(after).await {
            Ok(page) => {
                let state = page.last().map(|(digest, _)| (next, Some(*digest)));
                let entries: Vec<_> = page.into_iter().map(Ok).collect();
                Some((stream::iter(entries), state))
            }
            Err(error) => Some((stream::iter(vec![Err(error)]), None)),
        }
    })
    .flatten()
    .boxed()
}
