//! The same of entries, and of uploads that are to become one.

use async_trait::async_trait;

use super::metrics::Operation;
use super::{CatalogError, Metered};
use crate::catalog::entries::{
    AppendedEntry, Became, Block, Entries, EntryHead, NewUpload, Put, Reserved, Unfinished, Upload,
    UploadId,
};
use crate::catalog::{ExportId, NewExport};
use crate::digest::Digest;
use crate::entry::{EntryKey, EntryName, EntryVersion};
use crate::place::{GitRef, ProjectId};

#[async_trait]
impl Entries for Metered {
    async fn reserve(&self, upload: &NewUpload) -> Result<Reserved, CatalogError> {
        self.measured(Operation::Reserve, self.inner.reserve(upload))
            .await
    }

    async fn touch_upload(&self, id: UploadId) -> Result<bool, CatalogError> {
        self.measured(Operation::TouchUpload, self.inner.touch_upload(id))
            .await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, CatalogError> {
        self.measured(Operation::Unfinished, self.inner.unfinished())
            .await
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, CatalogError> {
        self.measured(Operation::Upload, self.inner.upload(id))
            .await
    }

    async fn uploads(
        &self,
        project: &ProjectId,
        name: &EntryName,
    ) -> Result<Vec<Upload>, CatalogError> {
        self.measured(Operation::Uploads, self.inner.uploads(project, name))
            .await
    }

    async fn put_block(
        &self,
        id: UploadId,
        block: &Block,
        alone: bool,
    ) -> Result<Put, CatalogError> {
        let call = self.inner.put_block(id, block, alone);
        self.measured(Operation::PutBlock, call).await
    }

    async fn order_blocks(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<Option<String>, CatalogError> {
        self.measured(Operation::OrderBlocks, self.inner.order_blocks(id, names))
            .await
    }

    async fn replaced(
        &self,
        id: UploadId,
        name: &str,
        alone: bool,
    ) -> Result<Vec<(Digest, u64)>, CatalogError> {
        let call = self.inner.replaced(id, name, alone);
        self.measured(Operation::Replaced, call).await
    }

    async fn blocks(&self, id: UploadId) -> Result<Vec<Block>, CatalogError> {
        self.measured(Operation::Blocks, self.inner.blocks(id))
            .await
    }

    async fn append_entry(
        &self,
        id: UploadId,
        export: NewExport,
        size: u64,
    ) -> Result<AppendedEntry, CatalogError> {
        let call = self.inner.append_entry(id, export, size);
        self.measured(Operation::AppendEntry, call).await
    }

    async fn close_upload(
        &self,
        id: UploadId,
        became: Became,
        size: u64,
    ) -> Result<(), CatalogError> {
        let call = self.inner.close_upload(id, became, size);
        self.measured(Operation::CloseUpload, call).await
    }

    async fn drop_upload(&self, id: UploadId) -> Result<(), CatalogError> {
        self.measured(Operation::DropUpload, self.inner.drop_upload(id))
            .await
    }

    async fn find_entry(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        keys: &[EntryKey],
        version: &EntryVersion,
    ) -> Result<Option<EntryHead>, CatalogError> {
        let call = self.inner.find_entry(project, refs, keys, version);
        self.measured(Operation::FindEntry, call).await
    }

    async fn entry_layers(
        &self,
        export: ExportId,
    ) -> Result<Option<Vec<(Digest, u64)>>, CatalogError> {
        self.measured(Operation::EntryLayers, self.inner.entry_layers(export))
            .await
    }

    async fn note_entry_use(&self, export: ExportId) -> Result<(), CatalogError> {
        self.measured(Operation::NoteEntryUse, self.inner.note_entry_use(export))
            .await
    }

    async fn secret(&self, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32], CatalogError> {
        self.measured(Operation::Secret, self.inner.secret(name, fresh))
            .await
    }
}
