//! Errors of the engine as gRPC statuses, and back: one table, read both ways.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::blobs::BlobError;
use crate::cache::CacheError;
use crate::catalog::CatalogError;
use crate::digest::Digest;

/// When a call may be made again: what gRPC's own retries go by.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The pause before that, and what it is at most, whatever a hub says.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(5)];

/// What a hub answers that has too much of it at once: nothing was done.
pub fn busy(text: String) -> Status {
    let mut status = Status::resource_exhausted(text);
    let pause = MetadataValue::from(PAUSES[0].as_millis() as u32);
    status.metadata_mut().insert(PUSHBACK, pause);
    status
}

/// After which pause the call may be made again, where that is all it says.
pub fn busy_for(status: &Status) -> Option<Duration> {
    if status.code() != Code::ResourceExhausted {
        return None;
    }
    let pause = status.metadata().get(PUSHBACK)?.to_str().ok()?;
    Some(Duration::from_millis(pause.parse().ok()?).min(PAUSES[1]))
}

/// What a hub answers where its engine says this.
pub fn status_of(error: &CacheError) -> Status {
    let text = error.to_string();
    match error {
        CacheError::Denied(_) => Status::permission_denied(text),
        CacheError::Unauthenticated(_) => Status::unauthenticated(text),
        CacheError::Refused(_) => Status::invalid_argument(text),
        CacheError::Lost(_) => Status::data_loss(text),
        // Which ones is said before: a status has no room for many.
        CacheError::Missing(_) | CacheError::Flushed(_) => Status::failed_precondition(text),
        CacheError::Graph(_) => Status::invalid_argument(text),
        CacheError::Blob(BlobError::NotFound(_)) => Status::not_found(text),
        CacheError::Blob(BlobError::WrongDigest { .. } | BlobError::WrongSize { .. }) => {
            Status::invalid_argument(text)
        }
        CacheError::Exhausted(_)
        | CacheError::Blob(BlobError::Full(_) | BlobError::Refused(_))
        | CacheError::Catalog(CatalogError::Full(_)) => Status::resource_exhausted(text),
        CacheError::Unavailable(_)
        | CacheError::Foreign(_)
        | CacheError::Blob(_)
        | CacheError::Catalog(_) => Status::unavailable(text),
    }
}

/// What a sidecar makes of a hub's answer; `about` is the blob that it was
/// asked for, if any.
pub fn error_of(status: &Status, about: Option<Digest>) -> CacheError {
    let text = status.message().to_owned();
    match (status.code(), about) {
        (Code::NotFound, Some(digest)) => BlobError::NotFound(digest).into(),
        (Code::PermissionDenied, _) => CacheError::Denied(text),
        (Code::Unauthenticated, _) => CacheError::Unauthenticated(text),
        (Code::ResourceExhausted, _) if !text.is_empty() => CacheError::Exhausted(text),
        (Code::InvalidArgument | Code::OutOfRange, _) => CacheError::Refused(text),
        // Without a list of what is missing, which is read before.
        (Code::FailedPrecondition, _) if !text.is_empty() => CacheError::Flushed(text),
        _ if text.is_empty() => CacheError::Unavailable(format!("the hub: {:?}", status.code())),
        _ => CacheError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_busy_is_told_from_who_has_no_room_left() {
        let busy = busy("too many reads at once".to_owned());
        assert_eq!(busy_for(&busy), Some(PAUSES[0]));
        assert_eq!(
            busy_for(&status_of(&CacheError::Exhausted(String::new()))),
            None
        );
        let mut endless = busy.clone();
        let years = MetadataValue::from(u64::MAX);
        endless.metadata_mut().insert(PUSHBACK, years);
        assert_eq!(busy_for(&endless), Some(PAUSES[1]));
        let unavailable = Status::with_metadata(Code::Unavailable, "", busy.metadata().clone());
        assert_eq!(busy_for(&unavailable), None);
    }

    #[test]
    fn what_may_pass_is_not_taken_for_what_never_will() {
        let said = |error: CacheError| error_of(&status_of(&error), None);
        let why = || "why".to_owned();
        let quota = said(BlobError::Refused(why()).into());
        assert!(matches!(quota, CacheError::Exhausted(_)), "{quota:?}");
        let quota = said(CacheError::Exhausted(why()));
        assert!(matches!(quota, CacheError::Exhausted(_)), "{quota:?}");
        let token = said(CacheError::Unauthenticated(why()));
        assert!(matches!(token, CacheError::Unauthenticated(_)), "{token:?}");
        let flushed = said(CacheError::Flushed(why()));
        assert!(matches!(flushed, CacheError::Flushed(_)), "{flushed:?}");
        let denied = said(CacheError::Denied(why()));
        assert!(matches!(denied, CacheError::Denied(_)), "{denied:?}");
        let refused = said(CacheError::Refused(why()));
        assert!(matches!(refused, CacheError::Refused(_)), "{refused:?}");
    }
}
