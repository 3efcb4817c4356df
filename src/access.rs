//! Who is asking, and what they may.
//!
//! A hub that asks for tokens takes signed ones (JWT), each of which says all
//! that it grants: a project, and the refs in it that its bearer may read and
//! write. Every hub with the same [`Keys`] gives the same answer; nothing is
//! looked up but whether it was [revoked](Revoked). A hub that asks for none grants
//! everything to everybody.
//!
//! | question | where |
//! |---|---|
//! | what is in a token? | [`token`] |
//! | what does it grant? | [`Grant`], [`RefPattern`] |
//! | which keys count, and which one signs? | [`Keys`] |
//! | which tokens were revoked? | [`Revoked`] |
//! | does a grant last as long as a stream? | [`Pass`] |
//! | why was a token refused? | [`Denied`]; how often? [`Refusals`] |
//! | what may one client take of what all need? | [`Shares`] |
//! | how does a job of a CI get one? | [`identity`] |
//! | what may a runner of GitHub Actions, and in which order? | [`Runner`] |

mod administration;
mod denied;
mod glob;
mod grant;
pub mod identity;
mod jwk;
mod key;
mod key_file;
mod keys;
mod pass;
mod pattern;
mod refusals;
mod revoked;
mod runner;
mod secret;
mod shares;
mod signatures;
pub mod token;
mod verified;

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;

pub use self::denied::Denied;
pub use self::grant::{Grant, Refusal};
pub use self::key::{Algorithm, KeyPair};
pub use self::key_file::{KeyError, kid_of};
pub use self::keys::Keys;
pub use self::pass::Pass;
pub use self::pattern::{InvalidPattern, RefPattern};
pub use self::refusals::{Reason, Refusals};
pub use self::revoked::Revoked;
pub use self::runner::{Runner, RunnerScope};
pub use self::secret::{Secret, SecretError};
pub use self::shares::{Client, NoRoom, Share, Shares};
pub use self::token::{MintError, Minted, NewAdminToken, NewToken};

/// The token of a header that says `Bearer TOKEN` (RFC 6750, 2.1).
pub fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a server asks of its clients.
pub enum Access {
    /// Nothing: everybody may do everything.
    Open,
    /// A token by one of these keys, that is not among these.
    Token(Keys, Revoked),
}

impl Access {
    /// What the bearer of `token` may, if anything.
    pub async fn grant(&self, token: Option<&str>, now: Timestamp) -> Result<Arc<Grant>, Denied> {
        match (self, token) {
            (Self::Open, _) => Ok(Arc::new(Grant::everything())),
            (Self::Token(..), None) => Err(Denied::NoToken),
            (Self::Token(keys, revoked), Some(token)) => {
                let grant = keys.verify(token, now)?;
                revoked.check(grant.id()).await?;
                match grant.is_admin() {
                    true => Err(Denied::Admin),
                    false => Ok(grant),
                }
            }
        }
    }

    /// Whether what was granted before still counts.
    async fn check(&self, grant: &Grant, now: Timestamp) -> Result<(), Denied> {
        match self {
            Self::Open => Ok(()),
            Self::Token(_, revoked) => {
                grant.check_time(now)?;
                revoked.check(grant.id()).await
            }
        }
    }

    /// Signs a token that will be taken here.
    pub fn mint(&self, new: &NewToken, now: Timestamp) -> Result<Minted, MintError> {
        match self {
            Self::Open => Err(MintError::NoKey),
            Self::Token(keys, _) => keys.mint(new, now),
        }
    }

    /// Whether there is a key to sign with.
    pub fn mints(&self) -> bool {
        match self {
            Self::Open => false,
            Self::Token(keys, _) => keys.signer().is_some(),
        }
    }
}

#[cfg(test)]
mod tests;
