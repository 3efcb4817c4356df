//! A file with keys.
//!
//! What it holds is told by how it looks:
//!
//! - PEM: one Ed25519 key, private (`PRIVATE KEY`, PKCS#8) or public (`PUBLIC
//!   KEY`), as `openssl genpkey -algorithm ed25519` makes it;
//! - JSON: a JWK, or a set of them: Ed25519 (`OKP`) and HS256 (`oct`);
//! - anything else is an HS256 secret of at least 32 bytes: in hexadecimal, in
//!   base64 (either alphabet), or as 32, 48 or 64 raw bytes.
//!
//! Raw text of any length is no secret: a public key in a form that is not known
//! here would become one, and whoever has that could sign.
//!
//! A key is named after its file, without the last extension, and in JSON by its
//! `kid`.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use super::jwk;
use super::key::{Key, named};

/// Far more than any file of keys has.
const MAX_FILE: u64 = 1 << 20;

/// The sizes of raw secrets: those of the usual hashes.
const RAW: [usize; 3] = [32, 48, 64];

/// Why a file or folder gives no keys. What is in it is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    path: PathBuf,
    why: String,
}

impl KeyError {
    pub(super) fn new(path: &Path, why: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for KeyError {}

/// The keys of a file, of which there is at least one.
pub fn read(path: &Path) -> Result<Vec<Key>, KeyError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| KeyError::new(path, error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(KeyError::new(path, "too large for a file of keys"));
    }
    parse(stem(path), &bytes).map_err(|why| KeyError::new(path, why))
}

/// The name that a key in this file has, if the file holds no JSON.
pub fn kid_of(path: &Path) -> Result<String, KeyError> {
    named(stem(path)).map_err(|why| KeyError::new(path, why))
}

fn stem(path: &Path) -> &str {
    let name = path.file_stem().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Key>, String> {
    let trimmed = bytes.trim_ascii();
    let keys = if trimmed.starts_with(b"{") {
        jwk::parse(name, trimmed)?
    } else if trimmed.windows(10).any(|part| part == b"-----BEGIN") {
        vec![from_pem(name, trimmed)?]
    } else {
        vec![Key::secret(name, &secret(bytes)?)?]
    };
    match keys.is_empty() {
        true => Err("no key is in it".to_owned()),
        false => Ok(keys),
    }
}

fn from_pem(name: &str, pem: &[u8]) -> Result<Key, &'static str> {
    let sections: Result<Vec<(SectionKind, Vec<u8>)>, _> =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).collect();
    let sections = sections.map_err(|_| "no PEM that can be read")?;
    match sections.as_slice() {
        [(SectionKind::PrivateKey, der)] => Key::private_from_der(name, der),
        [(SectionKind::PublicKey, der)] => Key::public_from_der(name, der),
        [_] | [] => Err("PEM of something else: PRIVATE KEY or PUBLIC KEY is expected"),
        _ => Err("more than one key: put each into a file of its own"),
    }
}

fn secret(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let text = bytes.trim_ascii();
    if let Ok(secret) = hex::decode(text) {
        return Ok(secret);
    }
    for alphabet in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        if let Ok(secret) = alphabet.decode(text) {
            return Ok(secret);
        }
    }
    if RAW.contains(&bytes.len()) {
        return Ok(bytes.to_vec());
    }
    Err(
        "neither PEM nor JSON nor a secret: that is at least 32 bytes in hexadecimal or base64, or 32, 48 or 64 raw ones",
    )
}
