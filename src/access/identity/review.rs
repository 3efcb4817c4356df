//! What is wrong with a table of rules as a whole.

use super::super::glob::Glob;
use super::config::{Config, Issuer};
use super::rule::{Condition, Rule};

/// Claims that name somebody, and of each the one that says by a number who has
/// that name now. A name that was given up can be taken by others.
const NAMES: [(&[&str], &str); 2] = [
    (&["repository", "repository_owner"], "repository_owner_id"),
    (&["project_path", "namespace_path"], "namespace_id"),
];

/// Issuers that vouch for the whole world, and the claims that say whose a job
/// is: one of them has to be asked for. With each, what every such claim starts
/// with, which does not say it.
const PUBLIC: [(&str, &[(&str, &str)]); 2] = [
    (
        "https://token.actions.githubusercontent.com",
        &[
            ("repository", ""),
            ("repository_id", ""),
            ("repository_owner", ""),
            ("repository_owner_id", ""),
            ("sub", "repo:"),
        ],
    ),
    (
        "https://gitlab.com",
        &[
            ("project_path", ""),
            ("project_id", ""),
            ("namespace_path", ""),
            ("namespace_id", ""),
            ("job_project_path", ""),
            ("job_project_id", ""),
            ("job_namespace_path", ""),
            ("job_namespace_id", ""),
            ("sub", "project_path:"),
        ],
    ),
];

/// What a hub does not start with.
pub fn mistakes(config: &Config) -> Vec<String> {
    let mut mistakes = Vec::new();
    for issuer in config.issuers.values() {
        let name = &issuer.name;
        if !config.rules.iter().any(|rule| rule.issuer == *name) {
            mistakes.push(format!("issuer {name:?}: no rule is about it"));
        }
    }
    for (at, rule) in config.rules.iter().enumerate() {
        let issuer = config.issuer(&rule.issuer);
        if let Some(why) = issuer.and_then(|issuer| too_wide(rule, issuer)) {
            mistakes.push(format!("rule {:?}: {why}", rule.name));
        }
        if rule.read.is_empty() && rule.write.is_empty() {
            mistakes.push(format!("rule {:?}: it grants nothing", rule.name));
        }
        let before = config.rules.iter().take(at);
        if let Some(first) = before.rev().find(|first| covers(first, rule)) {
            mistakes.push(format!(
                "rule {:?} can never match: all that it is about gets what rule {:?}, which \
                 comes first, grants",
                rule.name, first.name
            ));
        }
    }
    mistakes
}

/// What a hub starts with all the same.
pub fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for (at, rule) in config.rules.iter().enumerate() {
        for first in config.rules.iter().take(at) {
            let of_one_preset = first.preset.is_some() && first.preset == rule.preset;
            // A special case before a general one is how a table is written.
            if !of_one_preset && overlap(first, rule) && !covers(rule, first) {
                notes.push(format!(
                    "rules {:?} and {:?} can match the same token, which gets what the first grants",
                    first.name, rule.name
                ));
            }
        }
        let preset = rule.preset.as_deref();
        let told = |preset: &str| {
            let mut before = config.rules.iter().take(at);
            before.any(|first| first.preset.as_deref() == Some(preset))
        };
        if let Some(preset) = preset.filter(|preset| !told(preset) && is_by_name(rule)) {
            notes.push(format!(
                "rule {preset:?} lets in by name, and a name can be registered anew by somebody \
                 else: say owner-ids as well"
            ));
        }
        for pattern in &rule.write {
            let text = pattern.template().as_str();
            if text.contains("**") && pattern.template().claims().next().is_none() {
                notes.push(format!(
                    "rule {:?} is wide: its bearers write {text}, so each is trusted by all who \
                     read any of that",
                    rule.name
                ));
            }
        }
    }
    notes
}

/// Whether whom a rule lets in can become somebody else.
fn is_by_name(rule: &Rule) -> bool {
    let asks = |claim: &str| {
        let mut conditions = rule.conditions.iter();
        // Of a merge request, it is the project that runs it.
        conditions.any(|condition| {
            let own = condition.claim.strip_prefix("job_");
            own.unwrap_or(&condition.claim) == claim
        })
    };
    NAMES
        .iter()
        .any(|(names, id)| names.iter().any(|name| asks(name)) && !asks(id))
}

fn too_wide(rule: &Rule, issuer: &Issuer) -> Option<String> {
    let Some((_, identities)) = PUBLIC.iter().find(|(url, _)| within(&issuer.url, url)) else {
        let says = |glob: &Glob| !glob.prefix().is_empty();
        let mut conditions = rule.conditions.iter();
        let narrow = conditions.any(|condition| condition.any.iter().all(says));
        return (!narrow).then(|| {
            "it is too wide: every token of its issuer would match; say in match whose are let in"
                .to_owned()
        });
    };
    let narrow = rule.conditions.iter().any(|condition| {
        let known = identities
            .iter()
            .find(|(claim, _)| *claim == condition.claim);
        known.is_some_and(|(_, start)| condition.any.iter().all(|glob| names(glob, start)))
    });
    (!narrow).then(|| {
        let claims: Vec<_> = identities.iter().map(|(claim, _)| *claim).collect();
        format!(
            "it is too wide: {} vouches for everybody there, so match has to name an owner or a repository, by {}",
            issuer.url,
            claims.join(" or ")
        )
    })
}

/// Whether a pattern names an owner whole: `acme*` would be `acme-evil` as well.
fn names(glob: &Glob, start: &str) -> bool {
    let said = glob.prefix().strip_prefix(start);
    said.is_some_and(|said| glob.is_exact() || said.contains('/'))
}

/// Whether one URL is the other, or below it.
fn within(url: &str, known: &str) -> bool {
    url.strip_prefix(known)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether all that matches `other` certainly matches `rule`.
fn covers(rule: &Rule, other: &Rule) -> bool {
    rule.issuer == other.issuer
        && rule.conditions.iter().all(|wide| {
            other.conditions.iter().any(|narrow| {
                narrow.claim == wide.claim
                    && narrow
                        .any
                        .iter()
                        .all(|glob| wide.any.iter().any(|over| over.covers(glob)))
            })
        })
}

/// Whether a token may match both.
fn overlap(one: &Rule, two: &Rule) -> bool {
    let apart = |one: &Condition| {
        two.conditions.iter().any(|two| {
            let meet = |a: &Glob| two.any.iter().any(|b| a.meets(b));
            one.claim == two.claim && !one.any.iter().any(meet)
        })
    };
    one.issuer == two.issuer && !one.conditions.iter().any(apart)
}
