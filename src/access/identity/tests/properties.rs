//! No claim, whatever it holds, widens what a rule grants.

use proptest::prelude::*;
use serde_json::json;

use super::super::{ProjectTemplate, RefTemplate, Unfit};
use super::claims;
use crate::place::GitRef;

/// Values as a stranger would choose them.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z/*{}.\\\\@~^:?\\[ \u{0}\u{202e}-]{0,8}",
        Just("refs/heads/main".to_owned()),
        Just("**".to_owned()),
        Just("{sub}".to_owned()),
        Just("../../main".to_owned()),
        Just("7/merge".to_owned()),
        any::<String>(),
    ]
}

fn template() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("{a}"),
        Just("refs/heads/{a}"),
        Just("{a}-x"),
        Just("refs/pull/{a}/merge"),
        Just("refs/merge-requests/{a}/{b}"),
        Just("users/{a}/**"),
    ]
}

proptest! {
    #[test]
    fn a_filled_ref_matches_no_more_than_the_rule_has_wildcards_for(
        text in template(), a in value(), b in value(), other in "[a-z]{1,5}",
    ) {
        // What is no branch pattern can't become one: a claim that comes first
        // is a whole ref.
        let Ok(template) = RefTemplate::parse(text) else { return Ok(()) };
        let said = claims(json!({"a": a, "b": b}));
        let Ok(pattern) = template.fill(&said) else { return Ok(()) };
        prop_assert_eq!(pattern.as_str().matches('*').count(), text.matches('*').count());
        prop_assert!(!pattern.is_every());
        let start = text.split('{').next().unwrap();
        let start = match start {
            "" => "refs/".to_owned(),
            start if start.starts_with("refs/") => start.to_owned(),
            start => format!("refs/heads/{start}"),
        };
        prop_assert!(pattern.as_str().starts_with(&start), "{} {}", pattern, start);
        if !text.contains('*') {
            let exact = pattern.exact().expect("one ref");
            prop_assert_eq!(exact.as_str(), pattern.as_str());
            let other: GitRef = other.parse().unwrap();
            prop_assert_eq!(pattern.matches(&other), exact == other);
        }
    }

    #[test]
    fn two_identities_fill_no_text_alike(
        one in value(), two in value(), three in value(), four in value(),
    ) {
        for text in ["refs/merge-requests/{a}/{b}", "refs/x-{a}/y-{b}"] {
            let template = RefTemplate::parse(text).unwrap();
            let fill = |a: &str, b: &str| template.fill(&claims(json!({"a": a, "b": b})));
            if let (Ok(first), Ok(second)) = (fill(&one, &two), fill(&three, &four)) {
                prop_assert_eq!(first == second, (&one, &two) == (&three, &four));
            }
        }
        let template = ProjectTemplate::parse("{a}/{b}").unwrap();
        let fill = |a: &str, b: &str| template.fill(&claims(json!({"a": a, "b": b})));
        if let (Ok(first), Ok(second)) = (fill(&one, &two), fill(&three, &four)) {
            prop_assert_eq!(first == second, (&one, &two) == (&three, &four));
        }
    }
}

#[test]
fn what_is_no_name_is_refused_and_what_is_not_there_is_told() {
    let template = RefTemplate::parse("refs/heads/{ref}").unwrap();
    for wrong in [
        "*", "a*", "**", "a b", "a\nb", "../x", "/x", "x/", "a//b", "x.lock", "[a]",
    ] {
        let error = template.fill(&claims(json!({"ref": wrong}))).unwrap_err();
        assert!(matches!(error, Unfit::Value { .. }), "{wrong}: {error}");
    }
    for absent in [
        json!({}),
        json!({"ref": ""}),
        json!({"ref": null}),
        json!({"ref": ["a"]}),
    ] {
        let error = template.fill(&claims(absent)).unwrap_err();
        assert_eq!(error, Unfit::Absent("ref".to_owned()));
    }
    // A branch may be called like a ref; that does not make it one.
    let named = template
        .fill(&claims(json!({"ref": "refs/pull/7/merge"})))
        .unwrap();
    assert_eq!(named.as_str(), "refs/heads/refs/pull/7/merge");
    let whole = RefTemplate::parse("{ref}").unwrap();
    let error = whole.fill(&claims(json!({"ref": "main"}))).unwrap_err();
    assert!(error.to_string().contains("refs/heads/{ref}"), "{error}");
}

#[test]
fn several_claims_are_kept_apart() {
    for wrong in [
        "{a}{b}",
        "{a}-{b}",
        "refs/heads/{a}.{b}",
        "{",
        "}",
        "{}",
        "a{b",
        "",
    ] {
        assert!(RefTemplate::parse(wrong).is_err(), "{wrong}");
        assert!(ProjectTemplate::parse(wrong).is_err(), "{wrong}");
    }
    let template = ProjectTemplate::parse("{a}/{b}").unwrap();
    let error = template.fill(&claims(json!({"a": "x/y", "b": "z"})));
    assert!(error.unwrap_err().to_string().contains("segment"));
}
