//! Tokens: JWTs (RFC 7519) that say all that they grant.
//!
//! | claim | what it is |
//! |---|---|
//! | `iss`, `aud` | `layerd` |
//! | `sub` | who it was made for, for people to read |
//! | `jti` | its own id, random |
//! | `iat`, `nbf`, `exp` | seconds since 1970: made, good from, good until |
//! | `project` | the project |
//! | `read`, `write` | lists of [patterns](RefPattern) of refs |
//! | `admin` | `true` in a token for the administration: of `project`, or of all where that is left out |
//! | `ac` | the same as GitHub's runtime token has it, for clients of `type=gha` |
//!
//! All are needed but `admin`, and `ac`, which nobody here reads. It is a text that holds
//! JSON: `[{"Scope":"refs/heads/main","Permission":3}]`, of which 1 is to read
//! and 2 to write. Only refs stand there, no patterns: BuildKit hashes each into
//! the keys that it asks for (`cache/remotecache/gha/gha.go`), and nobody saves
//! under the hash of a pattern. The first is the bearer's own, the first ref of
//! `write`, and no other has the 2: of several, BuildKit takes the last to write
//! to. A token of nothing but patterns has an empty list, with which such
//! clients import nothing.

mod check;
mod claims;

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};

pub use self::check::{Unverified, read_unverified};
pub(super) use self::check::{bounded, verify};
use self::claims::Claims;
pub use super::grant::LEEWAY;
use super::key::Key;
use super::pattern::RefPattern;
use super::secret::Secret;
use crate::place::{ProjectId, Unwritable};

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 16 << 10;
/// The longest that a token may be good for.
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// The most patterns in one list.
pub const MAX_PATTERNS: usize = 100;
/// The longest subject, in bytes.
pub(super) const MAX_SUBJECT: usize = 256;

/// Bytes of the id of a token that is made here.
const ID: usize = 16;

/// Whether a token that is made here could have that id.
pub fn is_id(text: &str) -> bool {
    text.len() == 2 * ID
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a token is to grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Who it is for, for people to read: in logs, and in an audit.
    pub subject: String,
    /// The project.
    pub project: ProjectId,
    /// The refs that may be read; the order counts for clients of `type=gha`.
    pub read: Vec<RefPattern>,
    /// The refs that may be written.
    pub write: Vec<RefPattern>,
    /// How long it is good for, from now.
    pub lifetime: Duration,
}

/// What an admin token is to be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAdminToken {
    /// Who it is for, for people to read: in logs, and in an audit.
    pub subject: String,
    /// The project that it administers; all unless given.
    pub project: Option<ProjectId>,
    /// How long it is good for, from now.
    pub lifetime: Duration,
}

/// A token, and what is known of it by whoever made it.
#[derive(Clone, Debug)]
pub struct Minted {
    /// The token itself.
    pub token: Secret,
    /// Its id (`jti`).
    pub id: String,
    /// The name of the key that signed it.
    pub kid: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a token is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// All keys are public.
    #[error("there is no private key to sign with")]
    NoKey,
    /// Too long, or not at all.
    #[error("a token is good for 1 s at least and for {} days at most", MAX_LIFETIME.as_secs() / 86_400)]
    Lifetime,
    /// It would grant nothing.
    #[error("a token that may neither read nor write anything is of no use")]
    Nothing,
    /// More than any client needs.
    #[error("a token takes at most {MAX_PATTERNS} refs to read and {MAX_PATTERNS} to write")]
    Patterns,
    /// What could be written is called what nothing new is.
    #[error(transparent)]
    Name(#[from] Unwritable),
    /// Too long, or not to be shown.
    #[error("a subject has 1 to {MAX_SUBJECT} bytes and no control characters")]
    Subject,
    /// It would be longer than what is taken.
    #[error("the token would be longer than {MAX_TOKEN} bytes: name fewer refs, by patterns")]
    TooLong,
    /// The key can't sign, which it could when it was read.
    #[error("the key can't sign: {0}")]
    Signing(String),
}

/// Signs a token.
pub(super) fn mint(key: &Key, new: &NewToken, now: Timestamp) -> Result<Minted, MintError> {
    new.check()?;
    let id = hex::encode(rand::random::<[u8; ID]>());
    sign(key, &Claims::new(new, id.clone(), now), id)
}

/// Signs an admin token.
pub(super) fn mint_admin(
    key: &Key,
    new: &NewAdminToken,
    now: Timestamp,
) -> Result<Minted, MintError> {
    check_times_and_subject(new.lifetime, &new.subject)?;
    let id = hex::encode(rand::random::<[u8; ID]>());
    sign(key, &Claims::of_admin(new, id.clone(), now), id)
}

fn sign(key: &Key, claims: &Claims<'_>, id: String) -> Result<Minted, MintError> {
    let encoding: &EncodingKey = key.encoding.as_ref().ok_or(MintError::NoKey)?;
    let header = Header {
        kid: Some(key.kid.clone()),
        ..Header::new(key.algorithm.jwt())
    };
    let token = jsonwebtoken::encode(&header, claims, encoding)
        .map_err(|error| MintError::Signing(error.to_string()))?;
    if token.len() > MAX_TOKEN {
        return Err(MintError::TooLong);
    }
    Ok(Minted {
        token: Secret::new(token),
        id,
        kid: key.kid.clone(),
        expires: claims.expires().ok_or(MintError::Lifetime)?,
    })
}

impl NewToken {
    fn check(&self) -> Result<(), MintError> {
        check_times_and_subject(self.lifetime, &self.subject)?;
        if self.read.is_empty() && self.write.is_empty() {
            return Err(MintError::Nothing);
        }
        if self.read.len().max(self.write.len()) > MAX_PATTERNS {
            return Err(MintError::Patterns);
        }
        // What is there already can be read, whatever it is called.
        if !self.write.is_empty() {
            self.project.check_new()?;
        }
        for pattern in &self.write {
            Unwritable::check_ref(pattern.as_str())?;
        }
        Ok(())
    }
}

fn check_times_and_subject(lifetime: Duration, subject: &str) -> Result<(), MintError> {
    if lifetime.as_secs() == 0 || lifetime > MAX_LIFETIME {
        return Err(MintError::Lifetime);
    }
    match claims::is_subject(subject) {
        true => Ok(()),
        false => Err(MintError::Subject),
    }
}

#[cfg(test)]
mod tests;
