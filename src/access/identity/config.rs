//! Issuers and rules, as the hub's `--config` file has them.
//!
//! ```toml
//! [[issuer]]
//! name = "github"
//! url = "https://token.actions.githubusercontent.com"
//! audience = "https://cache.example.com:8700"
//!
//! [[rule]]
//! name = "github"
//! issuer = "github"
//! preset = "github"
//! owners = ["acme"]
//! default-branch = "main"
//!
//! [[rule]]
//! name = "cluster"
//! issuer = "cluster"
//! match = { sub = "system:serviceaccount:ci:builder" }
//! project = "acme/{kubernetes.io/namespace}"
//! read = ["main"]
//! write = ["main"]
//! lifetime = "30m"
//! ```
//!
//! A key that is not known is a mistake, as is a rule that lets everybody in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::super::glob::Glob;
use super::super::key::is_kid;
use super::jwks::JwsAlgorithm;
use super::presets::{Preset, Told};
use super::review;
use super::rule::{Condition, Rule};
use super::template::{ProjectTemplate, RefTemplate, SubjectTemplate};
use crate::place::Unwritable;
use crate::units::parse_duration;

/// The most issuers, and the most rules of a file.
const MAX_TABLES: usize = 100;
/// How long a token is good for unless the rule says otherwise.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// The longest that a rule may say.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// By how much clocks may differ, and the most that a file may say.
const SKEW: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
/// How long an identity token may be good for, and the most that a file may say.
const LASTING: [Duration; 2] = [
    Duration::from_secs(24 * 3600),
    Duration::from_secs(90 * 24 * 3600),
];

/// Who vouches for identities, and what they get.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// By their URL, as it stands in tokens (`iss`).
    pub issuers: BTreeMap<String, Issuer>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
    /// What a hub starts with all the same, and its operator has to know.
    pub warnings: Vec<String>,
}

/// Somebody who vouches for identities.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its name in rules.
    pub name: String,
    /// What stands in its tokens (`iss`).
    pub url: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Its tokens have to be for one of these (`aud`).
    pub audience: Vec<String>,
    /// How it may sign.
    pub algorithms: Vec<JwsAlgorithm>,
    /// By how much its clock may differ from ours.
    pub skew: Duration,
    /// Its tokens are good for no longer than this.
    pub lasting: Duration,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Over HTTP; authorities to trust besides those of this system.
    Remote {
        /// Where the keys are, or the document that says so.
        at: Where,
        /// PEM.
        authorities: Option<PathBuf>,
    },
    /// A file.
    File(PathBuf),
}

/// A URL to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// The issuer's discovery document (OpenID Connect Discovery 1.0, 4).
    Discovery(Url),
    /// The keys themselves.
    Keys(Url),
}

