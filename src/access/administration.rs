//! What an [`Access`] does for administrators.

use std::sync::Arc;

use jiff::Timestamp;

use super::Access;
use super::denied::Denied;
use super::grant::Grant;
use super::token::{MintError, Minted, NewAdminToken};

impl Access {
    /// What the bearer of `token` may, whether it is for builds or for the
    /// administration; where no token is asked for, everybody administers all.
    pub async fn administrator(&self, token: Option<&str>) -> Result<Arc<Grant>, Denied> {
        match (self, token) {
            (Self::Open, _) => Ok(Arc::new(Grant {
                admin: true,
                ..Grant::everything()
            })),
            (Self::Token(..), None) => Err(Denied::NoToken),
            (Self::Token(keys, revoked), Some(token)) => {
                let grant = keys.verify(token, Timestamp::now())?;
                revoked.check(grant.id()).await?;
                Ok(grant)
            }
        }
    }

    /// Whether no token is asked for.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Refuses a token that none of the keys here has signed. One that has
    /// expired was signed all the same.
    pub fn genuine(&self, token: &str) -> Result<(), Denied> {
        match self {
            Self::Open => Ok(()),
            Self::Token(keys, ..) => match keys.verify(token, Timestamp::now()) {
                Ok(_) | Err(Denied::Expired(_) | Denied::NotYet(_) | Denied::Lifetime) => Ok(()),
                Err(denied) => Err(denied),
            },
        }
    }

    /// Signs an admin token that will be taken here.
    pub fn mint_admin(&self, new: &NewAdminToken, now: Timestamp) -> Result<Minted, MintError> {
        match self {
            Self::Open => Err(MintError::NoKey),
            Self::Token(keys, ..) => keys.mint_admin(new, now),
        }
    }
}
