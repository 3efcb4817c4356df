//! Which file holds what. No text from outside ever becomes a file name: blobs
//! are named by a parsed digest, ingests by the hash of their name.

use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// The files of one data directory.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// The ingest that a later writer of the same name resumes.
    pub(super) fn named(&self, name: &Digest) -> PathBuf {
        self.ingests().join(name.hex())
    }

    /// An ingest that nobody can find again.
    pub(super) fn private(&self, name: &Digest) -> PathBuf {
        self.ingests()
            .join(format!("{}.{:016x}", name.hex(), rand::random::<u64>()))
    }

    /// Whether its directories are there.
    pub(super) fn exists(&self) -> bool {
        self.blobs().is_dir() && self.ingests().is_dir()
    }

    /// The directories whose entries make the others findable after a crash.
    pub(super) fn parents(&self) -> [PathBuf; 2] {
        [self.root.clone(), self.root.join("blobs")]
    }
}

/// Whether a file of `ingest/` can be resumed by its name.
pub(super) fn is_named(file_name: &str) -> bool {
    Digest::from_hex(file_name).is_ok()
}
