//! The second Solve of a build that failed: the first one, as far as it says
//! what a build may and sees, with another definition and no exporter.

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::super::rewrite::Entry;
use super::super::splice::{Edit, Malformed, put_field, splice};

// Of `moby.buildkit.v1.SolveRequest` and `CacheOptions` (BuildKit:
// `api/services/control/control.proto`).
const REF: u32 = 1;
const DEFINITION: u32 = 2;
const EXPORTER: u32 = 3;
const EXPORTER_ATTRS: u32 = 4;
const FRONTEND: u32 = 6;
const FRONTEND_ATTRS: u32 = 7;
const CACHE: u32 = 8;
const FRONTEND_INPUTS: u32 = 10;
const INTERNAL: u32 = 11;
const EXPORTERS: u32 = 13;
const SESSION_EXPORTER: u32 = 14;
const CACHE_EXPORTS: u32 = 4;
const CACHE_IMPORTS: u32 = 5;

/// The definition in a `SolveRequest`, where its client names one itself.
pub fn definition(message: &[u8]) -> Option<Vec<u8>> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct SolveRequest {
        #[prost(bytes = "vec", tag = "2")]
        definition: Vec<u8>,
    }
    let request = SolveRequest::decode(message).ok()?;
    Some(request.definition).filter(|definition| !definition.is_empty())
}

/// What stays of a `SolveRequest`: its session, entitlements and source
/// policies, and whatever a newer BuildKit adds. Not its attributes, which are
/// for frontends, and make attestations.
pub fn template(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    splice(message, |number, _| {
        Ok(match number {
            REF | DEFINITION | EXPORTER | EXPORTER_ATTRS | FRONTEND | FRONTEND_ATTRS | CACHE
            | FRONTEND_INPUTS | EXPORTERS => Edit::Drop,
            _ => Edit::Keep,
        })
    })
}

/// A `SolveRequest` for a build `id` of `definition`, which leaves no trace in
/// the build history.
pub fn solve(
    template: &[u8],
    id: &str,
    definition: &[u8],
    exports: &[Entry],
    imports: &[Entry],
) -> Vec<u8> {
    let mut request = template.to_vec();
    put_field(&mut request, REF, id.as_bytes());
    put_field(&mut request, DEFINITION, definition);
    let mut cache = Vec::new();
    for export in exports {
        put_field(&mut cache, CACHE_EXPORTS, &export.encode());
    }
    for import in imports {
        put_field(&mut cache, CACHE_IMPORTS, &import.encode());
    }
    put_field(&mut request, CACHE, &cache);
    // The last value of a field counts.
    put_bool(&mut request, INTERNAL, true);
    put_bool(&mut request, SESSION_EXPORTER, false);
    request
}

fn put_bool(out: &mut impl bytes::BufMut, number: u32, value: bool) {
    encode_key(number, WireType::Varint, out);
    encode_varint(u64::from(value), out);
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;
    use crate::doors::buildkit::proto::control;

    #[test]
    fn what_a_build_may_and_sees_stays_and_what_it_makes_goes() {
        const ENTITLEMENTS: u32 = 9;
        const SOURCE_POLICY: u32 = 12;
        const UNKNOWN: u32 = 99;
        let mut first = control::SolveRequest {
            r#ref: "first".to_owned(),
            session: "session".to_owned(),
            frontend_attrs: [("attest:sbom".to_owned(), String::new())].into(),
            ..control::SolveRequest::default()
        }
        .encode_to_vec();
        for number in [DEFINITION, FRONTEND, CACHE, FRONTEND_INPUTS, EXPORTERS] {
            put_field(&mut first, number, b"");
        }
        put_bool(&mut first, SESSION_EXPORTER, true);
        let mut stays = Vec::new();
        for number in [ENTITLEMENTS, SOURCE_POLICY, UNKNOWN] {
            put_field(&mut stays, number, b"stays");
        }
        first.put_slice(&stays);

        let entry = |kind: &str| Entry {
            kind: kind.to_owned(),
            attributes: [("key".to_owned(), "value".to_owned())].into(),
        };
        let template = template(&first).unwrap();
        let second = solve(&template, "second", b"def", &[entry("a")], &[entry("b")]);
        let parsed = control::SolveRequest::decode(second.as_slice()).unwrap();
        assert_eq!(
            (parsed.r#ref.as_str(), parsed.session.as_str()),
            ("second", "session")
        );
        assert!(parsed.internal && parsed.frontend_attrs.is_empty());
        let cache = parsed.cache.unwrap();
        assert_eq!(Entry::from(cache.exports[0].clone()), entry("a"));
        assert_eq!(Entry::from(cache.imports[0].clone()), entry("b"));
        assert_eq!(definition(&second).unwrap(), b"def");

        let mut found = Vec::new();
        splice(&second, |number, content| {
            if content == b"stays" {
                found.push(number);
            }
            assert!(![FRONTEND, FRONTEND_INPUTS, EXPORTERS].contains(&number));
            Ok::<_, Malformed>(Edit::Keep)
        })
        .unwrap();
        assert_eq!(found, [ENTITLEMENTS, SOURCE_POLICY, UNKNOWN]);
        let mut off = Vec::new();
        put_bool(&mut off, SESSION_EXPORTER, false);
        assert!(second.ends_with(&off));
    }
}
