//! A grant for as long as what it was given for lasts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Access;
use super::denied::Denied;
use super::grant::Grant;

/// For how long it counts that it was checked.
const CHECKED: Duration = Duration::from_secs(5);

/// What somebody was granted, and when that was checked last.
#[derive(Clone)]
pub struct Pass {
    access: Arc<Access>,
    grant: Arc<Grant>,
    checked: Instant,
}

impl Pass {
    /// For the bearer of `token`, if it counts.
    pub async fn new(access: &Arc<Access>, token: Option<&str>) -> Result<Self, Denied> {
        Ok(Self {
            grant: access.grant(token, Timestamp::now()).await?,
            access: Arc::clone(access),
            checked: Instant::now(),
        })
    }

    /// For whoever was granted this, where no token is asked for.
    pub(super) fn of(access: &Arc<Access>, grant: Arc<Grant>) -> Self {
        Self {
            access: Arc::clone(access),
            grant,
            checked: Instant::now(),
        }
    }

    /// For whoever bears what was given to a token with that id, as long as that
    /// is not revoked; by itself it grants nothing.
    pub async fn of_token(access: &Arc<Access>, id: String) -> Result<Self, Denied> {
        let grant = Grant {
            read: Vec::new(),
            write: Vec::new(),
            id,
            ..Grant::everything()
        };
        access.check(&grant, Timestamp::now()).await?;
        Ok(Self::of(access, Arc::new(grant)))
    }

    /// What it grants.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Refuses what has expired or was revoked since it was checked. It costs
    /// nothing to ask for every piece of a stream: only after some seconds is it
    /// looked at again.
    pub async fn check(&mut self) -> Result<(), Denied> {
        if self.checked.elapsed() < CHECKED {
            return Ok(());
        }
        self.access.check(&self.grant, Timestamp::now()).await?;
        self.checked = Instant::now();
        Ok(())
    }
}
