//! Why an identity is not exchanged.

use std::time::Duration;

use super::super::token::{MAX_TOKEN, MintError};
use super::template::Unfit;
use crate::telemetry::metrics::label;
use crate::units::{Age, Spent};

/// Why there is no token. The text is for the bearer: it tells what is wrong
/// with their own token, and nothing of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Longer than any that a CI makes.
    #[error("the identity token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// It is not what a token looks like; says which part.
    #[error("this is no identity token that can be read ({0}): give the CI's JWT, whole")]
    Malformed(&'static str),
    /// Nobody here vouches for it.
    #[error("the identity token is by issuer {0:?}, which the hub is not configured for")]
    Issuer(String),
    /// It is signed in a way that is not taken, or that its key is not for.
    #[error(
        "the identity token is signed by an algorithm that is not taken, or that its key is not for"
    )]
    Algorithm,
    /// Its issuer does not publish that key.
    #[error(
        "the identity token is signed with key {0:?}, which its issuer does not publish; if it is new, try again in 30 s"
    )]
    UnknownKey(String),
    /// The issuer's keys are not to be had. Why is for the log: it has the
    /// addresses of the hub's network.
    #[error("the keys of issuer {0:?} can't be fetched now: try again")]
    Unavailable(String, String),
    /// The key did not make this signature.
    #[error("the signature of the identity token is wrong")]
    Signature,
    /// It is for somebody else.
    #[error(
        "the identity token is for {got}, and has to be for {wanted}: have the CI make one for that audience"
    )]
    Audience {
        /// Who it is for.
        got: String,
        /// Who it has to be for.
        wanted: String,
    },
    /// It does not count any more.
    #[error("the identity token has expired {}: get a new one", Age(*.0))]
    Expired(Duration),
    /// It does not count yet.
    #[error("the identity token counts only in {}: wait, or set the clocks right", Spent(*.0))]
    NotYet(Duration),
    /// It would count for longer than an identity should.
    #[error("the identity token is good for more than {}: have the CI make a shorter one", Spent(*.0))]
    Lasting(Duration),
    /// A claim is missing, or is not what it should be.
    #[error("the identity token has no claim {0:?} that can be used")]
    Claim(&'static str),
    /// Nobody gets anything for it.
    #[error(
        "none of the hub's rules is about this identity ({0}); `layerd token explain --config` with the hub's file says why"
    )]
    NoRule(String),
    /// A rule is about it, and can't make a grant of it.
    #[error("what the identity token says can't be granted: {0}")]
    Unfit(#[from] Unfit),
    /// The grant is none.
    #[error("no token can be made for this identity: {0}")]
    Grant(#[from] MintError),
    /// It was asked for nothing that there is.
    #[error("what was asked for is not granted: {0}")]
    Scope(&'static str),
    /// Others are first.
    #[error("too many exchanges at once: try again in a second")]
    Busy,
}

label! {
    /// What came of an exchange.
    Outcome as "outcome" {
        /// A token was made.
        Granted = "granted",
        /// The identity token is no token, or too long.
        Malformed = "malformed",
        /// Its issuer is not known.
        Issuer = "issuer",
        /// Its key is not known, or used in another way.
        Key = "key",
        /// Its issuer's keys could not be fetched.
        Unavailable = "unavailable",
        /// Its signature is wrong.
        Signature = "signature",
        /// It is for somebody else.
        Audience = "audience",
        /// It does not count now.
        Time = "time",
        /// No rule matched.
        NoRule = "no_rule",
        /// A rule matched, and nothing could be granted.
        Unfit = "unfit",
        /// There were too many at once.
        Busy = "busy",
    }
}

impl Rejected {
    /// What is counted.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::TooLong | Self::Malformed(_) | Self::Claim(_) => Outcome::Malformed,
            Self::Issuer(_) => Outcome::Issuer,
            Self::Algorithm | Self::UnknownKey(_) => Outcome::Key,
            Self::Unavailable(..) => Outcome::Unavailable,
            Self::Signature => Outcome::Signature,
            Self::Audience { .. } => Outcome::Audience,
            Self::Expired(_) | Self::NotYet(_) | Self::Lasting(_) => Outcome::Time,
            Self::NoRule(_) => Outcome::NoRule,
            Self::Unfit(_) | Self::Grant(_) | Self::Scope(_) => Outcome::Unfit,
            Self::Busy => Outcome::Busy,
        }
    }
}
