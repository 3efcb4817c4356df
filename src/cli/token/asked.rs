//! What a hub says of a token, where one is asked.

use super::explain::Signature;
use crate::cli::hub_api::Wanted;
use crate::cli::hub_args::HubArgs;
use crate::doors::admin::{Explained, TokenText};

/// What came of asking.
pub(super) enum Asked {
    /// No hub is named.
    Nobody,
    /// It does not say; why.
    Unanswered(String),
    /// It asks for no token, and knows of none.
    Open,
    /// It takes the token.
    Taken,
    /// It does not: in a sentence, and by its short name, which an older hub
    /// does not say.
    Refused(String, Option<String>),
}

impl Asked {
    /// Asks the hub, where one is named.
    pub(super) async fn of(hub: &HubArgs, token: &str) -> Self {
        let asked = async {
            let Some(hub) = hub.api()? else {
                return anyhow::Ok(Self::Nobody);
            };
            let wanted = Wanted::at(&["tokens", "explain"]);
            let token = TokenText {
                token: token.to_owned(),
            };
            let said: Explained = hub.send(http::Method::POST, wanted, &token).await?;
            Ok(match said.refused {
                _ if said.open => Self::Open,
                None => Self::Taken,
                Some(refused) => Self::Refused(refused, said.reason),
            })
        };
        let asked = asked.await;
        asked.unwrap_or_else(|error| Self::Unanswered(format!("{error:#}")))
    }

    /// Why the hub does not take the token, if it doesn't; nothing where it does
    /// not say.
    pub(super) fn verdict(&self) -> Option<Option<&str>> {
        match self {
            Self::Nobody | Self::Unanswered(_) | Self::Open => None,
            Self::Taken => Some(None),
            Self::Refused(refused, _) => Some(Some(refused)),
        }
    }

    /// What follows from that for the signature, which a hub looks at before it
    /// looks at times, and asks whether the token was revoked.
    pub(super) fn signature(&self) -> Option<Signature> {
        match self {
            Self::Nobody | Self::Unanswered(_) | Self::Open => None,
            Self::Taken => Some(Signature::Valid),
            Self::Refused(_, reason) => match reason.as_deref()? {
                "expired" | "not_yet" | "lifetime" | "revoked" => Some(Signature::Valid),
                "signature" => Some(Signature::Invalid),
                "unknown_key" => Some(Signature::Unchecked),
                _ => None,
            },
        }
    }

    /// Whether it was revoked.
    pub(super) fn revoked(&self) -> String {
        match self {
            Self::Nobody => {
                "NOT KNOWN: no hub was asked; give --hub and an admin token for that".to_owned()
            }
            Self::Unanswered(why) => format!("NOT KNOWN, since the hub does not say: {why}"),
            Self::Open => "NOT KNOWN: the hub asks for no token, and looks at none".to_owned(),
            Self::Taken => "no: the hub takes it".to_owned(),
            Self::Refused(_, Some(reason)) if reason == "revoked" => "YES".to_owned(),
            Self::Refused(..) => {
                "NOT KNOWN: the hub does not take it anyway, and did not look".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_one_answer_never_contradicts_itself() {
        let refused = |reason: &str| Asked::Refused("why".to_owned(), Some(reason.to_owned()));
        for (asked, takes, signature, revoked) in [
            (Asked::Nobody, None, None, "NOT KNOWN: no hub"),
            (
                Asked::Unanswered("x".to_owned()),
                None,
                None,
                "does not say: x",
            ),
            (Asked::Open, None, None, "asks for no token"),
            (
                Asked::Taken,
                Some(true),
                Some(Signature::Valid),
                "no: the hub takes it",
            ),
            (
                refused("revoked"),
                Some(false),
                Some(Signature::Valid),
                "YES",
            ),
            (
                refused("expired"),
                Some(false),
                Some(Signature::Valid),
                "NOT KNOWN",
            ),
            (
                refused("signature"),
                Some(false),
                Some(Signature::Invalid),
                "NOT KNOWN",
            ),
            (
                refused("unknown_key"),
                Some(false),
                Some(Signature::Unchecked),
                "NOT KNOWN",
            ),
            (
                Asked::Refused("why".to_owned(), None),
                Some(false),
                None,
                "NOT KNOWN",
            ),
        ] {
            assert_eq!(asked.verdict().map(|refused| refused.is_none()), takes);
            assert_eq!(asked.signature(), signature);
            assert!(asked.revoked().contains(revoked), "{}", asked.revoked());
        }
    }
}
