//! The log as readers see it.

use jiff::Timestamp;
use sqlx::{Connection as _, Postgres, QueryBuilder};

use super::PostgresCatalog;
use crate::catalog::{
    CatalogError, Export, ExportHead, ExportId, Filter, Kind, Layer, columns, packed,
};
use crate::digest::Digest;
use crate::entry::EntryName;
use crate::place::Place;

/// An export's number; its project, ref and scope; when it was written and by
/// whom; its records, layers and bytes; its kind, key and version.
type Head = (
    i64,
    String,
    String,
    String,
    i64,
    String,
    i64,
    i64,
    i64,
    i16,
    Option<String>,
    Option<String>,
);

/// That, and where it is read.
macro_rules! head {
    () => {
        "SELECT export.id, project.name, export.ref, scope, written, builder, records, layers, bytes,
                kind, entry.key, entry.version
         FROM export JOIN project ON project.id = export.project
         LEFT JOIN entry ON entry.export = export.key"
    };
}

/// Digest, size and content of a config; size and content of a manifest; the
/// key.
type Documents = (Vec<u8>, i64, Vec<u8>, i64, Vec<u8>, i64);

impl PostgresCatalog {
    pub(super) async fn takes_writes(&self) -> Result<(), CatalogError> {
        let mut connection = self.connections.one().await?;
        let standby: String = sqlx::query_scalar("SELECT current_setting('transaction_read_only')")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        match standby.as_str() {
            "off" => Ok(()),
            _ => Err(CatalogError::ReadOnly(self.context.name())),
        }
    }

    pub(super) async fn list_exports(
        &self,
        filter: &Filter,
    ) -> Result<Vec<ExportHead>, CatalogError> {
        let mut query = QueryBuilder::new(concat!(head!(), " WHERE retired IS NULL"));
        narrow(&mut query, filter);
        query.push(" ORDER BY export.id DESC");
        if let Some(limit) = filter.limit {
            query.push(" LIMIT ").push_bind(i64::from(limit));
        }
        let mut connection = self.connections.one().await?;
        let heads: Vec<Head> = query
            .build_query_as()
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        heads.into_iter().map(|head| self.head(head)).collect()
    }

    pub(super) async fn count_exports(&self, filter: &Filter) -> Result<u64, CatalogError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM export WHERE retired IS NULL");
        narrow(&mut query, filter);
        let mut connection = self.connections.one().await?;
        let count = query
            .build_query_scalar()
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.context.of(error))?;
        self.context.count(count)
    }

    pub(super) async fn get_export(&self, id: ExportId) -> Result<Option<Export>, CatalogError> {
        let failed = |error| self.context.of(error);
        let mut connection = self.connections.one().await?;
        // All statements see the same moment.
        let mut tx = connection
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .await
            .map_err(failed)?;
        let head: Option<Head> = sqlx::query_as(concat!(
            head!(),
            " WHERE retired IS NULL AND export.id = $1"
        ))
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
        let Some(head) = head else {
            tx.rollback().await.map_err(failed)?;
            return Ok(None);
        };
        let documents: Documents = sqlx::query_as(
            "SELECT config_digest, config_size, config, manifest_size, manifest, key
             FROM export WHERE id = $1",
        )
        .bind(id.0)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        let steps = self.steps_of_export(&mut tx, documents.5).await?;
        tx.commit().await.map_err(failed)?;
        drop(connection);

        let head = self.head(head)?;
        let context = self.context.clone();
        let unpack = move || {
            let (digest, size, config, manifest_size, manifest, _) = documents;
            let digest = Digest::try_from(&digest[..]).map_err(|error| context.corrupt(error))?;
            let size = context.count(size)?;
            let manifest_size = context.count(manifest_size)?;
            let manifest = packed::unpack(&context, &manifest, manifest_size)?;
            let layers: Vec<Layer> =
                serde_json::from_slice(&manifest).map_err(|error| context.corrupt(error))?;
            let config = packed::unpack_config(&context, &config, size, &digest, head.id)?;
            Ok(Export {
                head,
                config_digest: digest,
                config,
                layers,
                steps,
            })
        };
        let export = self.context.blocking(move || Ok(unpack())).await?;
        export.map(Some)
    }

    fn head(&self, head: Head) -> Result<ExportHead, CatalogError> {
        let context = &self.context;
        let (
            id,
            project,
            git_ref,
            scope,
            written,
            builder,
            records,
            layers,
            bytes,
            kind,
            key,
            version,
        ) = head;
        let entry = match key.zip(version) {
            Some((key, version)) => Some(EntryName {
                key: columns::parsed(context, &key)?,
                version: columns::parsed(context, &version)?,
            }),
            None => None,
        };
        Ok(ExportHead {
            id: ExportId(id),
            time: Timestamp::from_microsecond(written).map_err(|error| context.corrupt(error))?,
            place: Place {
                project: columns::parsed(context, &project)?,
                git_ref: columns::parsed(context, &git_ref)?,
                scope: columns::parsed(context, &scope)?,
            },
            kind: Kind::of_column(kind.into()).map_err(|error| context.corrupt(error))?,
            entry,
            builder,
            records: context.count(records)?,
            layers: context.count(layers)?,
            bytes: context.count(bytes)?,
        })
    }
}

/// Only what the filter asks for stands in the statement, so that the index is
/// found that fits.
fn narrow(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if let Some(project) = &filter.project {
        query
            .push(" AND export.project = (SELECT id FROM project WHERE name = ")
            .push_bind(project.as_str().to_owned())
            .push(")");
    }
    if let Some(git_ref) = &filter.git_ref {
        query
            .push(" AND export.ref = ")
            .push_bind(git_ref.as_str().to_owned());
    }
    if let Some(scope) = &filter.scope {
        query
            .push(" AND scope = ")
            .push_bind(scope.as_str().to_owned());
    }
    if let Some(kind) = filter.kind {
        query.push(" AND kind = ").push_bind(kind.as_column());
    }
    if let Some(after) = filter.after {
        query.push(" AND export.id > ").push_bind(after.0);
    }
    if let Some(before) = filter.before {
        query.push(" AND export.id < ").push_bind(before.0);
    }
}
