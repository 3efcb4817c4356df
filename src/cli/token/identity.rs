//! `layerd token explain` of a token that a CI signed.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::display::{print, print_json};
use super::explain::listed;
use crate::access::identity::{Config, Explained};
use crate::access::{NewToken, RefPattern};
use crate::place::ProjectId;
use crate::units::Spent;

/// It as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    issuer: &'a str,
    known_as: Option<&'a str>,
    key: &'a str,
    claims: serde_json::Map<String, Value>,
    rule: Option<&'a str>,
    grants: Option<Grants<'a>>,
    passed: Vec<Passed<'a>>,
    refused: Option<String>,
}

#[derive(Serialize)]
struct Grants<'a> {
    project: &'a ProjectId,
    read: &'a [RefPattern],
    write: &'a [RefPattern],
    subject: &'a str,
    seconds: u64,
}

#[derive(Serialize)]
struct Passed<'a> {
    rule: &'a str,
    why: String,
}

/// Whether a text is a token that somebody else made.
pub(super) fn is_foreign(token: &str) -> bool {
    let claims = token.split('.').nth(1);
    let claims = claims.and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Option<Value> = claims.and_then(|json| serde_json::from_slice(&json).ok());
    let issuer = claims.as_ref().and_then(|claims| claims["iss"].as_str());
    issuer.is_some_and(|issuer| issuer != "layerd")
}

/// Says what it is, and what the hub of `config` would give for it.
pub(super) fn explain(token: &str, config: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let (rules, shown) = match config {
        None => (Config::default(), String::new()),
        Some(path) => {
            let shown = path.display().to_string();
            let toml = std::fs::read_to_string(path).with_context(|| shown.clone())?;
            let rules = Config::parse(&toml).map_err(anyhow::Error::msg);
            (rules.with_context(|| shown.clone())?, shown)
        }
    };
    if rules.is_empty() && config.is_some() {
        bail!("{shown} has no [[issuer]] and no [[rule]]: name the file of a hub");
    }
    let explained = Explained::of(token, &rules, Timestamp::now())?;
    let refused = match config {
        Some(_) => explained.refused().map(ToString::to_string),
        None => None,
    };
    if json {
        print_json(&Shown::of(&explained, refused.clone()))?;
    } else {
        print_lines(&explained, config.map(|_| shown.as_str()))?;
        if let Some(refused) = &refused {
            print(format_args!(
                "\nA hub would give no token for it: {refused}."
            ))?;
        }
    }
    Ok(match refused {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

impl<'a> Shown<'a> {
    fn of(explained: &'a Explained, refused: Option<String>) -> Self {
        let claims = explained.claims.iter().map(|(name, value)| {
            let text = || Value::String(value.clone());
            (
                name.clone(),
                serde_json::from_str(value).unwrap_or_else(|_| text()),
            )
        });
        let matched = explained.matched.as_ref();
        let granted = matched.and_then(|(_, granted)| granted.as_ref().ok());
        Self {
            issuer: &explained.issuer,
            known_as: explained.known_as.as_deref(),
            key: &explained.key,
            claims: claims.collect(),
            rule: matched.map(|(rule, _)| rule.as_str()),
            grants: granted.map(|granted| Grants {
                project: &granted.project,
                read: &granted.read,
                write: &granted.write,
                subject: &granted.subject,
                seconds: granted.lifetime.as_secs(),
            }),
            passed: explained
                .passed
                .iter()
                .map(|(rule, why)| Passed {
                    rule,
                    why: why.to_string(),
                })
                .collect(),
            refused,
        }
    }
}

fn line(name: &str, value: &dyn Display) -> std::io::Result<()> {
    print(format_args!("{name:<10}{value}"))
}

fn print_lines(explained: &Explained, config: Option<&str>) -> anyhow::Result<()> {
    match &explained.known_as {
        Some(name) => line("issuer", &format_args!("{} ({name})", explained.issuer))?,
        None => line("issuer", &explained.issuer)?,
    }
    line("key", &explained.key)?;
    line(
        "signature",
        &"NOT CHECKED, since that takes the issuer's keys: anybody could have written what follows",
    )?;
    print("claims")?;
    for (name, value) in &explained.claims {
        print(format_args!("  {name:<24}{value}"))?;
    }
    let Some(config) = config else {
        print(
            "\nThis is no token of layerd; give --config with the file of a hub to see what it would get.",
        )?;
        return Ok(());
    };
    print(format_args!("rules of {config}"))?;
    for (rule, why) in &explained.passed {
        print(format_args!("  {rule:<24}no: {why}"))?;
    }
    if let Some((rule, granted)) = &explained.matched {
        print(format_args!("  {rule:<24}matches"))?;
        if let Ok(granted) = granted {
            print_granted(granted)?;
        }
    }
    Ok(())
}

fn print_granted(granted: &NewToken) -> anyhow::Result<()> {
    print("it grants")?;
    line("  project", &granted.project)?;
    line("  read", &listed(&granted.read))?;
    line("  write", &listed(&granted.write))?;
    line("  subject", &granted.subject)?;
    line("  for", &Spent(granted.lifetime))?;
    Ok(())
}
