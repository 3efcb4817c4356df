//! Rules: which identity gets what.

use std::fmt;
use std::time::Duration;

use super::super::glob::Glob;
use super::super::pattern::RefPattern;
use super::super::token::{MAX_SUBJECT, NewToken};
use super::claims::Claims;
use super::template::{ProjectTemplate, RefTemplate, SubjectTemplate, Unfit, shortened};

/// One row of the table, of which the first that matches counts.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, for people and for metrics.
    pub name: String,
    /// The name of the issuer whose tokens it is about.
    pub issuer: String,
    /// The preset that it belongs to, if any: the name of the rule in the file.
    pub preset: Option<String>,
    /// What has to be true, all of it.
    pub conditions: Vec<Condition>,
    /// What is granted then.
    pub project: ProjectTemplate,
    /// The refs that may be read, the bearer's own first.
    pub read: Vec<RefTemplate>,
    /// The refs that may be written.
    pub write: Vec<RefTemplate>,
    /// How long the token is good for.
    pub lifetime: Duration,
    /// Who it is for, for people to read.
    pub subject: SubjectTemplate,
}

/// A claim, and what it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The claim.
    pub claim: String,
    /// Any of these.
    pub any: Vec<Glob>,
}

/// Why a rule does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The token is of another issuer.
    Issuer(String),
    /// The claim is not in the token.
    Absent(String),
    /// It is something else.
    Other {
        /// The claim.
        claim: String,
        /// What it is.
        value: String,
        /// What it would have to be.
        wanted: String,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer(name) => write!(f, "it is about tokens of issuer {name:?}"),
            Self::Absent(claim) => write!(f, "claim {claim:?} is not in the token"),
            Self::Other {
                claim,
                value,
                wanted,
            } => write!(f, "claim {claim:?} is {value}, not {wanted}"),
        }
    }
}

impl Condition {
    /// Whether a text is one that it asks for.
    pub fn takes(&self, text: &str) -> bool {
        self.any.iter().any(|glob| glob.matches(text))
    }

    fn mismatch(&self, claims: &Claims) -> Option<Mismatch> {
        let values = claims.texts(&self.claim);
        if values.iter().any(|value| self.takes(value)) {
            return None;
        }
        if values.is_empty() {
            return Some(Mismatch::Absent(self.claim.clone()));
        }
        let quoted = |text: &str| format!("{:?}", shortened(text));
        let listed = |texts: Vec<String>| match texts.len() {
            0..=5 => texts.join(" or "),
            more => format!("{} or {} others", texts[..5].join(", "), more - 5),
        };
        Some(Mismatch::Other {
            claim: self.claim.clone(),
            value: listed(values.iter().map(|value| quoted(value)).collect()),
            wanted: listed(self.any.iter().map(|glob| quoted(glob.as_str())).collect()),
        })
    }
}

impl Rule {
    /// The name of the table in the file that it comes from.
    pub fn table(&self) -> &str {
        self.preset.as_deref().unwrap_or(&self.name)
    }

    /// Why claims of its issuer do not match, if they don't.
    pub fn mismatch(&self, claims: &Claims) -> Option<Mismatch> {
        self.conditions
            .iter()
            .find_map(|condition| condition.mismatch(claims))
    }

    /// What it grants to claims that match. A ref with a claim that is not
    /// there is left out; one that can't be used refuses it all.
    pub fn grant(&self, claims: &Claims) -> Result<NewToken, Unfit> {
        let subject = match self.subject.fill(claims, MAX_SUBJECT) {
            empty if empty.is_empty() => self.name.clone(),
            subject => subject,
        };
        Ok(NewToken {
            subject,
            project: self.project.fill(claims)?,
            read: filled(&self.read, claims)?,
            write: filled(&self.write, claims)?,
            lifetime: self.lifetime,
        })
    }
}

fn filled(templates: &[RefTemplate], claims: &Claims) -> Result<Vec<RefPattern>, Unfit> {
    let mut all = Vec::new();
    for template in templates {
        match template.fill(claims) {
            Ok(pattern) if !all.contains(&pattern) => all.push(pattern),
            Ok(_) | Err(Unfit::Absent(_)) => {}
            Err(unfit) => return Err(unfit),
        }
    }
    Ok(all)
}
