//! What a user may write in `type=gha-compatible,…`, parsed and checked.
//!
//! BuildKit fails a whole build for some bad attributes of an exporter before
//! its `ignore-error` counts, and ignores others silently, so all of them are
//! checked here, and a mistake is an error that names the attribute.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use crate::access::Secret;
use crate::cache::Want;
use crate::cache::backends::Address;
use crate::graph::Compression;
use crate::place::{GitRef, Place, ProjectId};
use crate::units::parse_duration;

/// The type that users write.
pub const TYPE: &str = "gha-compatible";

/// Every attribute that is known, whether it does anything here or is accepted
/// so that a `type=gha` line works unchanged.
const KNOWN: [&str; 19] = [
    "compression",
    "compression-level",
    "fallback",
    "force-compression",
    "ghtoken",
    "ignore-error",
    "image-manifest",
    "max-age",
    "mode",
    "oci-mediatypes",
    "project",
    "ref",
    "repository",
    "scope",
    "timeout",
    "token",
    "url",
    "url_v2",
    "version",
];

/// Attributes that hold a secret: never logged, never shown, never stored.
pub const SECRET: [&str; 2] = ["token", "ghtoken"];

/// The longest value, in bytes; tokens are the longest that make sense.
const MAX_VALUE: usize = 16 << 10;

/// Attributes as BuildKit's API carries them.
pub type Attributes = BTreeMap<String, String>;

/// What stands where the user says nothing: the sidecar's flags.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// `--project`.
    pub project: ProjectId,
    /// `--ref`.
    pub git_ref: GitRef,
    /// `--fallback`, in order.
    pub fallbacks: Vec<GitRef>,
}

/// One `--cache-to` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportEntry {
    /// Where the export will stand.
    pub place: Place,
    /// `ignore-error=false`: a cache fault fails the build.
    pub strict: bool,
    /// What BuildKit's own exporter takes, checked: mode and compression.
    pub passed_on: Attributes,
    /// Where the cache is.
    pub address: Address,
    /// What opens it.
    pub token: Option<Secret>,
}

/// One `--cache-from` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportEntry {
    /// Where to look.
    pub want: Want,
    /// `timeout`: a shorter limit for the look-up.
    pub timeout: Option<Duration>,
    /// Where the cache is.
    pub address: Address,
    /// What opens it.
    pub token: Option<Secret>,
}

/// A mistake in an entry. The value is shown only where it is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("type={TYPE}: {0}")]
pub struct InvalidAttribute(String);

impl ExportEntry {
    /// Checks a `--cache-to` entry.
    pub fn parse(attributes: &Attributes, defaults: &Defaults) -> Result<Self, InvalidAttribute> {
        let entry = Entry::checked(attributes)?;
        if entry.text("max-age").is_some() {
            return Err(InvalidAttribute(
                "max-age belongs to --cache-from".to_owned(),
            ));
        }
        let place = entry.place(defaults)?;
        if place.scope.is_any() {
            return Err(InvalidAttribute(
                "scope=* belongs to --cache-from; an export needs one scope".to_owned(),
            ));
        }
        let mut passed_on = Attributes::new();
        for key in [
            "mode",
            "compression",
            "compression-level",
            "force-compression",
        ] {
            if let Some(value) = entry.text(key) {
                passed_on.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(Self {
            place,
            strict: entry.flag("ignore-error")? == Some(false),
            passed_on,
            address: entry.address(),
            token: entry.text("token").map(Secret::new),
        })
    }
}

impl ImportEntry {
    /// Checks a `--cache-from` entry; `max-age` counts back from `now`.
    pub fn parse(
        attributes: &Attributes,
        defaults: &Defaults,
        now: Timestamp,
    ) -> Result<Self, InvalidAttribute> {
        let entry = Entry::checked(attributes)?;
        let place = entry.place(defaults)?;
        let max_age = entry.duration("max-age")?;
        let told = entry.text("fallback");
        let fallbacks = match told {
            None => defaults.fallbacks.clone(),
            Some(list) => list
                .split([',', ';', ' '])
                .filter(|part| !part.is_empty())
                .map(|part| parsed("fallback", part))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            // An age that reaches back beyond all time excludes nothing.
            want: Want {
                place,
                fallbacks,
                narrowed: told.is_some(),
                compression: entry.compression(),
                readable: None,
                not_before: max_age.and_then(|age| now.checked_sub(age).ok()),
            },
            timeout: entry.duration("timeout")?,
            address: entry.address(),
            token: entry.text("token").map(Secret::new),
        })
    }
}

/// An entry whose every attribute is known and well-formed.
struct Entry<'a>(&'a Attributes);

