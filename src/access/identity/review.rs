//! What is wrong with a table of rules as a whole.
//!
//! | file | what |
//! |---|---|
//! | `reach` | whether claims can be that some rules match, and others don't |
//! | `forge` | what the claims of GitHub and GitLab say |
//! | `width` | whom a rule lets in, and what all of those may write |
//!
//! A mistake keeps a hub from starting: a rule that lets in all of a public CI,
//! grants nothing, or can never be the first that matches. All that may be
//! meant is a warning.

mod forge;
mod reach;
#[cfg(test)]
mod tests;
mod width;

use std::collections::BTreeSet;

use self::reach::Question;
use super::super::glob::Effort;
use super::config::{Config, Issuer};
use super::rule::Rule;

/// How far each question about a rule is followed.
const EFFORT: usize = 200_000;
/// How far all questions about which two rules overlap are.
const EFFORT_OF_PAIRS: usize = 2_000_000;

/// What a hub does not start with.
pub fn mistakes(config: &Config) -> Vec<String> {
    let mut mistakes = Vec::new();
    for issuer in config.issuers.values() {
        let name = &issuer.name;
        if !config.rules.iter().any(|rule| rule.issuer == *name) {
            mistakes.push(format!("issuer {name:?}: no rule is about it"));
        }
    }
    for rule in &config.rules {
        let name = &rule.name;
        let issuer = config.issuer(&rule.issuer);
        if let Some(why) = issuer.and_then(|issuer| width::lets_all_in(rule, issuer)) {
            mistakes.push(format!("rule {name:?}: {why}"));
        }
        if rule.read.is_empty() && rule.write.is_empty() {
            mistakes.push(format!("rule {name:?}: it grants nothing"));
        }
    }
    let (tables, _) = unreached(config);
    let never = tables
        .into_iter()
        .map(|(table, why)| format!("rule {table:?} can never match: {why}"));
    mistakes.extend(never);
    mistakes
}

/// What a hub starts with all the same.
pub fn warnings(config: &Config) -> Vec<String> {
    let (_, parts) = unreached(config);
    let hidden: BTreeSet<&str> = parts.iter().map(|(rule, _)| *rule).collect();
    let mut warnings: Vec<String> = parts
        .iter()
        .map(|(rule, why)| {
            format!("rule {rule:?}, which is a part of a preset, can never match: {why}")
        })
        .collect();
    warnings.extend(overlaps(config, &hidden));
    for (at, rule) in config.rules.iter().enumerate() {
        if let Some(issuer) = config.issuer(&rule.issuer) {
            warnings.extend(foreign_audience(rule, issuer));
            let wide = width::warnings(rule, issuer, config);
            let told = |why| format!("rule {:?} is too wide: {why}", rule.name);
            warnings.extend(wide.into_iter().map(told));
        }
        let mut before = config.rules.iter().take(at);
        let is_first = !before.any(|first| first.table() == rule.table());
        if let Some(preset) = rule
            .preset
            .as_deref()
            .filter(|_| is_first && width::is_by_name(rule))
        {
            warnings.push(format!(
                "rule {preset:?} lets in by name, and a name can be registered anew by somebody \
                 else: say owner-ids as well"
            ));
        }
    }
    warnings
}

/// A name, and why no token gets there.
type Unreached<'a> = (&'a str, String);

/// The tables that no token gets to, and the parts of presets of which other
/// parts are reached; with what stands before them.
fn unreached(config: &Config) -> (Vec<Unreached<'_>>, Vec<Unreached<'_>>) {
    let mut rows: Vec<(&Rule, Option<String>)> = Vec::new();
    for (at, rule) in config.rules.iter().enumerate() {
        let why = config.issuer(&rule.issuer).and_then(|issuer| {
            let before: Vec<&Rule> = config.rules[..at].iter().collect();
            never(rule, &before, issuer, config)
        });
        rows.push((rule, why));
    }
    let (mut tables, mut parts) = (Vec::new(), Vec::new());
    for (rule, why) in &rows {
        let Some(why) = why else { continue };
        let table = rule.table();
        let mut of_table = rows.iter().filter(|(other, _)| other.table() == table);
        if of_table.all(|(_, why)| why.is_some()) {
            if tables.iter().all(|(told, _)| *told != table) {
                tables.push((table, why.clone()));
            }
        } else {
            parts.push((rule.name.as_str(), why.clone()));
        }
    }
    (tables, parts)
}

