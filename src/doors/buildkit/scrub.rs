//! Names that are our own business, taken out of what a user reads.
//!
//! An import or export has a name for buildkitd that cannot be guessed, and an
//! address on loopback where it is pulled. buildkitd puts both into its errors,
//! where they tell nobody anything. An address can stand in what a step prints,
//! too, and that is the user's: it goes where buildkitd speaks of a pull alone.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;

use super::Door;
use super::build::Build;
use super::grpc::Body;
use super::names::{DIGITS, Names, PREFIX};
use super::splice::{Edit, Malformed, spliced};

/// As gRPC writes binary headers: unpadded, and read either way.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands in place of them.
const PLAIN: &str = "layerd";
/// What buildkitd puts before the error of a pull that it tries again, in the
/// log of the step that needs it.
const RETRIED: &str = "error: ";

/// What nobody is to read of a build.
pub struct Private<'a> {
    names: &'a Names,
    /// Where its import is pulled, if it is.
    address: Option<&'a str>,
}

impl<'a> Private<'a> {
    /// Of that build, and the names of others that its vertices are shared with.
    pub fn of(door: &'a Door, build: &'a Build) -> Self {
        let import = build.import.get().and_then(Option::as_ref);
        Self {
            names: &door.stores.names,
            address: import.and_then(|import| import.address()),
        }
    }

    /// What buildkitd says without it; `None` where it says nothing of it.
    pub fn gone_from(&self, text: &str) -> Option<String> {
        self.without(text, |_| true)
    }

    /// The same of a log, most of which is what steps print.
    pub fn gone_from_log(&self, text: &str) -> Option<String> {
        self.without(text, |line| line.starts_with(RETRIED))
    }

    /// The address goes from lines that hold a name, and from those that tell of
    /// a connection to it and are `buildkitds` own.
    fn without(&self, text: &str, buildkitds: impl Fn(&str) -> bool) -> Option<String> {
        let mut out = None::<String>;
        let mut done = 0;
        for line in text.split_inclusive('\n') {
            let named = self.without_names(line);
            let address = self.address.filter(|address| {
                named.is_some() || (buildkitds(line) && is_of_connection(line, address))
            });
            let cleaned = match address {
                Some(address) => Some(without_address(named.as_deref().unwrap_or(line), address)),
                None => named,
            };
            if let Some(cleaned) = cleaned {
                out.get_or_insert_with(|| text[..done].to_owned())
                    .push_str(&cleaned);
            } else if let Some(out) = &mut out {
                out.push_str(line);
            }
            done += line.len();
        }
        out
    }

    fn without_names(&self, line: &str) -> Option<String> {
        let mut out = None::<String>;
        let (mut rest, mut kept) = (line, line);
        while let Some(at) = rest.find(PREFIX) {
            let from = &rest[at..];
            let name = from.get(..PREFIX.len() + DIGITS);
            if let Some(name) = name.filter(|name| self.names.has(name)) {
                let out = out.get_or_insert_default();
                out.push_str(&kept[..kept.len() - from.len()]);
                out.push_str(PLAIN);
                rest = &from[name.len()..];
                kept = rest;
            } else {
                rest = &from[PREFIX.len()..];
            }
        }
        out.map(|out| out + kept)
    }
}

/// Whether a line is Go's account of a connection to `address`.
fn is_of_connection(line: &str, address: &str) -> bool {
    line.contains(&format!("dial tcp {address}")) || line.contains(&format!("->{address}"))
}

/// An answer whose error, if it is one, is scrubbed.
pub fn scrubbed_answer(
    mut answer: Response<Body>,
    door: &Arc<Door>,
    build: &Arc<Build>,
) -> Response<Body> {
    let (door, build) = (door.clone(), build.clone());
    scrub_status(answer.headers_mut(), &Private::of(&door, &build));
    answer.map(|body| {
        body.map_frame(move |mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                scrub_status(trailers, &Private::of(&door, &build));
            }
            frame
        })
        .boxed_unsync()
    })
}

/// An error travels twice: as text, and as a `google.rpc.Status` with details,
/// which is the one that clients in Go read.
fn scrub_status(headers: &mut HeaderMap, private: &Private<'_>) {
    const MESSAGE: &str = "grpc-message";
    const STATUS: &str = "grpc-status-details-bin";
    const STATUS_MESSAGE: u32 = 2;
    let message = headers.get(MESSAGE).and_then(|text| text.to_str().ok());
    if let Some(text) = message.and_then(|text| private.gone_from(text))
        && let Ok(text) = HeaderValue::from_str(&text)
    {
        headers.insert(MESSAGE, text);
    }
    let status = headers.get(STATUS).and_then(|text| {
        let status = BASE64.decode(text.as_bytes()).ok()?;
        spliced(&status, |number, content| {
            let text = std::str::from_utf8(content).ok();
            let text = text.filter(|_| number == STATUS_MESSAGE);
            Ok::<_, Malformed>(match text.and_then(|text| private.gone_from(text)) {
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

    const ADDRESS: &str = "127.0.0.1:4711";

    fn private(names: &Names) -> Private<'_> {
        Private {
            names,
            address: Some(ADDRESS),
        }
    }

    #[test]
    fn names_and_addresses_go_and_the_rest_stays() {
        let names = Names::default();
        let (name, other) = (names.give(), names.give());
        for (text, expected) in [
            (
                format!("Get \"http://{ADDRESS}/{name}/blobs/sha256:00\": EOF"),
                "Get \"layerd/layerd/blobs/sha256:00\": EOF",
            ),
            (
                format!("read tcp 127.0.0.1:5555->{ADDRESS}: reset, dial tcp {ADDRESS}: refused"),
                "read tcp layerd: reset, dial tcp layerd: refused",
            ),
            (
                format!("local:{name} and layerd-tools, {other}"),
                "local:layerd and layerd-tools, layerd",
            ),
            (
                format!("one {ADDRESS}\ntwo {name} {ADDRESS}\nthree {ADDRESS}\n"),
                "one 127.0.0.1:4711\ntwo layerd layerd\nthree 127.0.0.1:4711\n",
            ),
        ] {
            let cleaned = private(&names).gone_from(&text);
            assert_eq!(cleaned.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_holds_neither_is_left_alone() {
        let names = Names::default();
        let unknown = Names::default().give();
        for text in [
            "RUN layerd-x",
            "layerd-0123ü",
            &unknown,
            "dial tcp 127.0.0.1:80",
            "",
        ] {
            assert_eq!(private(&names).gone_from(text), None);
        }
    }

    #[test]
    fn what_a_step_prints_is_the_users_and_what_buildkitd_puts_between_is_not() {
        let names = Names::default();
        for printed in [
            format!("{} {ADDRESS}\n", Names::default().give()),
            format!("serving at {ADDRESS}\n"),
            format!("curl: dial tcp {ADDRESS}: refused\n"),
            format!("error: no answer from {ADDRESS}\n"),
        ] {
            assert_eq!(private(&names).gone_from_log(&printed), None);
        }
        let between = format!("error: read tcp 127.0.0.1:5555->{ADDRESS}: reset\n");
        let cleaned = private(&names).gone_from_log(&between);
        assert_eq!(cleaned.as_deref(), Some("error: read tcp layerd: reset\n"));
    }
}
