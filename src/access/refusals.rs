//! What is counted of those who may not.

use prometheus_client::registry::Registry;

use super::denied::Denied;
use super::grant::Refusal;
use crate::telemetry::metrics::{CounterBy, label};

label! {
    /// Why somebody was refused.
    Reason as "reason" {
        /// A token is needed, and there was none.
        NoToken = "no_token",
        /// It is none of layerd's, or can't be read.
        Malformed = "malformed",
        /// No key made its signature.
        Signature = "signature",
        /// It counts only later.
        NotYet = "not_yet",
        /// It counted until some time ago.
        Expired = "expired",
        /// It was revoked.
        Revoked = "revoked",
        /// It is for builds where administrators are asked for, or the other way
        /// round.
        Kind = "kind",
        /// It is for another project.
        Project = "project",
        /// It may not read that ref.
        Read = "read",
        /// It may not write that ref.
        Write = "write",
    }
}

impl From<&Denied> for Reason {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::NoToken => Self::NoToken,
            Denied::UnknownKey(_) | Denied::Signature => Self::Signature,
            Denied::NotYet(_) => Self::NotYet,
            Denied::Expired(_) => Self::Expired,
            Denied::Revoked => Self::Revoked,
            Denied::Admin => Self::Kind,
            Denied::TooLong
            | Denied::Malformed(_)
            | Denied::Algorithm
            | Denied::Critical
            | Denied::Issuer
            | Denied::Audience
            | Denied::Lifetime
            | Denied::Claim(_) => Self::Malformed,
        }
    }
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Project { .. } => Self::Project,
            Refusal::Read { .. } => Self::Read,
            Refusal::Write { .. } => Self::Write,
        }
    }
}

/// How many were refused, by reason; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals(CounterBy<Reason>);

impl Refusals {
    /// New ones, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let refusals = Self::default();
        refusals.0.register(
            registry,
            "layerd_hub_refusals",
            "Calls and requests that their token did not allow, by reason",
        );
        refusals
    }

    /// One more.
    pub fn count(&self, reason: impl Into<Reason>) {
        self.0.count(reason.into());
    }

    /// One more, where it is one.
    pub fn counted<T, E>(&self, answer: Result<T, E>) -> Result<T, E>
    where
        for<'a> Reason: From<&'a E>,
    {
        answer.inspect_err(|why| self.count(Reason::from(why)))
    }
}
