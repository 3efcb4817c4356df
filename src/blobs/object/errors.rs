//! What a provider said, as what a caller can act on, and without its secrets.

use std::io::ErrorKind;

use object_store::Error;

use crate::blobs::BlobError;

/// How much of a message is shown.
const SHOWN: usize = 400;

/// What providers call a store that takes no more.
const FULL: [&str; 6] = [
    "QuotaExceeded",
    "QuotaFull",
    "StorageFull",
    "InsufficientStorage",
    "EntityTooLarge",
    "no space left",
];

/// What was not allowed, or failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Read,
    Write,
}

/// The error of a request to the bucket at `place`.
pub(super) fn blob_error(error: Error, doing: &str, place: &str, wrong: Wrong) -> BlobError {
    let kind = match &error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ErrorKind::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    };
    let said = presentable(&error.to_string());
    if wrong == Wrong::Write {
        if FULL.iter().any(|full| said.contains(full)) {
            return BlobError::Full(place.to_owned());
        }
        if let Error::PermissionDenied { .. } = &error {
            return BlobError::ReadOnly(format!("{place} ({})", code(&said).unwrap_or("403")));
        }
    }
    BlobError::Io {
        context: format!("cannot {doing} {place}"),
        source: std::io::Error::new(kind, said),
    }
}

/// The message on one line, cut, and without the queries of URLs: they may be
/// signed.
pub(super) fn presentable(message: &str) -> String {
    let words = message.split_whitespace().map(|word| {
        let query = word.find("://").and_then(|at| {
            let query = word[at..].find('?')?;
            Some(at + query)
        });
        query.map_or(word, |at| &word[..at])
    });
    let mut shown = words.collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// The provider's own word for it.
fn code(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("<Code>")?;
    after.split_once("</Code>").map(|(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(body: &str) -> Error {
        Error::PermissionDenied {
            path: "blobs".to_owned(),
            source: body.into(),
        }
    }

    #[test]
    fn full_and_read_only_are_told_apart_for_writes_alone() {
        let body = "403: <Error><Code>AccessDenied</Code></Error>";
        let error = blob_error(denied(body), "write to", "s3://b", Wrong::Write);
        assert_eq!(error.to_string(), "s3://b (AccessDenied) is read-only");
        let error = blob_error(denied(body), "read from", "s3://b", Wrong::Read);
        assert!(matches!(error, BlobError::Io { .. }), "{error}");
        let quota = "507: <Error><Code>QuotaExceeded</Code></Error>";
        let error = blob_error(denied(quota), "write to", "s3://b", Wrong::Write);
        assert!(matches!(error, BlobError::Full(place) if place == "s3://b"));
    }

    #[test]
    fn a_signature_is_never_shown() {
        let shown = presentable("GET http://h/b/k?sig=secret failed:\n x?y");
        assert_eq!(shown, "GET http://h/b/k failed: x?y");
        assert_eq!(presentable(&"é".repeat(1000)).chars().count(), SHOWN + 1);
    }
}