impl<'a> Entry<'a> {
    fn checked(attributes: &'a Attributes) -> Result<Self, InvalidAttribute> {
        if let Some(unknown) = attributes.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            let known = KNOWN.join(", ");
            return Err(InvalidAttribute(format!(
                "unknown attribute {unknown:?}; known are {known}"
            )));
        }
        if let Some((key, _)) = attributes.iter().find(|(_, value)| value.len() > MAX_VALUE) {
            return Err(InvalidAttribute(format!(
                "{key} is longer than {MAX_VALUE} bytes"
            )));
        }
        let entry = Self(attributes);
        entry.one_of("mode", &["min", "max"])?;
        entry.one_of("compression", &["uncompressed", "gzip", "estargz", "zstd"])?;
        entry.flag("force-compression")?;
        for always in ["oci-mediatypes", "image-manifest"] {
            entry.flag(always)?;
        }
        if let Some(level) = entry.text("compression-level") {
            let level: i32 = parsed("compression-level", level)?;
            if !(-1..=22).contains(&level) {
                return Err(InvalidAttribute(format!(
                    "compression-level={level} is not between -1 and 22"
                )));
            }
        }
        entry.duration("timeout")?;
        Ok(entry)
    }

    /// A value that is there and not empty: `scope=` says nothing.
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn one_of(&self, key: &str, allowed: &[&str]) -> Result<(), InvalidAttribute> {
        match self.text(key) {
            Some(value) if !allowed.contains(&value) => Err(InvalidAttribute(format!(
                "{key}={value:?} is none of {}",
                allowed.join(", ")
            ))),
            _ => Ok(()),
        }
    }

    /// As Go's `strconv.ParseBool`, which BuildKit uses.
    fn flag(&self, key: &str) -> Result<Option<bool>, InvalidAttribute> {
        match self.text(key) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(value) => Err(InvalidAttribute(format!(
                "{key}={value:?} is neither true nor false"
            ))),
        }
    }

    fn duration(&self, key: &str) -> Result<Option<Duration>, InvalidAttribute> {
        self.text(key)
            .map(|value| parse_duration(value).map_err(|why| wrong(key, value, why)))
            .transpose()
    }

    fn compression(&self) -> Option<Compression> {
        match self.text("compression")? {
            "uncompressed" => Some(Compression::Uncompressed),
            "zstd" => Some(Compression::Zstd),
            _ => Some(Compression::Gzip),
        }
    }

    fn place(&self, defaults: &Defaults) -> Result<Place, InvalidAttribute> {
        let project = self
            .text("project")
            .map(|text| parsed("project", text))
            .transpose()?;
        let git_ref = self
            .text("ref")
            .map(|text| parsed("ref", text))
            .transpose()?;
        let scope = self
            .text("scope")
            .map(|text| parsed("scope", text))
            .transpose()?;
        Ok(Place {
            project: project.unwrap_or_else(|| defaults.project.clone()),
            git_ref: git_ref.unwrap_or_else(|| defaults.git_ref.clone()),
            scope: scope.unwrap_or_default(),
        })
    }

    /// A line of another cache may be written for a server that is no hub.
    fn address(&self) -> Address {
        match self.text("url") {
            None => Address::Unsaid,
            Some("local") => Address::Local,
            Some(url) => match url.parse() {
                Ok(hub) => Address::Hub(hub),
                Err(why) => Address::Other(shown_url(url), why.to_string()),
            },
        }
    }
}

/// A URL without what may be secret in it: user, password, query.
fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    // A password may hold anything, also what ends a host elsewhere.
    let rest = match rest.rsplit_once('@') {
        Some(_) if rest.contains(['?', '#']) => "…",
        Some((_, host)) => host,
        None => rest,
    };
    let scheme = if scheme.contains('@') { "" } else { scheme };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, path)| (authority, path));
    let shown = format!(
        "{scheme}{}{authority}{}{path}",
        if scheme.is_empty() { "" } else { "://" },
        if path.is_empty() { "" } else { "/" }
    );
    shown
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

fn parsed<T: FromStr<Err: fmt::Display>>(key: &str, value: &str) -> Result<T, InvalidAttribute> {
    value.parse().map_err(|error| wrong(key, value, error))
}

fn wrong(key: &str, value: &str, why: impl fmt::Display) -> InvalidAttribute {
    let short: String = value.chars().take(80).collect();
    InvalidAttribute(format!("{key}={short:?}: {why}"))
}

#[cfg(test)]
mod tests;
