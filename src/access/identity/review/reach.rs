//! Whether there are claims that some rules match and others don't.
//!
//! A rule is reached if some claims match it and no rule before it. Such claims
//! have one text each, and there are no more of them than needed: each one more
//! can only have more rules match. A rule that must not match fails by one of
//! its claims: by one that need not be there, or by one whose text is chosen so.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::super::glob::{Effort, Found, Glob, find};
use super::super::claims::Claims;
use super::super::config::{Config, Issuer};
use super::super::rule::{Condition, Rule};
use super::forge::Forge;

/// What is asked of the claims of one issuer's tokens.
pub struct Question<'a> {
    must: Vec<Condition>,
    must_not: Vec<&'a [Condition]>,
    issuer: &'a Issuer,
}

/// Claims, by name, of which a text is looked for.
type Sought<'a> = BTreeMap<&'a str, Text<'a>>;

/// A claim that has to be there.
#[derive(Clone, Default)]
struct Text<'a> {
    /// It fits all of these.
    inside: Vec<&'a Condition>,
    /// It matches none of these.
    outside: Vec<&'a Glob>,
    /// What does for now.
    text: String,
}

impl<'a> Question<'a> {
    /// Whether claims match all of `must` and none of `must_not`, which are rules
    /// about that issuer.
    pub fn new(must: &[&Rule], must_not: &[&'a Rule], issuer: &'a Issuer, config: &Config) -> Self {
        let all = must.iter().flat_map(|rule| rule.conditions.iter().cloned());
        let mut must: Vec<Condition> = all.collect();
        if Forge::of_issuer(issuer, config).is_some() {
            let implied: Vec<Condition> = must.iter().filter_map(Forge::implied).collect();
            must.extend(implied);
        }
        let rivals = must_not.iter().filter(|rule| rule.issuer == issuer.name);
        Self {
            must,
            must_not: rivals.map(|rule| rule.conditions.as_slice()).collect(),
            issuer,
        }
    }

    /// Such claims.
    pub fn answer(&self, effort: &mut Effort) -> Found<Claims> {
        let audiences = self.issuer.audience.iter();
        Found::first_of(
            audiences.map(|audience| match self.search(audience, effort) {
                Found::One(texts) => Found::One(self.claims(audience, &texts)),
                Found::None => Found::None,
                Found::Unknown => Found::Unknown,
            }),
        )
    }

    /// In tokens that are for that audience, and maybe one more.
    fn search(&self, audience: &str, effort: &mut Effort) -> Found<Sought<'_>> {
        // Whether a condition holds, where that is known already.
        let settled = |condition: &Condition| match condition.claim.as_str() {
            "iss" => Some(condition.takes(&self.issuer.url)),
            "aud" => condition.takes(audience).then_some(true),
            _ => None,
        };
        let mut sought = Sought::new();
        for condition in &self.must {
            match settled(condition) {
                Some(true) => {}
                Some(false) => return Found::None,
                None => {
                    let claim = sought.entry(&condition.claim).or_default();
                    claim.inside.push(condition);
                }
            }
        }
        let mut rivals = Vec::new();
        for conditions in &self.must_not {
            let open = conditions.iter().filter(|one| settled(one) != Some(true));
            let open: Vec<&Condition> = open.collect();
            let fails = |one: &&Condition| {
                settled(one) == Some(false) || !sought.contains_key(one.claim.as_str())
            };
            match open.is_empty() {
                true => return Found::None,
                false if open.iter().any(fails) => {}
                false => rivals.push(open),
            }
        }
        for claim in sought.values_mut() {
            match claim.choose(effort) {
                Found::One(text) => claim.text = text,
                Found::None => return Found::None,
                Found::Unknown => return Found::Unknown,
            }
        }
        beat(&rivals, &sought, effort)
    }

    fn claims(&self, audience: &str, texts: &Sought<'_>) -> Claims {
        let mut claims = Map::new();
        let mut audiences = vec![audience];
        for (claim, text) in texts {
            match *claim {
                "aud" => audiences.push(&text.text),
                claim => drop(claims.insert(claim.to_owned(), text.text.as_str().into())),
            }
        }
        claims.insert("iss".to_owned(), self.issuer.url.as_str().into());
        claims.insert("aud".to_owned(), Value::from(audiences));
        Claims::new(claims)
    }
}

/// Texts by which each rival fails. A claim that one of them was made to fail by
/// stays out of its reach, so no rival is met twice on one way.
fn beat<'a>(
    rivals: &[Vec<&'a Condition>],
    sought: &Sought<'a>,
    effort: &mut Effort,
) -> Found<Sought<'a>> {
    if !effort.step() {
        return Found::Unknown;
    }
    let takes = |one: &&Condition| {
        let claim = sought.get(one.claim.as_str());
        claim.is_some_and(|claim| one.takes(&claim.text))
    };
    let Some(rival) = rivals.iter().find(|rival| rival.iter().all(takes)) else {
        return Found::One(sought.clone());
    };
    Found::first_of(rival.iter().map(|condition| {
        let mut sought = sought.clone();
        let Some(claim) = sought.get_mut(condition.claim.as_str()) else {
            return Found::None;
        };
        claim.outside.extend(&condition.any);
        match claim.choose(effort) {
            Found::One(text) => claim.text = text,
            Found::None => return Found::None,
            Found::Unknown => return Found::Unknown,
        }
        beat(rivals, &sought, effort)
    }))
}

impl Text<'_> {
    /// A text that does.
    fn choose(&self, effort: &mut Effort) -> Found<String> {
        self.choose_of(&self.inside, &mut Vec::new(), effort)
    }

    /// With one pattern of each of the conditions that are left.
    fn choose_of<'a>(
        &'a self,
        left: &[&'a Condition],
        chosen: &mut Vec<&'a Glob>,
        effort: &mut Effort,
    ) -> Found<String> {
        let Some((first, left)) = left.split_first() else {
            return find(chosen, &self.outside, effort);
        };
        Found::first_of(first.any.iter().map(|glob| {
            chosen.push(glob);
            let found = self.choose_of(left, chosen, effort);
            chosen.pop();
            found
        }))
    }
}
