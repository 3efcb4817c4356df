//! How the engine's errors are said in gRPC: the one place of this door.
//!
//! `Unavailable` is never used for a fault: a client that opens a write takes
//! it for a lock that will be released, and asks again for ever.

use tonic::{Code, Status};

use crate::blobs::BlobError;
use crate::cache::CacheError;
use crate::catalog::CatalogError;
use crate::digest::Digest;

/// The status for what the engine said.
pub fn refusal(error: &CacheError) -> Status {
    Status::new(code(error), error.to_string())
}

/// The same for a blob.
pub fn blob_refusal(error: BlobError) -> Status {
    refusal(&CacheError::from(error))
}

/// containerd's answer for a digest that a store does not have.
pub fn unknown_content(digest: &Digest) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}

fn code(error: &CacheError) -> Code {
    match error {
        CacheError::Denied(_) | CacheError::Unauthenticated(_) => Code::PermissionDenied,
        CacheError::Exhausted(_) => Code::ResourceExhausted,
        CacheError::Missing(_) | CacheError::Flushed(_) => Code::FailedPrecondition,
        CacheError::Graph(_) | CacheError::Refused(_) => Code::InvalidArgument,
        CacheError::Blob(blob) => match blob {
            BlobError::NotFound(_) => Code::NotFound,
            BlobError::WrongDigest { .. } | BlobError::WrongSize { .. } => Code::FailedPrecondition,
            BlobError::Full(_) | BlobError::Refused(_) => Code::ResourceExhausted,
            BlobError::ReadOnly(_) => Code::PermissionDenied,
            _ => Code::Internal,
        },
        CacheError::Catalog(CatalogError::Busy(_)) => Code::Aborted,
        _ => Code::Internal,
    }
}
