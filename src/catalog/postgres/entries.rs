//! Entries, as they are found; what is uploaded for them is in `uploads`, and
//! how much of that there is in `open`.

mod open;
mod uploads;

use async_trait::async_trait;

use super::{PostgresCatalog, texts};
use crate::catalog::collecting::HOUR;
use crate::catalog::entries::{
    AppendedEntry, Became, Block, Entries, EntryHead, NewUpload, Put, Reserved, Unfinished, Upload,
    UploadId,
};
use crate::catalog::{CatalogError, ExportId, Layer, NewExport, columns, packed};
use crate::digest::Digest;
use crate::entry::{EntryKey, EntryName, EntryVersion};
use crate::place::{GitRef, ProjectId};

/// An export; its ref, key and version; its size and when it was written.
type Row = (i64, String, String, String, i64, i64);

/// One look-up for each ref and key, none after the first that finds anything.
const FIND: &str = "SELECT found.id, asked.ref, found.key, $4::text, found.size, found.written
    FROM unnest($2::text[]) WITH ORDINALITY AS asked (ref, nth)
    CROSS JOIN unnest($3::text[], $5::text[]) WITH ORDINALITY AS wanted (key, until, nth)
    CROSS JOIN LATERAL (
        SELECT export.id, entry.key, size, written FROM entry JOIN export ON export.key = entry.export
        WHERE entry.project = (SELECT id FROM project WHERE name = $1) AND entry.ref = asked.ref
          AND version = $4 AND entry.key >= wanted.key AND entry.key < wanted.until
          AND retired IS NULL
        ORDER BY entry.key = wanted.key DESC, export.id DESC LIMIT 1) AS found
    ORDER BY asked.nth, wanted.nth LIMIT 1";

#[async_trait]
impl Entries for PostgresCatalog {
    async fn reserve(&self, upload: &NewUpload) -> Result<Reserved, CatalogError> {
        self.connections.bounded(self.insert_upload(upload)).await
    }

    async fn touch_upload(&self, id: UploadId) -> Result<bool, CatalogError> {
        self.connections.bounded(self.prolong_upload(id)).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, CatalogError> {
        self.connections.bounded(self.sum_unfinished()).await
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, CatalogError> {
        self.connections.bounded(self.get_upload(id)).await
    }

    async fn uploads(
        &self,
        project: &ProjectId,
        name: &EntryName,
    ) -> Result<Vec<Upload>, CatalogError> {
        let call = self.uploads_named(project, name);
        self.connections.bounded(call).await
    }

    async fn put_block(
        &self,
        id: UploadId,
        block: &Block,
        alone: bool,
    ) -> Result<Put, CatalogError> {
        let call = self.upsert_block(id, block, alone);
        self.connections.bounded(call).await
    }

    async fn order_blocks(
        &self,
        id: UploadId,
        names: &[String],
    ) -> Result<Option<String>, CatalogError> {
        let call = self.set_positions(id, names);
        self.connections.bounded(call).await
    }

    async fn replaced(
        &self,
        id: UploadId,
        name: &str,
        alone: bool,
    ) -> Result<Vec<(Digest, u64)>, CatalogError> {
        let call = self.blocks_replaced(id, name, alone);
        self.connections.bounded(call).await
    }

    async fn blocks(&self, id: UploadId) -> Result<Vec<Block>, CatalogError> {
        self.connections.bounded(self.blocks_of(id)).await
    }

    async fn append_entry(
        &self,
        id: UploadId,
        export: NewExport,
        size: u64,
    ) -> Result<AppendedEntry, CatalogError> {
        let call = self.insert_entry(id, export, size);
        self.connections.bounded(call).await
    }

    async fn close_upload(
        &self,
        id: UploadId,
        became: Became,
        size: u64,
    ) -> Result<(), CatalogError> {
        let call = self.finish_upload(id, (became, size));
        self.connections.bounded(call).await
    }

    async fn drop_upload(&self, id: UploadId) -> Result<(), CatalogError> {
        self.connections.bounded(self.delete_upload(id)).await
    }

    async fn find_entry(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        keys: &[EntryKey],
        version: &EntryVersion,
    ) -> Result<Option<EntryHead>, CatalogError> {
        let call = self.newest_entry(project, (refs, keys), version);
        self.connections.bounded(call).await
    }

    async fn entry_layers(
        &self,
        export: ExportId,
    ) -> Result<Option<Vec<(Digest, u64)>>, CatalogError> {
        self.connections.bounded(self.layers_of(export)).await
    }

    async fn note_entry_use(&self, export: ExportId) -> Result<(), CatalogError> {
        self.connections.bounded(self.use_entry(export)).await
    }

    async fn secret(&self, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32], CatalogError> {
        self.connections.bounded(self.one_secret(name, fresh)).await
    }
}

impl PostgresCatalog {
    async fn newest_entry(
        &self,
        project: &ProjectId,
        (refs, keys): (&[GitRef], &[EntryKey]),
        version: &EntryVersion,
    ) -> Result<Option<EntryHead>, CatalogError> {
        let begins: Vec<&str> = keys.iter().map(EntryKey::as_str).collect();
        let ends: Vec<String> = keys.iter().map(EntryKey::end).collect();
        let mut connection = self.connections.one().await?;
        let found: Option<Row> = sqlx::query_as(FIND)
            .bind(project.as_str())
            .bind(texts(refs))
            .bind(begins)
            .bind(version.as_str())
            .bind(ends)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        let context = &self.context;
        let head = |(id, git_ref, key, version, size, written): Row| {
            Ok(EntryHead {
                id: ExportId(id),
                git_ref: columns::parsed(context, &git_ref)?,
                name: EntryName {
                    key: columns::parsed(context, &key)?,
                    version: columns::parsed(context, &version)?,
                },
                size: context.count(size)?,
                time: columns::microsecond(context, written)?,
            })
        };
        found.map(head).transpose()
    }

    async fn layers_of(
        &self,
        export: ExportId,
    ) -> Result<Option<Vec<(Digest, u64)>>, CatalogError> {
        let mut connection = self.connections.one().await?;
        let found: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT manifest_size, manifest FROM export JOIN entry ON entry.export = export.key
             WHERE export.id = $1",
        )
        .bind(export.0)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| self.context.of(error))?;
        drop(connection);
        let Some((size, manifest)) = found else {
            return Ok(None);
        };
        let context = self.context.clone();
        let unpack = move || {
            let manifest = packed::unpack(&context, &manifest, context.count(size)?)?;
            let layers: Vec<Layer> =
                serde_json::from_slice(&manifest).map_err(|error| context.corrupt(error))?;
            let layers = layers.into_iter().map(|layer| (layer.digest, layer.size));
            Ok(layers.collect())
        };
        let layers = self.context.blocking(move || Ok(unpack())).await?;
        layers.map(Some)
    }

    async fn use_entry(&self, export: ExportId) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        sqlx::query(
            "UPDATE export SET used = now.at
             FROM (SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS at) AS now
             WHERE id = $1 AND retired IS NULL
               AND greatest(coalesce(used, written), written) <= now.at - $2",
        )
        .bind(export.0)
        .bind(HOUR)
        .execute(&mut *connection)
        .await
        .map(drop)
        .map_err(|error| self.context.of(error))
    }

    /// Two statements, each of which sees what was committed before it.
    async fn one_secret(&self, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32], CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        sqlx::query("INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(&fresh[..])
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        let secret: Vec<u8> = sqlx::query_scalar("SELECT value FROM secret WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        let secret = secret.try_into();
        secret.map_err(|_| self.context.corrupt("a secret has not 32 bytes"))
    }
}
