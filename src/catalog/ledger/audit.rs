//! What was done, by whom and from where.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::place::{GitRef, ProjectId, Scope};

/// Bytes of the details of one entry, as JSON.
const MAX_DETAILS: usize = 4096;
/// Characters of one text in there, and of a name or number from outside.
const MAX_TEXT: usize = 256;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What can be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// How it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

actions! {
    /// An export was published.
    Export = "export",
    /// Exports of a place were taken out of the log.
    Flush = "flush",
    /// Certain exports were.
    Delete = "delete",
    /// Exports were collected, for their age or for room.
    Evict = "evict",
    /// A token was signed.
    Mint = "mint",
    /// A token was given for another identity.
    Exchange = "exchange",
    /// A token was revoked.
    Revoke = "revoke",
    /// A project was given other limits.
    Quota = "quota",
    /// Exports came out of an archive.
    Import = "import",
    /// What a check had found was mended.
    Repair = "repair",
}

/// No [`Action`] is called that.
#[derive(Debug, thiserror::Error)]
#[error("no action is called {0:?}: there is {all}", all = Action::ALL.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.iter().find(|action| action.as_str() == text);
        found.copied().ok_or_else(|| UnknownAction(cut(text)))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Action {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Actor {
    /// The bearer of a token.
    Token {
        /// Who it was made for.
        subject: String,
        /// Its id.
        id: String,
    },
    /// A user of the host on which it was done.
    User {
        /// `root@host`.
        name: String,
    },
    /// Somebody whom nobody asked.
    Anybody,
    /// layerd by itself.
    Layerd,
}

impl Actor {
    /// What people know whoever it is by.
    pub fn name(&self) -> &str {
        match self {
            Self::Token { subject, id } if subject.is_empty() => id,
            Self::Token { subject, .. } => subject,
            Self::User { name } => name,
            Self::Anybody => "somebody without a token",
            Self::Layerd => "layerd",
        }
    }

    /// Its kind and its two texts, as columns.
    pub(in crate::catalog) fn columns(&self) -> (&'static str, Option<&str>, Option<&str>) {
        match self {
            Self::Token { subject, id } => ("token", Some(subject), Some(id)),
            Self::User { name } => ("user", Some(name), None),
            Self::Anybody => ("anybody", None, None),
            Self::Layerd => ("layerd", None, None),
        }
    }

    /// Out of those. Of a kind that only a newer layerd knows the name is left.
    pub(in crate::catalog) fn of_columns(
        kind: &str,
        subject: Option<String>,
        token: Option<String>,
    ) -> Self {
        let subject = subject.unwrap_or_default();
        match kind {
            "token" => Self::Token {
                subject,
                id: token.unwrap_or_default(),
            },
            "anybody" => Self::Anybody,
            "layerd" => Self::Layerd,
            _ => Self::User { name: subject },
        }
    }
}

/// Who did something, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditOrigin)]
pub struct Origin {
    /// Who.
    pub actor: Actor,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer: Option<SocketAddr>,
    /// With which request, as the logs name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Origin {
    /// From this host, with no request.
    pub fn here(actor: Actor) -> Self {
        Self {
            actor,
            peer: None,
            request: None,
        }
    }
}

/// More about what was done: small, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Details(Map<String, Value>);

impl Details {
    /// These and one more; a text is cut to some hundred characters.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = match value.into() {
            Value::String(text) => Value::String(cut(&text)),
            value => value,
        };
        self.0.insert(name.to_owned(), value);
        self
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// As JSON; none where there are none. What is too large is left out.
    pub(in crate::catalog) fn column(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let text = Value::Object(self.0.clone()).to_string();
        Some(match text.len() {
            ..=MAX_DETAILS => text,
            _ => r#"{"left_out":"too large"}"#.to_owned(),
        })
    }

    pub(in crate::catalog) fn of_column(text: Option<&str>) -> Result<Self, serde_json::Error> {
        text.map_or_else(|| Ok(Map::new()), serde_json::from_str)
            .map(Self)
    }
}

/// What was done, to be noted.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAudit {
    /// Who, and from where.
    pub origin: Origin,
    /// What.
    pub action: Action,
    /// To which project, if to one.
    pub project: Option<ProjectId>,
    /// To which ref.
    pub git_ref: Option<GitRef>,
    /// To which scope.
    pub scope: Option<Scope>,
    /// What else there is to say.
    pub details: Details,
}

impl NewAudit {
    /// With nothing more to say.
    pub fn new(origin: &Origin, action: Action) -> Self {
        Self {
            origin: origin.clone(),
            action,
            project: None,
            git_ref: None,
            scope: None,
            details: Details::default(),
        }
    }
}

/// The number of an entry; later ones have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct AuditId(pub i64);

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its number.
    pub id: AuditId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who, and from where.
    #[serde(flatten)]
    pub origin: Origin,
    /// What.
    #[schema(value_type = String)]
    pub action: Action,
    /// To which project, if to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// To which ref.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub git_ref: Option<GitRef>,
    /// To which scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What else there is to say.
    #[schema(value_type = Object)]
    pub details: Details,
}

/// Which entries to list.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only of this kind.
    pub action: Option<Action>,
    /// Only of this time and later.
    pub since: Option<Timestamp>,
    /// Only of before this time.
    pub until: Option<Timestamp>,
    /// Only older than this one: the last of the page before.
    pub before: Option<AuditId>,
    /// At most so many; a page unless given.
    pub limit: Option<u32>,
}

/// So much of a text as is kept, and nothing that a terminal would obey.
pub(in crate::catalog) fn cut(text: &str) -> String {
    let plain = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    plain.take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_as_it_is_written_and_others_are_named() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), *action);
        }
        let error = "steal".parse::<Action>().unwrap_err().to_string();
        assert!(error.starts_with("no action is called \"steal\": there is export, flush"));
    }

    #[test]
    fn details_are_bounded() {
        let details = Details::default().with("why", "x".repeat(10_000));
        assert_eq!(details.get("why").unwrap().as_str().unwrap().len(), 256);
        let many = (0..1000).fold(Details::default(), |details, n| {
            details.with(&n.to_string(), "a value")
        });
        assert!(many.column().unwrap().len() < 100);
        assert_eq!(Details::default().column(), None);
        let read = Details::of_column(details.column().as_deref()).unwrap();
        assert_eq!(read, details);
    }
}
