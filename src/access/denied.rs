//! Why a token does not count.

use std::time::Duration;

use crate::units::Spent;

use super::token::{MAX_LIFETIME, MAX_TOKEN};

/// Why a token was refused: its text is for the client, and says what to do;
/// nothing of the token is in it but the name of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none.
    #[error("a token is needed here: give one with token=… or --hub-token-file")]
    NoToken,
    /// It is longer than any that is made here.
    #[error("the token is longer than {MAX_TOKEN} bytes: this is not one of layerd's")]
    TooLong,
    /// It is not what a token looks like; says which part.
    #[error(
        "this is no token that can be read ({0}): give it whole, as `layerd token mint` printed it"
    )]
    Malformed(&'static str),
    /// An algorithm that the key is not for, or `none`.
    #[error(
        "the token's algorithm is not the one of its key: get a new one, made by `layerd token mint`"
    )]
    Algorithm,
    /// It has to be understood in a way that is not known here (`crit`).
    #[error("the token asks for something that this layerd does not know: get one without it")]
    Critical,
    /// No key has this name.
    #[error(
        "the token was signed with key {0:?}, which the hub does not have (a key has the name of its file): get a new one"
    )]
    UnknownKey(String),
    /// The key did not make this signature.
    #[error(
        "the token's signature is wrong: it was changed, or signed with another key of the same name; get a new one"
    )]
    Signature,
    /// Somebody else made it.
    #[error("the token was not made for layerd (its issuer is another): get one that is")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is not for layerd (its audience is another): get one that is")]
    Audience,
    /// It does not count yet, for so long.
    #[error("the token counts only in {}: wait, or set the clocks right", Spent(*.0))]
    NotYet(Duration),
    /// It has not counted any more for so long.
    #[error("the token has expired {}: get a new one", crate::units::Age(*.0))]
    Expired(Duration),
    /// Somebody said that it counts no more.
    #[error("the token was revoked: get a new one")]
    Revoked,
    /// It would count for longer than any may.
    #[error("the token is good for more than {} days: get a shorter one", MAX_LIFETIME.as_secs() / 86_400)]
    Lifetime,
    /// A claim is missing, or is not what it should be.
    #[error("the token does not say what it grants (claim {0:?}): get a new one")]
    Claim(&'static str),
}

impl Denied {
    /// A short name, for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::TooLong => "too_long",
            Self::Malformed(_) => "malformed",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::UnknownKey(_) => "unknown_key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NotYet(_) => "not_yet",
            Self::Expired(_) => "expired",
            Self::Revoked => "revoked",
            Self::Lifetime => "lifetime",
            Self::Claim(_) => "claim",
        }
    }
}
