//! What stands in a token, as it is written and as it is read.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::denied::Denied;
use super::super::grant::{Grant, LEEWAY};
use super::super::pattern::RefPattern;
use super::{MAX_LIFETIME, MAX_PATTERNS, MAX_SUBJECT, NewAdminToken, NewToken};
use crate::place::ProjectId;

/// Who makes tokens, and who they are for.
const LAYERD: &str = "layerd";
/// The longest id, in bytes.
const MAX_ID: usize = 128;

/// As it is written.
#[derive(Serialize)]
pub struct Claims<'a> {
    iss: &'static str,
    aud: &'static str,
    sub: &'a str,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a ProjectId>,
    read: &'a [RefPattern],
    write: &'a [RefPattern],
    ac: String,
    #[serde(skip_serializing_if = "is_false")]
    admin: bool,
}

/// Only an admin token says so.
fn is_false(admin: &bool) -> bool {
    !admin
}

impl<'a> Claims<'a> {
    /// What `new` asks for, from `now` on.
    pub fn new(new: &'a NewToken, jti: String, now: Timestamp) -> Self {
        let now = now.as_second();
        Self {
            iss: LAYERD,
            aud: LAYERD,
            sub: &new.subject,
            jti,
            iat: now,
            nbf: now,
            exp: now.saturating_add_unsigned(new.lifetime.as_secs()),
            project: Some(&new.project),
            read: &new.read,
            write: &new.write,
            ac: scopes(&new.read, &new.write),
            admin: false,
        }
    }

    /// Of an admin token: what `new` asks for, from `now` on.
    pub fn of_admin(new: &'a NewAdminToken, jti: String, now: Timestamp) -> Self {
        let now = now.as_second();
        Self {
            iss: LAYERD,
            aud: LAYERD,
            sub: &new.subject,
            jti,
            iat: now,
            nbf: now,
            exp: now.saturating_add_unsigned(new.lifetime.as_secs()),
            project: new.project.as_ref(),
            read: &[],
            write: &[],
            ac: scopes(&[], &[]),
            admin: true,
        }
    }

    /// When the token ends.
    pub fn expires(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.exp).ok()
    }
}

/// A ref as GitHub's token has it (`Scope` in go-actions-cache's `cache.go`).
#[derive(Serialize)]
struct Scope<'a> {
    #[serde(rename = "Scope")]
    scope: &'a str,
    #[serde(rename = "Permission")]
    permission: u8,
}

const READ: u8 = 1;
const WRITE: u8 = 2;

/// The claim `ac`: the bearer's own ref, then those that it may only read there.
fn scopes(read: &[RefPattern], write: &[RefPattern]) -> String {
    let own = write.iter().find_map(RefPattern::exact);
    let first = own.as_ref().map(|own| {
        let readable = read.iter().any(|pattern| pattern.matches(own));
        Scope {
            scope: own.as_str(),
            permission: if readable { READ | WRITE } else { WRITE },
        }
    });
    let others = read.iter().filter_map(|pattern| {
        let other = pattern.exact().is_some() && own.as_ref() != pattern.exact().as_ref();
        other.then(|| Scope {
            scope: pattern.as_str(),
            permission: READ,
        })
    });
    let all: Vec<_> = first.into_iter().chain(others).collect();
    // Texts and numbers always become JSON.
    serde_json::to_string(&all).unwrap_or_default()
}

/// The grant that claims tell of, whenever it counts.
pub fn grant(claims: &Map<String, Value>) -> Result<Grant, Denied> {
    if text(claims, "iss")? != LAYERD {
        return Err(Denied::Issuer);
    }
    let for_us = match claims.get("aud") {
        Some(Value::String(aud)) => aud == LAYERD,
        Some(Value::Array(several)) => several.iter().any(|aud| aud == LAYERD),
        _ => return Err(Denied::Claim("aud")),
    };
    if !for_us {
        return Err(Denied::Audience);
    }
    let id = text(claims, "jti")?;
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Denied::Claim("jti"));
    }
    let subject = text(claims, "sub")?;
    if !is_subject(subject) {
        return Err(Denied::Claim("sub"));
    }
    issued(claims)?;
    let admin = match claims.get("admin") {
        None => false,
        Some(Value::Bool(admin)) => *admin,
        Some(_) => return Err(Denied::Claim("admin")),
    };
    let (read, write) = (patterns(claims, "read")?, patterns(claims, "write")?);
    if admin && !(read.is_empty() && write.is_empty()) {
        return Err(Denied::Claim("admin"));
    }
    let project = match claims.get("project") {
        // Only an administrator may be one of all projects.
        None if admin => None,
        _ => Some(text(claims, "project")?),
    };
    let project = project.map(|project| project.parse().map_err(|_| Denied::Claim("project")));
    Ok(Grant {
        project: project.transpose()?,
        read,
        write,
        admin,
        not_before: Some(time(claims, "nbf")?),
        expires: Some(time(claims, "exp")?),
        id: id.to_owned(),
        subject: subject.to_owned(),
    })
}

/// When the token was made.
pub fn issued(claims: &Map<String, Value>) -> Result<Timestamp, Denied> {
    time(claims, "iat")
}

/// Refuses what is good for longer than any token may be: however it was made,
/// it would have to be remembered for that long once it is revoked.
pub fn check_lifetime(grant: &Grant, now: Timestamp) -> Result<(), Denied> {
    let longest = (MAX_LIFETIME + LEEWAY).try_into().unwrap_or_default();
    match grant.expires {
        Some(expires) if expires.duration_since(now) > longest => Err(Denied::Lifetime),
        _ => Ok(()),
    }
}

/// A text for people, in one line.
pub fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SUBJECT && !text.chars().any(char::is_control)
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Denied> {
    claims
        .get(name)
        .and_then(Value::as_str)
        .ok_or(Denied::Claim(name))
}

/// Seconds since 1970, of which there may be fractions (RFC 7519, 2).
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Timestamp, Denied> {
    let value = claims.get(name).ok_or(Denied::Claim(name))?;
    let whole = value
        .as_i64()
        .or_else(|| value.as_f64().map(|seconds| seconds as i64));
    whole
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or(Denied::Claim(name))
}

fn patterns(claims: &Map<String, Value>, name: &'static str) -> Result<Vec<RefPattern>, Denied> {
    let list = claims.get(name).and_then(Value::as_array);
    let list = list.filter(|list| list.len() <= MAX_PATTERNS);
    let each = list.ok_or(Denied::Claim(name))?.iter().map(|pattern| {
        let pattern = pattern.as_str().and_then(|text| text.parse().ok());
        pattern.ok_or(Denied::Claim(name))
    });
    each.collect()
}
