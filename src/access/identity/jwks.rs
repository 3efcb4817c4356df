//! The public keys of an issuer: a set of JWKs (RFC 7517), and how a signature
//! is verified with one of them.
//!
//! A key says how it is used; a token that says otherwise is refused. A set may
//! hold keys of other kinds and for other uses, which are passed over: so there
//! is no secret among those that count, which a public key could be taken for.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// The most keys of a set.
pub const MAX_KEYS: usize = 100;
/// The longest name of a key, in bytes.
pub const MAX_KID: usize = 512;

/// How a token is signed (RFC 7518, 3.1, and RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSA, PKCS #1 1.5, SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// ECDSA on P-256, SHA-256.
    Es256,
    /// ECDSA on P-384, SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl JwsAlgorithm {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];
    /// Those that are taken unless a file says otherwise.
    pub const USUAL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }
}

impl FromStr for JwsAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is not among {names}; secrets are no way to share a signature")
        })
    }
}

impl fmt::Display for JwsAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys of a set, by their names.
#[derive(Debug, Default)]
pub struct PublicKeys(HashMap<String, PublicKey>);

/// One key.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// The only way that it is used.
    pub algorithm: JwsAlgorithm,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Point(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The members that matter (RFC 7517, 4; RFC 7518, 6; RFC 8037, 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl PublicKeys {
    /// Reads a set; an error says why it is none, or of no use.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Set = serde_json::from_slice(json)
            .map_err(|_| "no set of keys (JWKS): {\"keys\": […]} is expected".to_owned())?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("the set has more than {MAX_KEYS} keys"));
        }
        let mut keys = HashMap::new();
        for value in set.keys {
            // Of other kinds there may be anything.
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            if let Some(key) = jwk.key()
                && jwk.kid.len() <= MAX_KID
            {
                keys.entry(jwk.kid).or_insert(key);
            }
        }
        match keys.is_empty() {
            true => Err(
                "no key of the set can be used here: RSA, EC and Ed25519 keys with a kid \
                         are"
                .to_owned(),
            ),
            false => Ok(Self(keys)),
        }
    }

    /// The key of that name.
    pub fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.get(kid)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Jwk {
    fn key(&self) -> Option<PublicKey> {
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if self.usage.as_deref().is_some_and(|usage| usage != "sig")
            || self.key_ops.as_ref().is_some_and(|ops| !verifies(ops))
        {
            return None;
        }
        let said: Option<JwsAlgorithm> = match &self.alg {
            Some(name) => Some(name.parse().ok()?),
            None => None,
        };
        let (algorithm, material) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                // What a key leaves open is the one that all have to know.
                let algorithm = said.unwrap_or(JwsAlgorithm::Rs256);
                algorithm.rsa()?;
                let [modulus, exponent] = [bytes(&self.n)?, bytes(&self.e)?].map(unpadded);
                // 2048 to 8192 bits: ring takes no others.
                if !(256..=1024).contains(&modulus.len()) || exponent.len() > 5 {
                    return None;
                }
                (algorithm, Material::Rsa { modulus, exponent })
            }
            ("EC", Some("P-256")) => (JwsAlgorithm::Es256, self.point(32)?),
            ("EC", Some("P-384")) => (JwsAlgorithm::Es384, self.point(48)?),
            ("OKP", Some("Ed25519")) => {
                let point = bytes(&self.x)?;
                (
                    JwsAlgorithm::EdDsa,
                    Material::Point((point.len() == 32).then_some(point)?),
                )
            }
            _ => return None,
        };
        (said.is_none_or(|said| said == algorithm)).then_some(PublicKey {
            algorithm,
            material,
        })
    }

    /// Uncompressed (SEC 1, 2.3.3).
    fn point(&self, length: usize) -> Option<Material> {
        let [x, y] = [bytes(&self.x)?, bytes(&self.y)?];
        (x.len() == length && y.len() == length).then(|| Material::Point([vec![4], x, y].concat()))
    }
}

fn bytes(member: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(member.as_deref()?).ok()
}

fn unpadded(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].to_vec()
}

impl PublicKey {
    /// Whether it made this signature.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let right = match (&self.material, self.algorithm) {
            (Material::Rsa { modulus, exponent }, algorithm) => {
                let Some(parameters) = algorithm.rsa() else {
                    return false;
                };
                let key = RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                return key.verify(parameters, message, signature).is_ok();
            }
            (Material::Point(point), JwsAlgorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Material::Point(point), JwsAlgorithm::Es384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature)
            }
            (Material::Point(point), JwsAlgorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
            (Material::Point(_), _) => return false,
        };
        right.is_ok()
    }
}
