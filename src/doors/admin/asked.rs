//! What is asked: queries, bodies and names in paths, taken apart strictly.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::MAX_BODY;
use super::told::Failure;

/// A query of which every parameter is known and there once.
pub(super) struct Ask<T>(pub(super) T);

/// A query without parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Ask<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => {
                let text = rejection.body_text();
                let why = text.strip_prefix("Failed to deserialize query string: ");
                let why = cut(&plain(why.unwrap_or(&text)));
                Err(Failure::request(format!(
                    "the query is not as it should be: {why}"
                )))
            }
        }
    }
}

/// A name in a path, with its slashes encoded.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T> FromRequestParts<S> for Named<T>
where
    T: FromStr<Err: Display>,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection| Failure::request(cut(&rejection.body_text())))?;
        match name.parse() {
            Ok(name) => Ok(Self(name)),
            Err(error) => Err(Failure::request(format!("the path names nothing: {error}"))),
        }
    }
}

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body has to be application/json",
            ));
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(unread)?;
        // A list would be taken for the fields in their order: an empty one for
        // a request that narrows nothing down.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Failure::request("the body has to be a JSON object"));
        }
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            Failure::request(cut(&format!("the body is not as it should be: {error}")))
        })
    }
}

fn unread(rejection: BytesRejection) -> Failure {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("a body has at most {MAX_BODY} bytes"),
        ),
        _ => Failure::request("the body could not be read"),
    }
}

/// What is wrong with a number, in words for people.
fn plain(why: &str) -> String {
    const WORDS: [(&str, &str); 4] = [
        (
            "number too large to fit in target type",
            "that number is larger than any that is known here",
        ),
        (
            "number too small to fit in target type",
            "that number is smaller than any that is known here",
        ),
        (
            "invalid digit found in string",
            "a whole number is expected",
        ),
        (
            "cannot parse integer from empty string",
            "a whole number is expected",
        ),
    ];
    let known = WORDS
        .iter()
        .find_map(|(said, plain)| Some(format!("{}{plain}", why.strip_suffix(said)?)));
    known.unwrap_or_else(|| why.to_owned())
}

/// So much of a text as an answer can take: what was sent may be in there.
fn cut(text: &str) -> String {
    const MAX: usize = 300;
    match text.char_indices().nth(MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_is_told_of_in_plain_words_whatever_stands_before() {
        for (number, words) in [
            ("99999999999999999999", "larger than any"),
            ("-99999999999999999999", "smaller than any"),
            ("x", "a whole number is expected"),
            ("", "a whole number is expected"),
        ] {
            let why = number.parse::<i64>().unwrap_err();
            let told = plain(&format!("after: {why}"));
            assert!(
                told.starts_with("after: ") && told.contains(words),
                "{told}"
            );
        }
        assert_eq!(plain("unknown field"), "unknown field");
    }
}
