//! Has BuildKit look at the client's files anew.
//!
//! In one session BuildKit knows files that it has read by a random name, finds
//! what was made of them by that, and leaves all of it out of an export, since
//! the name means nothing elsewhere (BuildKit: `source/local`, `CacheKey`, and
//! `ExportTo`). A second build of a session therefore exports nothing that
//! stands on its context. One pattern more among those that are excluded, which
//! nothing matches, makes the files strange again: BuildKit asks the client
//! what has changed since, which is nothing, and finds the rest by content.

use std::collections::HashMap;

use prost::Message as _;

use super::super::splice::{Edit, Malformed, put_field, splice};
use crate::digest::Digest;

/// How the source of a client's files is named.
const LOCAL: &[u8] = b"local://";
/// Its attribute with the patterns, a list in JSON.
const EXCLUDED: &str = "local.excludepatterns";

/// The operation with `pattern` excluded, where it reads a client's files.
pub fn source(operation: &[u8], pattern: &str) -> Result<Option<Vec<u8>>, Malformed> {
    const SOURCE: u32 = 3;
    const IDENTIFIER: u32 = 1;
    const ATTRS: u32 = 2;
    let mut is_local = false;
    let edited = splice(operation, |number, source| {
        if number != SOURCE {
            return Ok::<_, Malformed>(Edit::Keep);
        }
        let mut patterns = Vec::new();
        let mut edited = splice(source, |number, content| {
            match number {
                IDENTIFIER => is_local = content.starts_with(LOCAL),
                ATTRS => {
                    let attribute = Attribute::decode(content).map_err(|_| Malformed)?;
                    if attribute.key == EXCLUDED {
                        patterns = serde_json::from_str(&attribute.value).map_err(|_| Malformed)?;
                        return Ok(Edit::Drop);
                    }
                }
                _ => {}
            }
            Ok::<_, Malformed>(Edit::Keep)
        })?;
        patterns.push(pattern.to_owned());
        let attribute = Attribute {
            key: EXCLUDED.to_owned(),
            value: serde_json::Value::from(patterns).to_string(),
        };
        put_field(&mut edited, ATTRS, &attribute.encode_to_vec());
        Ok(Edit::Replace(edited))
    })?;
    Ok(is_local.then_some(edited))
}

/// The operation with its inputs renamed, where any is.
pub fn above(
    operation: &[u8],
    renamed: &HashMap<Digest, Digest>,
) -> Result<Option<Vec<u8>>, Malformed> {
    const INPUTS: u32 = 1;
    const DIGEST: u32 = 1;
    let mut any = false;
    let edited = splice(operation, |number, input| {
        if number != INPUTS {
            return Ok::<_, Malformed>(Edit::Keep);
        }
        let input = splice(input, |number, content| {
            let name = std::str::from_utf8(content)
                .ok()
                .and_then(|name| name.parse().ok());
            let new = name.and_then(|name: Digest| renamed.get(&name));
            let Some(new) = new.filter(|_| number == DIGEST) else {
                return Ok::<_, Malformed>(Edit::Keep);
            };
            any = true;
            Ok(Edit::Replace(new.to_string().into_bytes()))
        })?;
        Ok(Edit::Replace(input))
    })?;
    Ok(any.then_some(edited))
}

/// One entry of a map of strings.
#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(identifier: &str, attributes: &[(&str, &str)]) -> Vec<u8> {
        let (mut source, mut out) = (Vec::new(), Vec::new());
        put_field(&mut source, 1, identifier.as_bytes());
        for (key, value) in attributes {
            let attribute = Attribute {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            };
            put_field(&mut source, 2, &attribute.encode_to_vec());
        }
        put_field(&mut out, 3, &source);
        put_field(&mut out, 99, b"whatever else");
        out
    }

    #[test]
    fn a_pattern_is_added_to_those_of_a_clients_files_and_of_nothing_else() {
        let session = ("local.session", "s");
        let bare = operation("local://context", &[session]);
        let one = operation("local://context", &[session, (EXCLUDED, r#"["none"]"#)]);
        assert_eq!(source(&bare, "none"), Ok(Some(one.clone())));
        let two = operation("local://context", &[session, (EXCLUDED, r#"["none","n"]"#)]);
        assert_eq!(source(&one, "n"), Ok(Some(two)));
        let image = operation("docker-image://docker.io/library/alpine", &[]);
        assert_eq!(source(&image, "none"), Ok(None));
        assert_eq!(source(b"", "none"), Ok(None));
        let broken = operation("local://context", &[(EXCLUDED, "no list")]);
        assert_eq!(source(&broken, "none"), Err(Malformed));
    }

    #[test]
    fn only_inputs_that_are_renamed_change() {
        let [old, new, other] = [b"old", b"new", b"oth"].map(|name| Digest::of(name));
        let with = |name: Digest| {
            let mut out = Vec::new();
            for name in [name, other] {
                let mut input = Vec::new();
                put_field(&mut input, 1, name.to_string().as_bytes());
                put_field(&mut out, 1, &input);
            }
            put_field(&mut out, 2, b"exec");
            out
        };
        let renamed = [(old, new)].into();
        assert_eq!(above(&with(old), &renamed), Ok(Some(with(new))));
        assert_eq!(above(&with(new), &renamed), Ok(None));
    }
}
