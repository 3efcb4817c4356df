//! Which store a directory is: `blobs/store-id`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::errors::{read_failed, write_failed};
use super::layout::Layout;
use super::{BlobError, sync_dir, with_directories};
use crate::blobs::store_id::{StoreId, Taken};

fn file(layout: &Layout) -> PathBuf {
    layout.root().join("blobs").join("store-id")
}

pub(super) fn read(layout: &Layout) -> Result<Option<StoreId>, BlobError> {
    let path = file(layout);
    match fs::read(&path) {
        Ok(bytes) => StoreId::read(&bytes, &layout.root().display().to_string()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_failed(error, "read", &path)),
    }
}

/// Writes it beside, and gives it its name when it is whole: a link fails where
/// the name is taken.
pub(super) fn take(layout: &Layout, id: StoreId, taken: Taken) -> Result<StoreId, BlobError> {
    let path = file(layout);
    let beside = path.with_extension(format!("{:016x}", rand::random::<u64>()));
    let written = with_directories(layout, || {
        let mut file = File::create(&beside)?;
        file.write_all(&id.written())?;
        file.sync_all()?;
        match taken {
            Taken::Anew => fs::rename(&beside, &path)?,
            Taken::First => match fs::hard_link(&beside, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // There are file systems without links.
                Err(_) if !path.exists() => fs::rename(&beside, &path)?,
                Err(error) => return Err(error),
            },
        }
        sync_dir(&layout.root().join("blobs"))
    });
    fs::remove_file(&beside).ok();
    written.map_err(|error| write_failed(error, "write", &path))?;
    Ok(read(layout)?.unwrap_or(id))
}
