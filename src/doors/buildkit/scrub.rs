//! Names that are our own business, taken out of what a user reads.
//!
//! An import or export has a name for buildkitd that cannot be guessed, and an
//! address on loopback where it is pulled. buildkitd puts both into its errors,
//! where they tell nobody anything.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;

use super::build::Build;
use super::content::PREFIX;
use super::grpc::Body;
use super::splice::{Edit, Malformed, spliced};

/// As gRPC writes binary headers: unpadded, and read either way.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Hex digits behind the prefix of a name.
const DIGITS: usize = 32;
/// What stands in their place.
const PLAIN: &str = "layerd";

/// The text without names of ours and without `address`, where imports are
/// pulled; `None` where it holds neither.
pub fn scrubbed(text: &str, address: Option<&str>) -> Option<String> {
    let named = without_names(text);
    let addressed = address
        .filter(|address| text.contains(address))
        .map(|address| without_address(named.as_deref().unwrap_or(text), address));
    addressed.or(named)
}

/// An answer whose error, if it is one, is scrubbed.
pub fn scrubbed_answer(mut answer: Response<Body>, build: &Arc<Build>) -> Response<Body> {
    let build = build.clone();
    scrub_status(answer.headers_mut(), &build);
    answer.map(|body| {
        body.map_frame(move |mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                scrub_status(trailers, &build);
            }
            frame
        })
        .boxed_unsync()
    })
}

/// An error travels twice: as text, and as a `google.rpc.Status` with details,
/// which is the one that clients in Go read.
fn scrub_status(headers: &mut HeaderMap, build: &Build) {
    const MESSAGE: &str = "grpc-message";
    const STATUS: &str = "grpc-status-details-bin";
    const STATUS_MESSAGE: u32 = 2;
    let import = build.import.get().and_then(Option::as_ref);
    let address = import.and_then(|import| import.address());
    let message = headers.get(MESSAGE).and_then(|text| text.to_str().ok());
    if let Some(text) = message.and_then(|text| scrubbed(text, address))
        && let Ok(text) = HeaderValue::from_str(&text)
    {
        headers.insert(MESSAGE, text);
    }
    let status = headers.get(STATUS).and_then(|text| {
        let status = BASE64.decode(text.as_bytes()).ok()?;
        spliced(&status, |number, content| {
            let text = std::str::from_utf8(content).ok();
            let text = text.filter(|_| number == STATUS_MESSAGE);
            Ok::<_, Malformed>(match text.and_then(|text| scrubbed(text, address)) {
                Some(text) => Edit::Replace(text.into_bytes()),
                None => Edit::Keep,
            })
        })
        .ok()?
    });
    if let Some(status) = status
        && let Ok(text) = HeaderValue::from_str(&BASE64.encode(status))
    {
        headers.insert(STATUS, text);
    }
}

fn without_names(text: &str) -> Option<String> {
    let mut out = None::<String>;
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, from) = rest.split_at(at);
        let behind = &from[PREFIX.len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_hexdigit).count();
        let out = out.get_or_insert_default();
        out.push_str(before);
        if digits == DIGITS {
            out.push_str(PLAIN);
            rest = &behind[DIGITS..];
        } else {
            out.push_str(PREFIX);
            rest = behind;
        }
    }
    let mut out = out?;
    out.push_str(rest);
    (out != text).then_some(out)
}

/// Also without the other end of a connection to it: `10.0.0.1:5->address`.
fn without_address(text: &str, address: &str) -> String {
    let text = text.replace(&format!("http://{address}"), PLAIN);
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(address) {
        let before = &rest[..at];
        let other = before
            .strip_suffix("->")
            .map(|before| before.trim_end_matches(|letter: char| !letter.is_whitespace()));
        out.push_str(other.unwrap_or(before));
        out.push_str(PLAIN);
        rest = &rest[at + address.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_go_and_the_rest_stays() {
        let name = format!("{PREFIX}{}", "0123456789abcdef".repeat(2));
        let address = "127.0.0.1:4711";
        for (text, expected) in [
            (
                format!("Get \"http://{address}/{name}/blobs/sha256:00\": EOF"),
                "Get \"layerd/layerd/blobs/sha256:00\": EOF",
            ),
            (
                format!("read tcp 127.0.0.1:5555->{address}: reset, dial tcp {address}: refused"),
                "read tcp layerd: reset, dial tcp layerd: refused",
            ),
            (
                format!("local:{name} and layerd-tools, {name}"),
                "local:layerd and layerd-tools, layerd",
            ),
        ] {
            assert_eq!(scrubbed(&text, Some(address)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_holds_neither_is_left_alone() {
        for text in ["RUN layerd-x", "layerd-0123", "dial tcp 127.0.0.1:80", ""] {
            assert_eq!(scrubbed(text, Some("127.0.0.1:4711")), None);
            assert_eq!(scrubbed(text, None), None);
        }
    }
}
