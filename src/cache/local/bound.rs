//! A blob store belongs to one catalog: what that does not name is removed there.
//!
//! The catalog has a number first, made up once, and gives it to the store if
//! that has none. So of two catalogs that come to one store at once, one finds
//! the other's number there. A store that has blobs and no number (of an older
//! layerd, or after a crash in between) gets it where it has anything of what
//! the catalog names.

use futures::{StreamExt as _, TryStreamExt as _};

use crate::blobs::{BlobError, BlobStore, StoreId, Taken};
use crate::cache::CacheError;
use crate::catalog::Catalog;
use crate::digest::Digest;

/// Blobs that the catalog names, of which one is looked for.
const SAMPLE: usize = 1000;

/// Makes sure that the store is the catalog's; [`CacheError::Foreign`] where it
/// is another's.
pub(super) async fn bind(catalog: &dyn Catalog, blobs: &dyn BlobStore) -> Result<(), CacheError> {
    let noted = match judge(catalog, blobs).await? {
        Bound::Already => return Ok(()),
        Bound::NotYet(noted) => noted,
    };
    let noted = match noted {
        Some(noted) => noted,
        None => catalog.bind(StoreId::random(), Taken::First).await?,
    };
    let there = match blobs.take_id(noted, Taken::First).await {
        // What takes no writes loses nothing, either.
        Err(BlobError::ReadOnly(_) | BlobError::Full(_)) => noted,
        taken => taken?,
    };
    match there {
        there if there == noted => Ok(()),
        there => Err(foreign(Some(noted), Some(there))),
    }
}

/// Whether it would be found to be the catalog's, or could be made so, and else
/// the same error; writes nothing.
pub async fn would_bind(catalog: &dyn Catalog, blobs: &dyn BlobStore) -> Result<(), CacheError> {
    judge(catalog, blobs).await.map(drop)
}

/// A store that is not another catalog's.
enum Bound {
    Already,
    /// It has no number; the catalog may.
    NotYet(Option<StoreId>),
}

async fn judge(catalog: &dyn Catalog, blobs: &dyn BlobStore) -> Result<Bound, CacheError> {
    let (noted, there) = (catalog.store().await?, blobs.id().await?);
    match (noted, there) {
        (Some(noted), Some(there)) if noted == there => return Ok(Bound::Already),
        (noted, Some(_)) => return Err(foreign(noted, there)),
        (_, None) => {}
    }
    let is_new = blobs.list().await?.next().await.transpose()?.is_none();
    if !is_new && !has_any(catalog, blobs).await? && !is_emptied(catalog).await? {
        return Err(foreign(noted, None));
    }
    Ok(Bound::NotYet(noted))
}

/// Whether all that the catalog ever named has gone.
async fn is_emptied(catalog: &dyn Catalog) -> Result<bool, CacheError> {
    let names_any = catalog.referenced().next().await.transpose()?.is_some();
    Ok(!names_any && !catalog.projects(None, 1).await?.is_empty())
}

/// The store is the catalog's from now on, and no other's.
pub(super) async fn adopt(catalog: &dyn Catalog, blobs: &dyn BlobStore) -> Result<(), CacheError> {
    let id = catalog.bind(StoreId::random(), Taken::Anew).await?;
    blobs.take_id(id, Taken::Anew).await?;
    Ok(())
}

/// Whether any of the blobs that the catalog names is there, the first of them
/// standing for all.
pub(super) async fn has_any(
    catalog: &dyn Catalog,
    blobs: &dyn BlobStore,
) -> Result<bool, CacheError> {
    let named: Vec<(Digest, u64)> = catalog.referenced().take(SAMPLE).try_collect().await?;
    let named: Vec<Digest> = named.into_iter().map(|(digest, _)| digest).collect();
    let found = blobs.sizes(&named).await?;
    Ok(found.iter().any(Option::is_some))
}

fn foreign(noted: Option<StoreId>, there: Option<StoreId>) -> CacheError {
    let why = match (noted, there) {
        (_, None) => "it has blobs, and none of those that the catalog names".to_owned(),
        (None, Some(there)) => format!("it is store {there}, and the catalog has none yet"),
        (Some(noted), Some(there)) => {
            format!("it is store {there}, and the catalog's is {noted}")
        }
    };
    CacheError::Foreign(format!(
        "the layers here belong to another catalog: {why}; give each catalog a directory or a \
         bucket's prefix of its own, or, where the other catalog is gone for good, take the layers \
         over with `layerd cache fsck --adopt`"
    ))
}