/// The tables of the file that are read here; the other keys are options.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    issuer: Vec<IssuerTable>,
    #[serde(default)]
    rule: Vec<RuleTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct IssuerTable {
    name: String,
    url: String,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    audience: OneOrMany,
    algorithms: Option<Vec<String>>,
    skew: Option<String>,
    max_lifetime: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RuleTable {
    name: String,
    issuer: String,
    preset: Option<Preset>,
    #[serde(rename = "match", default)]
    matching: BTreeMap<String, OneOrMany>,
    project: Option<String>,
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
    lifetime: Option<String>,
    subject: Option<String>,
    default_branch: Option<String>,
    also_read: Option<Vec<String>>,
    owners: Option<Vec<String>>,
    owner_ids: Option<Vec<String>>,
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts is expected")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

impl Config {
    /// Reads the tables of a file; an error says all that is wrong with them.
    pub fn parse(toml: &str) -> Result<Self, String> {
        let file: File = toml::from_str(toml).map_err(|error| error.to_string())?;
        if file.issuer.len().max(file.rule.len()) > MAX_TABLES {
            return Err(format!("more than {MAX_TABLES} issuers or rules"));
        }
        let mut config = Self::default();
        let mut wrong = Vec::new();
        for table in file.issuer {
            let name = table.name.clone();
            match table.issuer() {
                Ok(issuer) if config.issuer(&issuer.name).is_some() => {
                    wrong.push(format!("issuer {name:?} is there twice"));
                }
                Ok(issuer) => {
                    if let Some(other) = config.issuers.insert(issuer.url.clone(), issuer) {
                        let other = other.name;
                        wrong.push(format!("issuers {other:?} and {name:?} have the same url"));
                    }
                }
                Err(why) => wrong.push(format!("issuer {name:?}: {why}")),
            }
        }
        let mut names = Vec::new();
        for table in file.rule {
            let name = table.name.clone();
            if names.contains(&name) {
                wrong.push(format!("rule {name:?} is there twice"));
            }
            if config.issuer(&table.issuer).is_none() && wrong.is_empty() {
                let issuer = &table.issuer;
                wrong.push(format!("rule {name:?}: there is no issuer {issuer:?}"));
            }
            match table.rules() {
                Ok(rules) => config.rules.extend(rules),
                Err(why) => wrong.push(format!("rule {name:?}: {why}")),
            }
            names.push(name);
        }
        if wrong.is_empty() {
            wrong = review::mistakes(&config);
        }
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        config.warnings = review::warnings(&config);
        Ok(config)
    }

    /// Whether nothing is said of identities.
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty() && self.rules.is_empty()
    }

    /// The issuer of that name.
    pub fn issuer(&self, name: &str) -> Option<&Issuer> {
        self.issuers.values().find(|issuer| issuer.name == name)
    }
}

fn name(text: &str) -> Result<String, String> {
    match is_kid(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has letters, digits, '.', '_' and '-'".to_owned()),
    }
}

fn length(text: Option<&str>, unless: Duration, most: Duration) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(unless) };
    match parse_duration(text)? {
        long if long > most => Err(format!(
            "{text} is too long: {} h at most",
            most.as_secs() / 3600
        )),
        length => Ok(length),
    }
}

/// `https`, or `http` on this host alone.
pub fn web(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "a URL is expected".to_owned())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or a password has no place in a URL".to_owned());
    }
    let here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err("https:// is expected: whoever answers in between could sign anything".to_owned()),
    }
}

impl IssuerTable {
    fn issuer(self) -> Result<Issuer, String> {
        let url = web(&self.url).map_err(|why| format!("url: {why}"))?;
        let keys = match (self.jwks_url, self.jwks_file) {
            (Some(_), Some(_)) => return Err("jwks-url or jwks-file, not both".to_owned()),
            (None, Some(file)) if self.ca_file.is_none() => KeySource::File(file),
            (None, Some(_)) => return Err("ca-file is for keys that are fetched".to_owned()),
            (Some(at), None) => KeySource::Remote {
                at: Where::Keys(web(&at).map_err(|why| format!("jwks-url: {why}"))?),
                authorities: self.ca_file,
            },
            (None, None) => KeySource::Remote {
                at: Where::Discovery(url),
                authorities: self.ca_file,
            },
        };
        let audience = self.audience.all();
        if audience.is_empty() || audience.iter().any(|text| text.trim().is_empty()) {
            return Err("audience: say who its tokens are for, such as the hub's URL".to_owned());
        }
        let algorithms = match self.algorithms {
            None => JwsAlgorithm::USUAL.to_vec(),
            Some(names) => {
                let each = names.iter().map(|name| name.parse());
                each.collect::<Result<_, String>>()
                    .map_err(|why| format!("algorithms: {why}"))?
            }
        };
        let [skew, most] = SKEW;
        let skew =
            length(self.skew.as_deref(), skew, most).map_err(|why| format!("skew: {why}"))?;
        let [lasting, most] = LASTING;
        let lasting = length(self.max_lifetime.as_deref(), lasting, most)
            .map_err(|why| format!("max-lifetime: {why}"))?;
        Ok(Issuer {
            name: name(&self.name)?,
            url: self.url,
            keys,
            audience,
            algorithms,
            skew,
            lasting,
        })
    }
}

