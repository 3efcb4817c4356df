//! What rewriting promises, on messages that BuildKit's clients send.

use proptest::prelude::*;

use super::*;

fn entry(kind: &str, attributes: &[(&str, &str)]) -> Entry {
    let attributes = attributes
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Entry {
        kind: kind.to_owned(),
        attributes,
    }
}

fn ours(scope: &str) -> Entry {
    entry(TYPE, &[("scope", scope), ("token", "s3cret")])
}

fn served() -> Entry {
    let mut served = entry("local", &[("src", "layerd-1"), ("digest", "sha256:00")]);
    served.remember(&[ours("a"), ours("b")]);
    served
}

fn control_entry(entry: &Entry) -> control::CacheOptionsEntry {
    control::CacheOptionsEntry {
        r#type: entry.kind.clone(),
        attrs: entry.attributes.clone().into_iter().collect(),
    }
}

fn json(entries: &[Entry]) -> String {
    Value::Array(entries.iter().map(Entry::to_json).collect()).to_string()
}

/// A request with fields that layerd doesn't know before and behind.
fn request(exports: &[Entry], imports: &[Entry]) -> Vec<u8> {
    let mut message = vec![0xa2, 0x06, 0x03, b'n', b'e', b'w'];
    let known = control::SolveRequest {
        r#ref: "build".to_owned(),
        session: "session".to_owned(),
        frontend_attrs: HashMap::from([
            ("filename".to_owned(), "Dockerfile".to_owned()),
            (CACHE_IMPORTS.to_owned(), json(imports)),
        ]),
        cache: Some(control::CacheOptions {
            exports: exports.iter().map(control_entry).collect(),
            imports: imports.iter().map(control_entry).collect(),
        }),
        internal: false,
    };
    message.extend(known.encode_to_vec());
    message.extend([0xf8, 0x07, 0x01]);
    message
}

#[test]
fn our_exports_come_first_and_the_others_stay() {
    let user = entry("local", &[("dest", "/tmp/x")]);
    let new = [entry("local", &[("dest", "layerd-2")])];
    let message = request(&[user.clone(), ours("a")], &[]);
    let parsed = SolveRequest::parse(&solve_request(&message, &new, None).unwrap()).unwrap();
    assert_eq!(parsed.exports, [new[0].clone(), user]);
}

#[test]
fn all_our_imports_become_one_in_every_carrier() {
    let user = entry("registry", &[("ref", "r")]);
    let message = request(&[], &[ours("a"), user.clone(), ours("b")]);
    let rewritten = solve_request(&message, &[], Some(&served())).unwrap();
    let decoded = control::SolveRequest::decode(rewritten.as_slice()).unwrap();
    let listed: Vec<Entry> = decoded
        .cache
        .unwrap()
        .imports
        .into_iter()
        .map(Entry::from)
        .collect();
    assert_eq!(listed, [served(), user.clone()]);
    let told: Vec<Value> = serde_json::from_str(&decoded.frontend_attrs[CACHE_IMPORTS]).unwrap();
    assert_eq!(
        told.iter()
            .map(|value| Entry::from_json(value).unwrap())
            .collect::<Vec<_>>(),
        [served(), user]
    );
    assert_eq!(
        solve_request(&rewritten, &[], Some(&served()))
            .unwrap()
            .len(),
        rewritten.len()
    );
}

#[test]
fn with_nothing_to_serve_our_imports_go_and_the_unknown_stays() {
    let message = request(&[], &[ours("a")]);
    let rewritten = solve_request(&message, &[], None).unwrap();
    assert!(SolveRequest::parse(&rewritten).unwrap().imports.is_empty());
    assert!(rewritten.starts_with(&message[..6]) && rewritten.ends_with(&[0xf8, 0x07, 0x01]));
}

#[test]
fn the_gateways_two_carriers_are_rewritten_alike() {
    let request = gateway::SolveRequest {
        frontend_opt: HashMap::from([(CACHE_IMPORTS.to_owned(), json(&[ours("a")]))]),
        cache_imports: vec![gateway::CacheOptionsEntry {
            r#type: TYPE.to_owned(),
            attrs: HashMap::new(),
        }],
    };
    let message = request.encode_to_vec();
    assert_eq!(gateway_imports(&message).unwrap().len(), 2);
    let rewritten = gateway_solve_request(&message, Some(&served())).unwrap();
    assert_eq!(gateway_imports(&rewritten).unwrap(), [served()]);
}

#[test]
fn history_shows_what_was_written_without_secrets() {
    let record = control::BuildHistoryRecord {
        r#ref: "build".to_owned(),
        frontend_attrs: HashMap::from([(CACHE_IMPORTS.to_owned(), json(&[served()]))]),
    };
    let event = control::BuildHistoryEvent {
        record: Some(record),
    }
    .encode_to_vec();
    let shown = history_event(&event, |_| vec![ours("left-out")]).unwrap();
    let attrs = control::BuildHistoryEvent::decode(shown.as_slice())
        .unwrap()
        .record
        .unwrap()
        .frontend_attrs;
    let text = &attrs[CACHE_IMPORTS];
    assert!(
        !text.contains("s3cret") && !text.contains("layerd-1"),
        "{text}"
    );
    let shown: Vec<Value> = serde_json::from_str(text).unwrap();
    let scopes: Vec<_> = shown
        .iter()
        .map(|value| Entry::from_json(value).unwrap().attributes["scope"].clone())
        .collect();
    assert_eq!(scopes, ["left-out", "a", "b"]);
}

#[test]
fn only_the_cache_manifest_goes_from_a_response() {
    let response = HashMap::from([
        ("cache.manifest".to_owned(), "{}".to_owned()),
        ("other".to_owned(), "x".to_owned()),
    ]);
    let message = control::SolveResponse {
        exporter_response: response,
    }
    .encode_to_vec();
    let rest = control::SolveResponse::decode(without_cache_manifest(&message).unwrap().as_slice())
        .unwrap();
    assert_eq!(rest.exporter_response.keys().collect::<Vec<_>>(), ["other"]);
}

proptest! {
    #[test]
    fn any_bytes_are_rewritten_or_refused(bytes in any::<Vec<u8>>()) {
        let _ = SolveRequest::parse(&bytes);
        let _ = solve_request(&bytes, &[served()], Some(&served()));
        let _ = gateway_solve_request(&bytes, Some(&served()));
        let _ = history_event(&bytes, |_| Vec::new());
        let _ = without_cache_manifest(&bytes);
    }

    #[test]
    fn a_request_without_our_entries_keeps_its_meaning(kinds in proptest::collection::vec("[a-z]{1,8}", 0..5)) {
        let entries: Vec<Entry> = kinds.iter().map(|kind| entry(kind, &[("k", "v")])).collect();
        let message = request(&entries, &entries);
        let rewritten = solve_request(&message, &[], None).unwrap();
        let (before, after) = (SolveRequest::parse(&message).unwrap(), SolveRequest::parse(&rewritten).unwrap());
        prop_assert_eq!(before.exports, after.exports);
        prop_assert_eq!(before.imports, after.imports);
    }
}
