//! An identity token as it comes in, and whether it counts.
//!
//! Its issuer says which keys count, the key says how it is used, and the token
//! has to agree. What it claims is looked at only when its signature is right;
//! before that, only who it says made it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::super::token::MAX_TOKEN;
use super::claims::Claims;
use super::config::Issuer;
use super::jwks::{JwsAlgorithm, MAX_KID, PublicKey};
use super::rejected::Rejected;
use super::template::shortened;

/// The members of a header that matter.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// A token that was read, genuine or not.
#[derive(Debug)]
pub struct Presented<'a> {
    /// How it says that it is signed, if that is a way that is known.
    pub algorithm: Option<JwsAlgorithm>,
    /// The key that it says it is signed with.
    pub kid: String,
    /// Who it says made it.
    pub issuer: String,
    /// What it says.
    pub claims: Claims,
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Presented<'a> {
    /// Reads a token.
    pub fn read(token: &'a str) -> Result<Self, Rejected> {
        if token.len() > MAX_TOKEN {
            return Err(Rejected::TooLong);
        }
        let mut parts = token.split('.');
        let [Some(header), Some(payload), Some(signature), None] = [(); 4].map(|()| parts.next())
        else {
            return Err(Rejected::Malformed("it has not three parts"));
        };
        let header: Header = serde_json::from_slice(&decoded(header, "its header")?)
            .map_err(|_| Rejected::Malformed("its header"))?;
        if header.crit.is_some() {
            return Err(Rejected::Malformed("its header asks for what is not known"));
        }
        let kid = header
            .kid
            .filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID);
        let claims: Map<String, Value> = serde_json::from_slice(&decoded(payload, "its claims")?)
            .map_err(|_| Rejected::Malformed("its claims"))?;
        let issuer = claims.get("iss").and_then(Value::as_str);
        let end = token.len() - signature.len() - 1;
        Ok(Self {
            algorithm: header.alg.parse().ok(),
            kid: kid.ok_or(Rejected::Malformed("the name of its key"))?,
            issuer: issuer.ok_or(Rejected::Claim("iss"))?.to_owned(),
            message: &token[..end],
            signature: decoded(signature, "its signature")?,
            claims: Claims::new(claims),
        })
    }

    /// Refuses what the key did not sign, or not in its way.
    pub fn check_signature(&self, key: &PublicKey, issuer: &Issuer) -> Result<(), Rejected> {
        if self.algorithm != Some(key.algorithm) || !issuer.algorithms.contains(&key.algorithm) {
            return Err(Rejected::Algorithm);
        }
        match key.verifies(self.message.as_bytes(), &self.signature) {
            true => Ok(()),
            false => Err(Rejected::Signature),
        }
    }

    /// Refuses what is for somebody else, or for another time.
    pub fn check_claims(&self, issuer: &Issuer, now: Timestamp) -> Result<(), Rejected> {
        let audience = self.claims.texts("aud");
        if !audience.iter().any(|aud| issuer.audience.contains(aud)) {
            let quoted = |texts: &[String]| {
                let each = texts
                    .iter()
                    .take(5)
                    .map(|text| format!("{:?}", shortened(text)));
                each.collect::<Vec<_>>().join(" or ")
            };
            return Err(Rejected::Audience {
                got: match audience.is_empty() {
                    true => "no audience".to_owned(),
                    false => format!("audience {}", quoted(&audience)),
                },
                wanted: quoted(&issuer.audience),
            });
        }
        let expires = self.time("exp")?.ok_or(Rejected::Claim("exp"))?;
        if let Some(late) = beyond(now, expires, issuer.skew) {
            return Err(Rejected::Expired(late));
        }
        for claim in ["nbf", "iat"] {
            let early = self
                .time(claim)?
                .and_then(|from| beyond(from, now, issuer.skew));
            if let Some(early) = early {
                return Err(Rejected::NotYet(early));
            }
        }
        match beyond(expires, now, issuer.lasting + issuer.skew) {
            Some(_) => Err(Rejected::Lasting(issuer.lasting)),
            None => Ok(()),
        }
    }

    fn time(&self, claim: &'static str) -> Result<Option<Timestamp>, Rejected> {
        if self.claims.get(claim).is_none() {
            return Ok(None);
        }
        let seconds = self.claims.seconds(claim);
        let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map(Some).ok_or(Rejected::Claim(claim))
    }

    /// What it says of its bearer, in a line: so much as tells whose it is.
    pub fn told(&self) -> String {
        const TELLING: [&str; 8] = [
            "repository",
            "project_path",
            "job_project_path",
            "event_name",
            "pipeline_source",
            "ref",
            "base_ref",
            "sub",
        ];
        let said = TELLING.iter().filter_map(|claim| {
            let value = self.claims.text(claim).filter(|value| !value.is_empty())?;
            Some(format!("{claim}={:?}", shortened(&value)))
        });
        said.collect::<Vec<_>>().join(", ")
    }
}

/// By how much one time is behind another, where that is more than `leeway`.
fn beyond(one: Timestamp, other: Timestamp, leeway: Duration) -> Option<Duration> {
    let by = one.duration_since(other);
    let by = Duration::try_from(by).ok()?;
    (by > leeway).then_some(by)
}

fn decoded(part: &str, name: &'static str) -> Result<Vec<u8>, Rejected> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Rejected::Malformed(name))
}
