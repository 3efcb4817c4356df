//! What the file system said, as what a caller can act on.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::BlobError;

/// An error of a write: a full or a read-only store is told apart, because
/// both have their own remedy.
pub(in crate::blobs) fn write_failed(error: io::Error, doing: &str, path: &Path) -> BlobError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            BlobError::Full(path.display().to_string())
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            BlobError::ReadOnly(path.display().to_string())
        }
        _ => read_failed(error, doing, path),
    }
}

/// An error of a read: whatever it is, it is the system's to explain.
pub(in crate::blobs) fn read_failed(source: io::Error, doing: &str, path: &Path) -> BlobError {
    BlobError::Io {
        context: format!("cannot {doing} {}", path.display()),
        source,
    }
}

/// Runs file work on a thread that may block.
pub(in crate::blobs) async fn blocking<T, F>(work: F) -> Result<T, BlobError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, BlobError> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(cut_off()))
}

/// Work whose thread has gone before its end.
pub(in crate::blobs) fn cut_off() -> BlobError {
    BlobError::Io {
        context: "file work was cut off".to_owned(),
        source: io::ErrorKind::Interrupted.into(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_full_and_a_read_only_store_are_told_apart() {
        let failed = |errno: Errno| write_failed(errno.into(), "write to", Path::new("/d"));
        for full in [Errno::NOSPC, Errno::DQUOT] {
            assert!(
                matches!(failed(full), BlobError::Full(path) if path == "/d"),
                "{full:?}"
            );
        }
        for read_only in [Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            assert!(
                matches!(failed(read_only), BlobError::ReadOnly(path) if path == "/d"),
                "{read_only:?}"
            );
        }
        assert_eq!(
            failed(Errno::IO).to_string(),
            "cannot write to /d: Input/output error (os error 5)"
        );
    }
}
