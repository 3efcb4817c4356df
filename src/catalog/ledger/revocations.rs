//! Tokens that count no more, though they have not expired.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::{Action, Details, NewAudit, Origin};

/// For how long it has to be remembered at most: no token lasts longer.
pub const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);

/// A token that is to count no more.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    /// Its id (`jti`).
    pub id: String,
    /// When it expires by itself; unless that is known, after [`REMEMBERED`].
    pub expires: Option<Timestamp>,
    /// Why; some hundred characters.
    pub why: String,
    /// Who says so.
    pub origin: Origin,
}

impl NewRevocation {
    /// As it is audited.
    pub(in crate::catalog) fn audit(&self) -> NewAudit {
        let details = Details::default()
            .with("token", self.id.as_str())
            .with("why", self.why.as_str());
        NewAudit {
            details,
            ..NewAudit::new(&self.origin, Action::Revoke)
        }
    }

    /// Until when it has to be remembered, a day longer than it lasts: clocks
    /// differ. In microseconds since 1970.
    pub(in crate::catalog) fn until(&self, now: Timestamp) -> i64 {
        const DAY: i64 = 24 * 3600 * 1_000_000;
        let latest = now + REMEMBERED;
        let until = self.expires.map_or(latest, |expires| expires.min(latest));
        until.as_microsecond().saturating_add(DAY)
    }
}

/// How much was revoked when this was; later is greater. The default is before
/// all.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(transparent)]
pub struct Revision(pub i64);

/// A token that counts no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    /// Where it stands among others.
    pub revision: Revision,
    /// The token's id (`jti`).
    pub id: String,
    /// When it was revoked.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Until when that is remembered.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// By whom, as people know them.
    pub by: String,
    /// Why.
    pub why: String,
}
