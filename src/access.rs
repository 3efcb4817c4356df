//! Who is asking, and what they may.
//!
//! A hub that asks for tokens takes signed ones (JWT), each of which says all
//! that it grants: a project, and the refs in it that its bearer may read and
//! write. Nothing is looked up, so every hub with the same [`Keys`] gives the
//! same answer. A hub that asks for none grants everything to everybody.
//!
//! | question | where |
//! |---|---|
//! | what is in a token? | [`token`] |
//! | what does it grant? | [`Grant`], [`RefPattern`] |
//! | which keys count, and which one signs? | [`Keys`] |
//! | why was a token refused? | [`Denied`] |

mod administration;
mod denied;
mod grant;
mod jwk;
mod key;
mod key_file;
mod keys;
mod pattern;
mod secret;
mod signatures;
pub mod token;
mod verified;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::denied::Denied;
pub use self::grant::{Grant, Refusal};
pub use self::key::{Algorithm, KeyPair};
pub use self::key_file::{KeyError, kid_of};
pub use self::keys::Keys;
pub use self::pattern::{InvalidPattern, RefPattern};
pub use self::secret::{Secret, SecretError};
pub use self::token::{MintError, Minted, NewAdminToken, NewToken};

/// What a server asks of its clients.
pub enum Access {
    /// Nothing: everybody may do everything.
    Open,
    /// A token by one of these keys.
    Token(Keys),
}

impl Access {
    /// What the bearer of `token` may, if anything.
    pub fn grant(&self, token: Option<&str>, now: Timestamp) -> Result<Arc<Grant>, Denied> {
        match (self, token) {
            (Self::Open, _) => Ok(Arc::new(Grant::everything())),
            (Self::Token(_), None) => Err(Denied::NoToken),
            (Self::Token(keys), Some(token)) => {
                let grant = keys.verify(token, now)?;
                match grant.is_admin() {
                    true => Err(Denied::Admin),
                    false => Ok(grant),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
