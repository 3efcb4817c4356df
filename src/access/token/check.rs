//! Whether a token counts.
//!
//! The key that a token names decides about the algorithm, and the token must
//! say the same: so none can choose to be unsigned, or to be verified with a
//! public key as if that were a secret. What it claims is looked at only when
//! its signature is right.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::super::denied::Denied;
use super::super::grant::Grant;
use super::super::key::{Algorithm, Key, is_kid};
use super::super::keys::KeySet;
use super::{MAX_TOKEN, claims};

/// The members of a header that matter.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// What a token says of itself, true or not.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// What it would grant.
    pub grant: Grant,
    /// The key that it names.
    pub kid: Option<String>,
    /// The algorithm that it names, if it is one that is used here.
    pub algorithm: Option<Algorithm>,
    /// When it was made.
    pub issued: Timestamp,
}

impl Unverified {
    /// Whether it would count at `now`, if it is genuine.
    pub fn check_time(&self, now: Timestamp) -> Result<(), Denied> {
        self.grant.check_time(now)?;
        claims::check_lifetime(&self.grant, now)
    }
}

/// Reads a token without asking whether it is genuine.
pub fn read_unverified(token: &str) -> Result<Unverified, Denied> {
    bounded(token)?;
    let [header, payload] = parts(token)?;
    let header: Header = header_of(header)?;
    let claims = claims_of(payload)?;
    Ok(Unverified {
        grant: claims::grant(&claims)?,
        kid: header.kid.filter(|kid| is_kid(kid)),
        algorithm: known(&header.alg),
        issued: claims::issued(&claims)?,
    })
}

/// What a token grants.
pub fn verify(keys: &KeySet, token: &str, now: Timestamp) -> Result<Grant, Denied> {
    bounded(token)?;
    let [header, payload] = parts(token)?;
    let key = key_of(keys, &header_of(header)?)?;
    check_signature(token, key)?;
    let grant = claims::grant(&claims_of(payload)?)?;
    grant.check_time(now)?;
    claims::check_lifetime(&grant, now)?;
    Ok(grant)
}

/// Refuses what is longer than any token, before anything is done with it.
pub fn bounded(token: &str) -> Result<(), Denied> {
    if token.len() > MAX_TOKEN {
        return Err(Denied::TooLong);
    }
    Ok(())
}

/// Header and claims of three parts.
fn parts(token: &str) -> Result<[&str; 2], Denied> {
    let mut parts = token.split('.');
    match [(); 4].map(|()| parts.next()) {
        [Some(header), Some(payload), Some(_), None] => Ok([header, payload]),
        _ => Err(Denied::Malformed("it has not three parts")),
    }
}

fn decoded(part: &str, name: &'static str) -> Result<Vec<u8>, Denied> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Denied::Malformed(name))
}

fn header_of(part: &str) -> Result<Header, Denied> {
    serde_json::from_slice(&decoded(part, "its header")?)
        .map_err(|_| Denied::Malformed("its header"))
}

fn known(alg: &str) -> Option<Algorithm> {
    let all = [Algorithm::Ed25519, Algorithm::Hs256];
    all.into_iter().find(|known| known.in_header() == alg)
}

fn key_of<'a>(keys: &'a KeySet, header: &Header) -> Result<&'a Key, Denied> {
    if header.crit.is_some() {
        return Err(Denied::Critical);
    }
    let algorithm = known(&header.alg).ok_or(Denied::Algorithm)?;
    let kid = header.kid.as_deref().filter(|kid| is_kid(kid));
    let kid = kid.ok_or(Denied::Malformed("the name of its key"))?;
    let key = keys
        .get(kid)
        .ok_or_else(|| Denied::UnknownKey(kid.to_owned()))?;
    if key.algorithm != algorithm {
        return Err(Denied::Algorithm);
    }
    Ok(key)
}

/// Refuses what the key did not sign.
fn check_signature(token: &str, key: &Key) -> Result<(), Denied> {
    let (message, signature) = token.rsplit_once('.').ok_or(Denied::Signature)?;
    let right = jsonwebtoken::crypto::verify(
        signature,
        message.as_bytes(),
        &key.decoding,
        key.algorithm.jwt(),
    );
    match right {
        Ok(true) => Ok(()),
        // Not even base64, or not even a signature.
        Ok(false) | Err(_) => Err(Denied::Signature),
    }
}

fn claims_of(part: &str) -> Result<Map<String, Value>, Denied> {
    serde_json::from_slice(&decoded(part, "its claims")?)
        .map_err(|_| Denied::Malformed("its claims"))
}
