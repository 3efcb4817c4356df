//! The files of a data directory, for harm.

use std::path::{Path, PathBuf};

/// The files of all blobs, in the order of their names.
pub fn blobs(data: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(data.join("blobs/sha256")).expect("there are blobs");
    let mut files: Vec<_> = folder.map(|blob| blob.expect("a blob").path()).collect();
    files.sort();
    files
}

/// Changes a byte in the middle of every blob.
pub fn rot(data: &Path) {
    for file in blobs(data) {
        let mut bytes = std::fs::read(&file).expect("it can be read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&file).expect("it can be removed");
        std::fs::write(&file, bytes).expect("it can be written");
    }
}
