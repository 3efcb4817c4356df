//! Rows as values, each parsed again: a file on disk is input, too.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::catalog::context::Context;
use crate::catalog::{CatalogError, Export, ExportHead, ExportId, Kind, Layer, columns, packed};
use crate::digest::Digest;
use crate::entry::EntryName;
use crate::place::{GitRef, Place};
use crate::step::Step;

/// The column of the annotations that have no column of their own.
pub(super) fn annotations_column(layer: &Layer) -> Option<String> {
    (!layer.annotations.is_empty()).then(|| serde_json::json!(layer.annotations).to_string())
}

pub(super) fn head(context: &Context, row: &SqliteRow) -> Result<ExportHead, CatalogError> {
    let place = Place {
        project: text(context, row, "project")?,
        git_ref: text(context, row, "ref")?,
        scope: text(context, row, "scope")?,
    };
    let id = ExportId(row.try_get("id").map_err(|error| context.corrupt(error))?);
    let time: i64 = row
        .try_get("time")
        .map_err(|error| context.corrupt(error))?;
    Ok(ExportHead {
        id,
        time: Timestamp::from_microsecond(time).map_err(|error| context.corrupt(error))?,
        place,
        kind: kind(context, row)?,
        entry: entry(context, row)?,
        builder: row
            .try_get("builder")
            .map_err(|error| context.corrupt(error))?,
        records: count(context, row, "records")?,
        layers: count(context, row, "layers")?,
        bytes: count(context, row, "bytes")?,
    })
}

pub(super) fn kind(context: &Context, row: &SqliteRow) -> Result<Kind, CatalogError> {
    let column: i64 = row
        .try_get("kind")
        .map_err(|error| context.corrupt(error))?;
    Kind::of_column(column).map_err(|error| context.corrupt(error))
}

fn entry(context: &Context, row: &SqliteRow) -> Result<Option<EntryName>, CatalogError> {
    let key: Option<&str> = row.try_get("key").map_err(|error| context.corrupt(error))?;
    match key {
        None => Ok(None),
        Some(key) => Ok(Some(EntryName {
            key: columns::parsed(context, key)?,
            version: text(context, row, "version")?,
        })),
    }
}

pub(super) fn export(
    context: &Context,
    row: &SqliteRow,
    layers: &[SqliteRow],
    steps: Vec<Step>,
) -> Result<Export, CatalogError> {
    let head = head(context, row)?;
    let config_digest = digest(context, row, "config_digest")?;
    let size = count(context, row, "config_size")?;
    let packed: &[u8] = row
        .try_get("config")
        .map_err(|error| context.corrupt(error))?;
    let config = packed::unpack_config(context, packed, size, &config_digest, head.id)?;
    let layers = layers
        .iter()
        .map(|row| layer(context, row))
        .collect::<Result<_, _>>()?;
    Ok(Export {
        head,
        config_digest,
        config,
        layers,
        steps,
    })
}

fn layer(context: &Context, row: &SqliteRow) -> Result<Layer, CatalogError> {
    let diff_id: Option<&[u8]> = row
        .try_get("diff_id")
        .map_err(|error| context.corrupt(error))?;
    let created_at: Option<&str> = row
        .try_get("created_at")
        .map_err(|error| context.corrupt(error))?;
    let annotations: Option<&str> = row
        .try_get("annotations")
        .map_err(|error| context.corrupt(error))?;
    Ok(Layer {
        digest: digest(context, row, "digest")?,
        size: count(context, row, "size")?,
        media_type: row
            .try_get("media_type")
            .map_err(|error| context.corrupt(error))?,
        diff_id: diff_id
            .map(Digest::try_from)
            .transpose()
            .map_err(|error| context.corrupt(error))?,
        created_at: created_at
            .map(str::parse)
            .transpose()
            .map_err(|error| context.corrupt(error))?,
        annotations: annotations
            .map_or_else(|| Ok(BTreeMap::new()), serde_json::from_str)
            .map_err(|error| context.corrupt(error))?,
    })
}

pub(super) fn digest(
    context: &Context,
    row: &SqliteRow,
    column: &str,
) -> Result<Digest, CatalogError> {
    let bytes: &[u8] = row
        .try_get(column)
        .map_err(|error| context.corrupt(error))?;
    Digest::try_from(bytes).map_err(|error| context.corrupt(error))
}

pub(super) fn count(context: &Context, row: &SqliteRow, column: &str) -> Result<u64, CatalogError> {
    let number: i64 = row
        .try_get(column)
        .map_err(|error| context.corrupt(error))?;
    context.count(number)
}

/// A blob and its size.
pub(super) fn blob(context: &Context, row: &SqliteRow) -> Result<(Digest, u64), CatalogError> {
    Ok((
        digest(context, row, "digest")?,
        count(context, row, "size")?,
    ))
}

/// Digests as JSON, for SQLite's `unhex`.
pub(super) fn hexes(digests: &[Digest]) -> String {
    let hexes: Vec<String> = digests.iter().map(Digest::hex).collect();
    serde_json::json!(hexes).to_string()
}

/// Refs as JSON.
pub(super) fn texts(refs: &[GitRef]) -> String {
    serde_json::json!(refs).to_string()
}

pub(super) fn text<T>(context: &Context, row: &SqliteRow, column: &str) -> Result<T, CatalogError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let text: &str = row
        .try_get(column)
        .map_err(|error| context.corrupt(error))?;
    columns::parsed(context, text)
}
