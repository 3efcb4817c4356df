//! One key that tokens are signed or verified with.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use subtle::ConstantTimeEq as _;

/// The shortest HS256 secret, in bytes: as long as the hash (RFC 7518, 3.2).
pub const MIN_SECRET: usize = 32;
/// The longest name of a key.
const MAX_KID: usize = 128;

/// What stands before the 32 bytes of a private Ed25519 key in its PKCS#8 form
/// (RFC 8410, 7).
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// What stands before the 32 bytes of a public one (RFC 8410, 4).
const SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// By a private key; whoever verifies needs only the public one.
    #[default]
    Ed25519,
    /// By a secret that whoever verifies has as well.
    Hs256,
}

impl Algorithm {
    /// Its name in a token's header (RFC 7518 and 8037).
    pub fn in_header(self) -> &'static str {
        match self {
            Self::Ed25519 => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }

    pub(super) fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ed25519" => Ok(Self::Ed25519),
            "hs256" => Ok(Self::Hs256),
            _ => Err("expected ed25519 or hs256"),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Hs256 => "hs256",
        })
    }
}

/// A key by its name.
pub struct Key {
    /// Its name in the header of tokens.
    pub kid: String,
    /// The only algorithm that it is used with, whatever a token says.
    pub algorithm: Algorithm,
    /// The public key, or the secret.
    pub decoding: DecodingKey,
    /// There where tokens can be signed.
    pub encoding: Option<EncodingKey>,
}

impl Key {
    /// A public key, which verifies.
    pub fn public(kid: &str, public: &[u8]) -> Result<Self, &'static str> {
        if public.len() != 32 {
            return Err("an Ed25519 public key has 32 bytes");
        }
        Ok(Self {
            kid: named(kid)?,
            algorithm: Algorithm::Ed25519,
            decoding: DecodingKey::from_ed_der(public),
            encoding: None,
        })
    }

    /// The same from its SubjectPublicKeyInfo.
    pub fn public_from_der(kid: &str, der: &[u8]) -> Result<Self, &'static str> {
        let public = der
            .strip_prefix(SPKI)
            .ok_or("a public key that is not Ed25519")?;
        Self::public(kid, public)
    }

    /// A private key from its PKCS#8 form.
    pub fn private_from_der(kid: &str, der: &[u8]) -> Result<Self, &'static str> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|_| "a private key that is not Ed25519")?;
        let encoding = Some(EncodingKey::from_ed_der(der));
        let public = Self::public(kid, pair.public_key().as_ref())?;
        Ok(Self { encoding, ..public })
    }

    /// A private key from its 32 bytes.
    pub fn private(kid: &str, seed: &[u8]) -> Result<Self, &'static str> {
        Self::private_from_der(kid, &[PKCS8, seed].concat())
    }

    /// A secret.
    pub fn secret(kid: &str, secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < MIN_SECRET {
            return Err("an HS256 secret needs at least 32 bytes");
        }
        if secret.starts_with(SPKI) {
            return Err("this is a public key, which is no secret: give it as PEM");
        }
        Ok(Self {
            kid: named(kid)?,
            algorithm: Algorithm::Hs256,
            decoding: DecodingKey::from_secret(secret),
            encoding: Some(EncodingKey::from_secret(secret)),
        })
    }

    /// Whether both verify the same tokens.
    pub fn is_like(&self, other: &Self) -> bool {
        let bytes = |key: &Self| key.decoding.try_get_as_bytes().map(<[u8]>::to_vec);
        match (bytes(self), bytes(other)) {
            (Ok(one), Ok(two)) => self.algorithm == other.algorithm && one.ct_eq(&two).into(),
            _ => false,
        }
    }
}

/// Only what can stand in a message and in a header as it is.
pub fn is_kid(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= MAX_KID && text.bytes().all(fits)
}

/// A name, if it can be one.
pub fn named(kid: &str) -> Result<String, &'static str> {
    match is_kid(kid) {
        true => Ok(kid.to_owned()),
        false => Err(
            "the name of a key may have letters, digits, '.', '_' and '-', and no more than 128 of them",
        ),
    }
}

/// A new key, as the text of the files that hold it.
pub struct KeyPair {
    /// The private key, or the secret: for whoever signs.
    pub private: String,
    /// The public key, for whoever only verifies; HS256 has none.
    pub public: Option<String>,
}

impl KeyPair {
    /// Makes one. Fails where the system has no randomness to give.
    pub fn generate(algorithm: Algorithm) -> Result<Self, &'static str> {
        let mut bytes = [0; MIN_SECRET];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| "the system gives no random bytes")?;
        if algorithm == Algorithm::Hs256 {
            return Ok(Self {
                private: hex::encode(bytes) + "\n",
                public: None,
            });
        }
        let der = [PKCS8, &bytes].concat();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| "the new key can't be used")?;
        let public = [SPKI, pair.public_key().as_ref()].concat();
        Ok(Self {
            private: pem("PRIVATE KEY", &der),
            public: Some(pem("PUBLIC KEY", &public)),
        })
    }
}

/// RFC 7468; what stands in it here fits into one line.
fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}