impl RuleTable {
    fn rules(self) -> Result<Vec<Rule>, String> {
        let lifetime = length(self.lifetime.as_deref(), LIFETIME, MAX_LIFETIME);
        let lifetime = lifetime.map_err(|why| format!("lifetime: {why}"))?;
        if lifetime.as_secs() == 0 {
            return Err("lifetime: a token is good for 1 s at least".to_owned());
        }
        match self.preset {
            Some(preset) => self.preset(preset, lifetime),
            None => Ok(vec![self.written(lifetime)?]),
        }
    }

    fn written(self, lifetime: Duration) -> Result<Rule, String> {
        let of_presets = [
            ("default-branch", self.default_branch.is_some()),
            ("also-read", self.also_read.is_some()),
            ("owners", self.owners.is_some()),
            ("owner-ids", self.owner_ids.is_some()),
            ("repositories", self.repositories.is_some()),
        ];
        if let Some((key, _)) = of_presets.into_iter().find(|(_, there)| *there) {
            return Err(format!("{key} goes with preset, which is not there"));
        }
        let matching = self.matching.into_iter();
        let conditions = matching.map(|(claim, any)| condition(&claim, &claim, any.all()));
        let project = self.project.ok_or("project is missing")?;
        let subject = self.subject.as_deref().unwrap_or("{sub}");
        let write = refs("write", self.write)?;
        for template in &write {
            Unwritable::check_ref(&template.whole()).map_err(|why| format!("write: {why}"))?;
        }
        Ok(Rule {
            name: name(&self.name)?,
            issuer: self.issuer,
            preset: None,
            conditions: conditions.collect::<Result<_, _>>()?,
            project: ProjectTemplate::parse(&project).map_err(|why| format!("project: {why}"))?,
            read: refs("read", self.read)?,
            write,
            lifetime,
            subject: SubjectTemplate::parse(subject).map_err(|why| format!("subject: {why}"))?,
        })
    }

    fn preset(self, preset: Preset, lifetime: Duration) -> Result<Vec<Rule>, String> {
        let of_rules = [
            ("match", !self.matching.is_empty()),
            ("project", self.project.is_some()),
            ("read", self.read.is_some()),
            ("write", self.write.is_some()),
            ("subject", self.subject.is_some()),
        ];
        if let Some((key, _)) = of_rules.into_iter().find(|(_, there)| *there) {
            return Err(format!("a preset says {key} itself: leave it out"));
        }
        let lists = [self.repositories, self.owners, self.owner_ids];
        let mut who = Vec::new();
        for ((key, claim), list) in preset.who().into_iter().zip(lists) {
            if let Some(list) = list {
                who.push(condition(key, claim, list)?);
            }
        }
        if !who
            .iter()
            .any(|condition| !condition.claim.ends_with("_id"))
        {
            return Err("say owners or repositories: all others would get in".to_owned());
        }
        let default_branch = self
            .default_branch
            .ok_or("default-branch is missing: the branch that every job reads, such as main")?;
        preset.rules(&Told {
            name: name(&self.name)?,
            issuer: self.issuer,
            who,
            default_branch,
            also_read: refs("also-read", self.also_read)?,
            lifetime,
        })
    }
}

fn condition(key: &str, claim: &str, any: Vec<String>) -> Result<Condition, String> {
    if any.is_empty() {
        return Err(format!("{key}: an empty list lets nobody in"));
    }
    let any = any.iter().map(|text| text.parse::<Glob>());
    Ok(Condition {
        claim: claim.to_owned(),
        any: any
            .collect::<Result<_, _>>()
            .map_err(|why| format!("{key}: {why}"))?,
    })
}

fn refs(key: &str, texts: Option<Vec<String>>) -> Result<Vec<RefTemplate>, String> {
    let texts = texts.unwrap_or_default();
    if texts.len() > super::super::token::MAX_PATTERNS {
        return Err(format!("{key}: too many refs"));
    }
    let each = texts.iter().map(|text| {
        RefTemplate::parse(text).map_err(|why| format!("{key}: {text:?} is no ref: {why}"))
    });
    each.collect()
}
