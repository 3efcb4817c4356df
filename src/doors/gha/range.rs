//! Which bytes a request is about: `Content-Range` of a chunk that comes in,
//! `Range` and Azure's `x-ms-range` of what goes out.

use http::HeaderMap;
use http::header::{HeaderName, RANGE};

/// What Azure's clients send in place of `Range`
/// (learn.microsoft.com/rest/api/storageservices/get-blob).
pub const X_MS_RANGE: HeaderName = HeaderName::from_static("x-ms-range");

/// Bytes from `start` on, `length` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// Where a chunk belongs, by `bytes 0-9/*`; the size behind the slash may be
/// told as well, and then the chunk lies within.
pub fn of_chunk(text: &str) -> Option<Span> {
    let range = text.trim().strip_prefix("bytes ")?;
    let (range, size) = range.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (number(start)?, number(end)?);
    if size != "*" && end >= number(size)? {
        return None;
    }
    let length = end.checked_sub(start)?.checked_add(1)?;
    Some(Span { start, length })
}

/// What is wanted of something of `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    All,
    /// A part.
    Part(Span),
    /// A part that it has not, or what can't be read as a range.
    Nothing,
}

/// Reads what is wanted out of a request. Azure's clients don't look at the
/// status of the answer, so that what is not understood of theirs must be an
/// error; of the ordinary header it counts as not there (RFC 9110, 14.2).
pub fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let azure = headers.get(X_MS_RANGE);
    let Some(range) = azure.or_else(|| headers.get(RANGE)) else {
        return Wanted::All;
    };
    let parsed = range.to_str().ok().and_then(|text| part(text, size));
    match parsed {
        Some(wanted) => wanted,
        None if azure.is_some() => Wanted::Nothing,
        None => Wanted::All,
    }
}

/// A part of `size` bytes, by `bytes=0-9`, `bytes=5-` or `bytes=-3`; none where
/// that is not what it says, or where it says several.
fn part(text: &str, size: u64) -> Option<Wanted> {
    let (start, end) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (start, end) {
        ("", "") => return None,
        ("", last) => (size.saturating_sub(number(last)?), u64::MAX),
        (start, "") => (number(start)?, u64::MAX),
        (start, end) => (number(start)?, number(end)?),
    };
    if end < start {
        return None;
    }
    if start >= size {
        return Some(Wanted::Nothing);
    }
    let length = end.min(size - 1) - start + 1;
    Some(Wanted::Part(Span { start, length }))
}

/// Digits alone: no sign, no space.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, length: u64) -> Span {
        Span { start, length }
    }

    #[test]
    fn a_chunk_says_where_it_belongs() {
        assert_eq!(of_chunk("bytes 0-9/*"), Some(span(0, 10)));
        assert_eq!(of_chunk("bytes 5-5/100"), Some(span(5, 1)));
        assert_eq!(of_chunk("bytes 0-9/10"), Some(span(0, 10)));
        for text in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes=0-9/*",
            "bytes 9-0/*",
            "bytes -9/*",
            "bytes 0-/*",
            "bytes +0-9/*",
            "bytes 0-9/x",
            "bytes 0-2/2",
            "bytes 0-0/0",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes */10",
            "items 0-9/*",
        ] {
            assert_eq!(of_chunk(text), None, "{text}");
        }
    }

    #[test]
    fn a_part_is_cut_to_what_is_there() {
        for (text, expected) in [
            ("bytes=0-9", Some(Wanted::Part(span(0, 10)))),
            ("bytes=90-", Some(Wanted::Part(span(90, 10)))),
            ("bytes=95-200", Some(Wanted::Part(span(95, 5)))),
            ("bytes=-3", Some(Wanted::Part(span(97, 3)))),
            ("bytes=-300", Some(Wanted::Part(span(0, 100)))),
            ("bytes=100-", Some(Wanted::Nothing)),
            ("bytes=-0", Some(Wanted::Nothing)),
            ("bytes=9-0", None),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("lines=0-9", None),
        ] {
            assert_eq!(part(text, 100), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Some(Wanted::Nothing));
        assert_eq!(part("bytes=-5", 0), Some(Wanted::Nothing));
    }

    #[test]
    fn azures_header_goes_before_the_ordinary_one_and_must_be_understood() {
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers, 10), Wanted::All);
        headers.insert(RANGE, "pages=1-2".parse().unwrap());
        assert_eq!(wanted(&headers, 10), Wanted::All);
        headers.insert(X_MS_RANGE, "bytes=2-".parse().unwrap());
        assert_eq!(wanted(&headers, 10), Wanted::Part(span(2, 8)));
        headers.insert(X_MS_RANGE, "pages=1-2".parse().unwrap());
        assert_eq!(wanted(&headers, 10), Wanted::Nothing);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_lies_within(text in "bytes=[0-9]{0,3}-[0-9]{0,21}", size in 0_u64..500) {
            if let Some(Wanted::Part(Span { start, length })) = part(&text, size) {
                prop_assert!(length > 0 && start + length <= size);
            }
        }
    }
}
