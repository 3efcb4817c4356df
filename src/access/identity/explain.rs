//! What a hub would say to an identity token, without asking anybody: who it
//! would let in is in its file.

use jiff::Timestamp;

use super::super::token::NewToken;
use super::config::{Config, Issuer};
use super::presented::Presented;
use super::rejected::Rejected;
use super::rule::Mismatch;
use super::template::shortened;

/// An identity token, looked at in the light of a table of rules. Whether it is
/// genuine is not known here.
pub struct Explained {
    /// Who says that they made it.
    pub issuer: String,
    /// The name of that issuer in the file, if it is there.
    pub known_as: Option<String>,
    /// How it says that it is signed, and with which key.
    pub key: String,
    /// Each claim, as JSON.
    pub claims: Vec<(String, String)>,
    /// Why a hub would not take it, as far as that is known without the keys.
    pub rejected: Option<Rejected>,
    /// The rules before the one that matches, or all: why each does not.
    pub passed: Vec<(String, Mismatch)>,
    /// The rule that matches, and what it grants.
    pub matched: Option<(String, Result<NewToken, Rejected>)>,
}

impl Explained {
    /// Reads a token, and the rules for it.
    pub fn of(token: &str, config: &Config, now: Timestamp) -> Result<Self, Rejected> {
        let presented = Presented::read(token)?;
        let issuer = config.issuers.get(&presented.issuer);
        let algorithm = presented.algorithm;
        let mut explained = Self {
            issuer: presented.issuer.clone(),
            known_as: issuer.map(|issuer| issuer.name.clone()),
            key: format!(
                "{} ({})",
                shortened(&presented.kid),
                algorithm.map_or("an algorithm that is not taken", |known| known.name())
            ),
            claims: listed(&presented),
            rejected: issuer.and_then(|issuer| check(&presented, issuer, now).err()),
            passed: Vec::new(),
            matched: None,
        };
        let Some(issuer) = issuer else {
            let rejected = Rejected::Issuer(shortened(&presented.issuer));
            explained.rejected = Some(rejected);
            return Ok(explained);
        };
        for rule in &config.rules {
            let mismatch = match rule.issuer == issuer.name {
                true => rule.mismatch(&presented.claims),
                false => Some(Mismatch::Issuer(rule.issuer.clone())),
            };
            match mismatch {
                Some(mismatch) => explained.passed.push((rule.name.clone(), mismatch)),
                None => {
                    let granted = rule.grant(&presented.claims).map_err(Rejected::from);
                    explained.matched = Some((rule.name.clone(), granted));
                    break;
                }
            }
        }
        if explained.matched.is_none() && explained.rejected.is_none() {
            explained.rejected = Some(Rejected::NoRule(presented.told()));
        }
        Ok(explained)
    }

    /// Why a hub would not give a token for it, as far as that is known here.
    pub fn refused(&self) -> Option<&Rejected> {
        let unfit = self
            .matched
            .as_ref()
            .and_then(|(_, granted)| granted.as_ref().err());
        self.rejected.as_ref().or(unfit)
    }
}

fn check(presented: &Presented<'_>, issuer: &Issuer, now: Timestamp) -> Result<(), Rejected> {
    match presented.algorithm {
        Some(algorithm) if issuer.algorithms.contains(&algorithm) => {}
        _ => return Err(Rejected::Algorithm),
    }
    presented.check_claims(issuer, now)
}

/// Every claim in the order of its name; long ones are cut.
fn listed(presented: &Presented<'_>) -> Vec<(String, String)> {
    let all = presented.claims.all();
    let mut all: Vec<_> = all
        .map(|(name, value)| (shortened(name), shortened(&value.to_string())))
        .collect();
    all.sort();
    all
}