/// Why a rule is never the first that matches, where that is certain.
fn never(rule: &Rule, before: &[&Rule], issuer: &Issuer, config: &Config) -> Option<String> {
    let before: Vec<&Rule> = before
        .iter()
        .copied()
        .filter(|first| first.issuer == rule.issuer)
        .collect();
    let is_never = |before: &[&Rule]| {
        let question = Question::new(&[rule], before, issuer, config);
        question.answer(&mut Effort::of(EFFORT)).is_none()
    };
    if is_never(&[]) {
        return Some(format!(
            "the tokens of issuer {:?} have iss {:?}, and match asks for another",
            issuer.name, issuer.url
        ));
    }
    if !is_never(&before) {
        return None;
    }
    // Only those that it takes.
    let mut hiding = before;
    let mut at = 0;
    while at < hiding.len() {
        let left_out = hiding.remove(at);
        if !is_never(&hiding) {
            hiding.insert(at, left_out);
            at += 1;
        }
    }
    let mut tables: Vec<String> = Vec::new();
    for first in hiding {
        let table = format!("{:?}", first.table());
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    Some(match &tables[..] {
        [one] => format!(
            "all that it is about gets what rule {one}, which comes first, grants; put it before \
             that, or leave it out"
        ),
        _ => format!(
            "all that it is about gets what rules {}, which come first, grant; put it before \
             those, or leave it out",
            tables.join(" and ")
        ),
    })
}

/// Rules of which the order says what a token gets. A special case before a
/// general one is how a table is written, and is not told.
fn overlaps(config: &Config, hidden: &BTreeSet<&str>) -> Vec<String> {
    let mut effort = Effort::of(EFFORT_OF_PAIRS);
    let mut told = Vec::new();
    for (at, rule) in config.rules.iter().enumerate() {
        let Some(issuer) = config.issuer(&rule.issuer) else {
            continue;
        };
        if hidden.contains(rule.name.as_str()) {
            continue;
        }
        for first in &config.rules[..at] {
            if first.issuer != rule.issuer || first.table() == rule.table() {
                continue;
            }
            let both = Question::new(&[first, rule], &[], issuer, config);
            if !both.answer(&mut effort).is_some() {
                continue;
            }
            let rules = config.rules.iter();
            let table = rules.filter(|other| other.table() == rule.table());
            let table: Vec<&Rule> = table.collect();
            let first_alone = Question::new(&[first], &table, issuer, config);
            if !first_alone.answer(&mut effort).is_none() {
                told.push(format!(
                    "rules {:?} and {:?} can match the same token, which gets what the first grants",
                    first.name, rule.name
                ));
            }
        }
    }
    told
}

/// A rule about tokens that are for somebody else.
fn foreign_audience(rule: &Rule, issuer: &Issuer) -> Option<String> {
    let asked = rule
        .conditions
        .iter()
        .find(|condition| condition.claim == "aud")?;
    let is_taken = |audience: &String| asked.any.iter().any(|glob| glob.matches(audience));
    (!issuer.audience.iter().any(is_taken)).then(|| {
        let quoted = |texts: Vec<&str>| {
            let each: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
            each.join(" or ")
        };
        let wanted = quoted(asked.any.iter().map(|glob| glob.as_str()).collect());
        let taken = quoted(issuer.audience.iter().map(String::as_str).collect());
        format!(
            "rule {:?} can hardly match: it asks for aud {wanted}, and issuer {:?} takes tokens for \
             {taken} alone, so only one that is for both would do; say it in audience of the issuer, \
             or leave it out of match",
            rule.name, issuer.name
        )
    })
}
