//! What rules, presets and tokens promise.

mod configs;
mod keyring;
mod keys;
mod presets;
mod properties;

use serde_json::Value;

use super::*;
use crate::access::NewToken;

/// The tables of a hub for one owner at GitHub and one group at GitLab.
const TABLES: &str = r#"
listen = "127.0.0.1:0"

[[issuer]]
name = "github"
url = "https://token.actions.githubusercontent.com"
audience = "https://cache.example.com"

[[issuer]]
name = "gitlab"
url = "https://gitlab.com"
audience = ["https://cache.example.com", "other"]
algorithms = ["RS256"]
skew = "10s"

[[rule]]
name = "github"
issuer = "github"
preset = "github"
owners = ["acme"]
default-branch = "main"

[[rule]]
name = "gitlab"
issuer = "gitlab"
preset = "gitlab"
repositories = ["acme/**"]
default-branch = "trunk"
also-read = ["release/*"]
lifetime = "5m"
"#;

fn config(toml: &str) -> Config {
    Config::parse(toml).unwrap_or_else(|why| panic!("{why}"))
}

fn claims(json: Value) -> Claims {
    match json {
        Value::Object(claims) => Claims::new(claims),
        other => panic!("{other}"),
    }
}

/// The first rule of that issuer that matches, and what it grants.
fn granted(config: &Config, issuer: &str, json: Value) -> Option<(String, NewToken)> {
    let claims = claims(json);
    let mut rules = config.rules.iter().filter(|rule| rule.issuer == issuer);
    let rule = rules.find(|rule| rule.mismatch(&claims).is_none())?;
    Some((rule.name.clone(), rule.grant(&claims).unwrap()))
}

fn texts(patterns: &[crate::access::RefPattern]) -> Vec<&str> {
    patterns.iter().map(|pattern| pattern.as_str()).collect()
}
