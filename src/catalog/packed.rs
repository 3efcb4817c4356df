//! Documents as they are kept: compressed.

use bytes::Bytes;

use super::CatalogError;
use super::context::Context;
use crate::digest::Digest;

/// JSON of hex digests halves at any level.
const LEVEL: i32 = 3;

/// Compresses; work for a thread of its own.
pub(super) fn pack(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(plain, LEVEL)
}

/// What was packed, of that many bytes; work for a thread of its own.
pub(super) fn unpack(context: &Context, packed: &[u8], size: u64) -> Result<Vec<u8>, CatalogError> {
    let size = usize::try_from(size).map_err(|error| context.corrupt(error))?;
    zstd::bulk::decompress(packed, size).map_err(|error| context.corrupt(error))
}

/// The config of an export, if it is the one that was stored.
pub(super) fn unpack_config(
    context: &Context,
    packed: &[u8],
    size: u64,
    digest: &Digest,
    export: super::ExportId,
) -> Result<Bytes, CatalogError> {
    let config = unpack(context, packed, size)?;
    if Digest::of(&config) != *digest {
        return Err(context.corrupt(format!(
            "the config of export {export} is not the one that was stored"
        )));
    }
    Ok(config.into())
}
