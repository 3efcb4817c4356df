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
    let whole = error.to_string();
    if wrong == Wrong::Write {
        if FULL.iter().any(|full| whole.contains(full)) {
            return BlobError::Full(place.to_owned());
        }
        if let Error::PermissionDenied { .. } = &error {
            let code = tagged(&whole, "Code").unwrap_or("403");
            return BlobError::ReadOnly(format!("{place} ({code})"));
        }
    }
    BlobError::Io {
        context: format!("cannot {doing} {place}"),
        source: std::io::Error::new(kind, said(&error, &whole)),
    }
}

/// What a user can do something with: the provider's own words where it has
/// answered, or what lies at the bottom of it.
fn said(error: &Error, whole: &str) -> String {
    if let Some(code) = tagged(whole, "Code") {
        return presentable(&match tagged(whole, "Message") {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        });
    }
    let mut bottom: &dyn std::error::Error = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    presentable(&bottom.to_string())
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

/// What a provider's XML says under that name.
fn tagged<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = message.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    (!text.is_empty()).then_some(text)
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
    fn a_providers_own_words_are_shown_and_else_the_innermost() {
        let body = "403: <Error><Code>SlowDown</Code><Message>Please wait</Message><AWSAccessKeyId>k</AWSAccessKeyId></Error>";
        let told = blob_error(denied(body), "read from", "s3://b", Wrong::Read);
        assert_eq!(
            told.to_string(),
            "cannot read from s3://b: SlowDown: Please wait"
        );
        let refused = Error::Generic {
            store: "S3",
            source: Box::new(std::io::Error::other("refused")),
        };
        let told = blob_error(refused, "write to", "s3://b", Wrong::Write);
        assert_eq!(told.to_string(), "cannot write to s3://b: refused");
    }

    #[test]
    fn a_signature_is_never_shown() {
        let shown = presentable("GET http://h/b/k?sig=secret failed:\n x?y");
        assert_eq!(shown, "GET http://h/b/k failed: x?y");
        assert_eq!(presentable(&"é".repeat(1000)).chars().count(), SHOWN + 1);
    }
}
