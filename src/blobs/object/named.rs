//! Which store a prefix of a bucket is: the object `store-id`.

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutMode, PutOptions};

use super::bucket::Bucket;
use crate::blobs::BlobError;
use crate::blobs::store_id::{StoreId, Taken};

impl Bucket {
    fn store_id(&self) -> Path {
        self.prefix().clone().join("store-id")
    }

    pub(super) async fn read_id(&self) -> Result<Option<StoreId>, BlobError> {
        let failed = |error| self.read_failed(error, "read from");
        match self.backend().get(&self.store_id()).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(failed)?;
                StoreId::read(&bytes, self.place()).map(Some)
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) async fn take_id(&self, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
        let mode = match taken {
            Taken::First => PutMode::Create,
            Taken::Anew => PutMode::Overwrite,
        };
        match self.put_id(id, mode).await {
            Ok(()) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            // Some servers know no condition: then the last to write has it, and
            // all read what that was.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. })
                if taken == Taken::First =>
            {
                if let Some(there) = self.read_id().await? {
                    return Ok(there);
                }
                let put = self.put_id(id, PutMode::Overwrite).await;
                put.map_err(|error| self.write_failed(error, "write to"))?;
            }
            Err(error) => return Err(self.write_failed(error, "write to")),
        }
        Ok(self.read_id().await?.unwrap_or(id))
    }

    async fn put_id(&self, id: StoreId, mode: PutMode) -> object_store::Result<()> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let put = self.backend();
        put.put_opts(&self.store_id(), id.written().into(), options)
            .await
            .map(drop)
    }
}
