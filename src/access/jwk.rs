//! Keys as JSON: a JWK (RFC 7517), or a set of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::key::Key;

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Set { keys: Vec<Jwk> },
    One(Jwk),
}

/// The members that matter for the kinds of keys that are used here. Private
/// ones have `d` (RFC 8037, 2), and secrets `k` (RFC 7518, 6.4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    d: Option<String>,
    k: Option<String>,
}

/// Every key of a file; a single one without a name has that of the file.
pub fn parse(name: &str, json: &[u8]) -> Result<Vec<Key>, String> {
    // The reason is left out: it may show what is secret.
    let file =
        serde_json::from_slice(json).map_err(|_| "neither a JWK nor a set of JWKs".to_owned())?;
    let keys = match file {
        File::Set { keys } => keys,
        File::One(key) => vec![key],
    };
    let single = keys.len() == 1;
    keys.iter()
        .map(|jwk| {
            let kid = jwk.kid.as_deref().or(single.then_some(name));
            let kid = kid.ok_or("each of several keys needs a kid")?;
            jwk.key(kid).map_err(|why| format!("key {kid:?}: {why}"))
        })
        .collect()
}

impl Jwk {
    fn key(&self, kid: &str) -> Result<Key, String> {
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {
                let public = Key::public(kid, &bytes("x", self.x.as_deref())?)?;
                match &self.d {
                    None => public,
                    Some(seed) => {
                        let private = Key::private(kid, &bytes("d", Some(seed))?)?;
                        if !private.is_like(&public) {
                            return Err("x is not the public key of d".to_owned());
                        }
                        private
                    }
                }
            }
            ("oct", _) => Key::secret(kid, &bytes("k", self.k.as_deref())?)?,
            (kind, curve) => {
                let curve = curve.unwrap_or_default();
                return Err(format!(
                    "{kind} {curve} keys are not used here: OKP Ed25519 and oct are"
                ));
            }
        };
        match &self.alg {
            Some(alg) if alg != key.algorithm.in_header() => Err(format!(
                "such a key is for {}, not for {alg:?}",
                key.algorithm.in_header()
            )),
            _ => Ok(key),
        }
    }
}

fn bytes(member: &str, value: Option<&str>) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("{member} is missing"))?;
    URL_SAFE_NO_PAD
        .decode(value)
        .map_err(|_| format!("{member} is not base64url"))
}
