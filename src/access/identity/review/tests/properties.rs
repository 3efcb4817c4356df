//! What the review calls unreachable is, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::reach::Question;
use super::super::{EFFORT, Effort, never};
use super::{GITHUB, OTHER, own, parsed};
use crate::access::glob::Found;
use crate::access::identity::{Claims, Condition, Config, Issuer, ProjectTemplate, Rule};
use crate::access::identity::{RefTemplate, SubjectTemplate};

/// One rule, by what it asks for.
fn rule(name: usize, conditions: &[(&str, Vec<String>)]) -> Option<Rule> {
    let conditions = conditions.iter().map(|(claim, any)| {
        let any: Option<Vec<_>> = any.iter().map(|text| text.parse().ok()).collect();
        Some(Condition {
            claim: (*claim).to_owned(),
            any: any?,
        })
    });
    Some(Rule {
        name: name.to_string(),
        issuer: "ci".to_owned(),
        preset: None,
        conditions: conditions.collect::<Option<_>>()?,
        project: ProjectTemplate::parse("p").unwrap(),
        read: vec![RefTemplate::parse("main").unwrap()],
        write: Vec::new(),
        lifetime: Duration::from_secs(60),
        subject: SubjectTemplate::parse("{sub}").unwrap(),
    })
}

fn issuer(url: &str) -> Issuer {
    let rules = own("sub = 'repo:acme/shop:x'", "project = 'p'\nread = ['main']");
    let config = parsed(url, &rules).unwrap();
    config.issuer("ci").unwrap().clone()
}

/// Whether a hub takes the claims at all.
fn counts(claims: &Claims, issuer: &Issuer) -> bool {
    let audiences = claims.texts("aud");
    claims.text("iss").as_deref() == Some(&issuer.url)
        && audiences
            .iter()
            .any(|audience| issuer.audience.contains(audience))
}

fn first(rules: &[Rule], claims: &Claims) -> Option<usize> {
    rules
        .iter()
        .position(|rule| rule.mismatch(claims).is_none())
}

/// Holds what the review says of each rule against claims.
fn judge(url: &str, rules: Vec<Rule>, tried: &[Claims]) -> Result<(), TestCaseError> {
    let config = Config {
        issuers: [(url.to_owned(), issuer(url))].into(),
        rules,
        warnings: Vec::new(),
    };
    let issuer = config.issuer("ci").unwrap();
    for (at, rule) in config.rules.iter().enumerate() {
        let before: Vec<&Rule> = config.rules[..at].iter().collect();
        let question = Question::new(&[rule], &before, issuer, &config);
        match (
            never(rule, &before, issuer, &config),
            question.answer(&mut Effort::of(EFFORT)),
        ) {
            (None, Found::One(claims)) => {
                prop_assert!(counts(&claims, issuer), "{claims:?}");
                prop_assert_eq!(first(&config.rules, &claims), Some(at), "{:?}", claims);
            }
            (Some(why), Found::None) => {
                for claims in tried {
                    prop_assert!(counts(claims, issuer), "{claims:?}");
                    prop_assert_ne!(
                        first(&config.rules, claims),
                        Some(at),
                        "{} {:?}",
                        why,
                        claims
                    );
                }
            }
            (why, found) => prop_assert!(false, "{why:?} {found:?}"),
        }
    }
    Ok(())
}

fn globs() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[ab/*]{0,3}", 1..3)
}

fn conditions() -> impl Strategy<Value = Vec<(&'static str, Vec<String>)>> {
    let claim = prop_oneof![
        (Just("x"), globs()),
        (Just("y"), globs()),
        (Just("z"), globs()),
        (
            Just("iss"),
            prop_oneof![
                Just(vec!["https://*.example.com".to_owned()]),
                Just(vec!["**".to_owned()]),
                globs()
            ]
        ),
        (
            Just("aud"),
            prop_oneof![
                Just(vec!["cache".to_owned()]),
                Just(vec!["*".to_owned()]),
                globs()
            ]
        ),
    ];
    // Of each claim one, as in a file.
    prop::collection::vec(claim, 1..4).prop_map(|conditions| {
        let conditions: BTreeMap<_, _> = conditions.into_iter().collect();
        conditions.into_iter().collect()
    })
}

fn claims() -> impl Strategy<Value = Claims> {
    let value = prop_oneof![
        Just(Value::Null),
        "[ab/]{0,3}".prop_map(Value::from),
        prop::collection::vec("[ab/]{0,3}", 0..3).prop_map(Value::from),
    ];
    let audience = prop_oneof![
        Just(json!("cache")),
        Just(json!(["hub"])),
        "[ab/]{0,3}".prop_map(|other| json!(["hub", other])),
    ];
    (value.clone(), value.clone(), value, audience).prop_map(|(x, y, z, aud)| {
        let Value::Object(claims) = json!({"iss": OTHER, "aud": aud, "x": x, "y": y, "z": z})
        else {
            unreachable!()
        };
        Claims::new(claims)
    })
}

/// A repository and its owner, as a forge says them.
fn of_a_forge() -> impl Strategy<Value = Claims> {
    (
        "[ab]{1,2}",
        "[ab]{1,2}",
        prop_oneof![Just("push"), Just("pull_request")],
    )
        .prop_map(|(owner, name, event)| {
            let Value::Object(claims) = json!({
                "iss": GITHUB, "aud": "cache", "repository_owner": owner,
                "repository": format!("{owner}/{name}"), "event_name": event,
            }) else {
                unreachable!()
            };
            Claims::new(claims)
        })
}

fn forge_conditions() -> impl Strategy<Value = Vec<(&'static str, Vec<String>)>> {
    let owners = prop::collection::vec("[ab*]{1,2}", 1..3);
    let repositories = prop::collection::vec("[ab*]{1,2}/[ab*]{1,2}", 1..3);
    let events = Just(vec!["push".to_owned()]);
    let claim = prop_oneof![
        (Just("repository_owner"), owners),
        (Just("repository"), repositories),
        (Just("event_name"), events),
    ];
    prop::collection::vec(claim, 1..3).prop_map(|conditions| {
        let conditions: BTreeMap<_, _> = conditions.into_iter().collect();
        conditions.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn a_rule_is_called_unreachable_if_and_only_if_no_claims_get_to_it(
        rules in prop::collection::vec(conditions(), 1..6),
        tried in prop::collection::vec(claims(), 60),
    ) {
        let rules = rules.iter().enumerate().map(|(name, conditions)| rule(name, conditions));
        let Some(rules) = rules.collect() else { return Ok(()) };
        judge(OTHER, rules, &tried)?;
    }

    #[test]
    fn what_a_forge_says_twice_is_known_to_be_one(
        rules in prop::collection::vec(forge_conditions(), 1..6),
        tried in prop::collection::vec(of_a_forge(), 60),
    ) {
        let rules = rules.iter().enumerate().map(|(name, conditions)| rule(name, conditions));
        let Some(rules) = rules.collect() else { return Ok(()) };
        judge(GITHUB, rules, &tried)?;
    }
}
