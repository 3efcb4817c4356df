//! Identities that others vouch for, and what they are exchanged for.
//!
//! A job of a CI can prove who it is by a token that the CI signs (OpenID
//! Connect). A hub takes it for a token of its own, which is good for minutes:
//! so no secret lies around, and what a job may do follows from what it is.
//!
//! | question | where |
//! |---|---|
//! | who vouches, and what do which identities get? | [`Config`]: issuers and rules |
//! | which rules come with layerd? | `presets` |
//! | what is wrong with a table of rules? | `review` |
//! | does a rule match, and what does it grant? | `rule`, `template` |
//! | is an identity token genuine? | `presented`, `jwks` |
//! | where do the keys come from, and how long do they count? | `fetch`, `keyring` |
//! | what does somebody get for it? | [`Exchange`], offline [`Explained`] |
//! | why not? | [`Rejected`] |

mod claims;
mod config;
mod exchange;
mod explain;
mod fetch;
mod jwks;
mod keyring;
mod presented;
mod presets;
mod rejected;
mod review;
mod rule;
mod template;

pub use self::claims::Claims;
pub use self::config::{Config, Issuer, KeySource, Where};
pub use self::exchange::{Exchange, Exchanged, Metrics, Wanted};
pub use self::explain::Explained;
pub use self::jwks::JwsAlgorithm;
pub use self::presented::Presented;
pub use self::rejected::{Outcome, Rejected};
pub use self::rule::{Condition, Mismatch, Rule};
pub use self::template::{ProjectTemplate, RefTemplate, SubjectTemplate, Template, Unfit};

#[cfg(test)]
mod tests;
