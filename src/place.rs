//! Where an export stands: the project, the git ref and the scope.
//!
//! Each is a type that can only be built valid, at the edge, so that past it
//! no bare text stands for one of them (and none can be a path trick). What is
//! written anew has to look like itself besides: see `alike`.

mod alike;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The longest project id and scope, in bytes.
const MAX_NAME: usize = 256;
/// The longest git ref, in bytes.
const MAX_REF: usize = 1024;

/// Why a text is no project id, git ref or scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than the limit, in bytes.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// A character or sequence that git, or a path, would not take.
    #[error(
        "it holds a character or sequence that is not allowed (control characters, spaces, '..', a leading or trailing '/', …)"
    )]
    Forbidden,
    /// Of several alphabets in one word.
    #[error("U+{:04X} is of another alphabet than the letters that it stands among", *.0 as u32)]
    Mixed(char),
    /// A word that can be taken for one of ASCII.
    #[error("U+{:04X} and all else of its word looks like ASCII, and is not", *.0 as u32)]
    Passing(char),
    /// Nothing is seen of it.
    #[error("nothing is seen of U+{:04X}", *.0 as u32)]
    Unseen(char),
    /// The same could be written in another way.
    #[error("it is not in the composed form of Unicode (NFC), as git and editors mostly write it")]
    Composed,
    /// A project has ASCII alone.
    #[error("a project is named in ASCII, as repositories are, and U+{:04X} is not of it", *.0 as u32)]
    Foreign(char),
}

/// Why nothing new is written under a name that may have been fine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing new is written to {what} \"{}\": {why}", shown(.name))]
pub struct Unwritable {
    what: &'static str,
    name: String,
    why: InvalidName,
}

impl Unwritable {
    /// Judges a ref, or a pattern of refs.
    pub fn check_ref(text: &str) -> Result<(), Self> {
        Self::told("ref", text, alike::check(text))
    }

    fn told(what: &'static str, name: &str, checked: Result<(), InvalidName>) -> Result<(), Self> {
        checked.map_err(|why| Self {
            what,
            name: name.to_owned(),
            why,
        })
    }
}

/// What is not ASCII, by its numbers: it is there to be told from what it looks
/// like.
fn shown(name: &str) -> String {
    let each = name.chars().map(|letter| match letter.is_ascii() {
        true => letter.to_string(),
        false => letter.escape_unicode().to_string(),
    });
    each.collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text, as it was given or normalised.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let parse: fn(&str) -> Result<String, InvalidName> = $parse;
                parse(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The isolation unit, usually a repository: `acme/shop`. Nothing crosses it.
    ProjectId,
    |text| bounded(text, MAX_NAME).and_then(path_like)
);

name!(
    /// A git ref, `refs/heads/main`: the unit of trust. A text that does not
    /// start with `refs/` is taken for a branch, so `main` is `refs/heads/main`.
    GitRef,
    |text| {
        bounded(text, MAX_REF)?;
        let full = if text.starts_with("refs/") { text.to_owned() } else { format!("refs/heads/{text}") };
        path_like(bounded(&full, MAX_REF)?)
    }
);

name!(
    /// BuildKit's `scope=`: a name inside a ref, `buildkit` unless told.
    Scope,
    |text| {
        let text = bounded(text, MAX_NAME)?;
        if text.chars().any(is_unseen) { Err(InvalidName::Forbidden) } else { Ok(text.to_owned()) }
    }
);

impl ProjectId {
    /// Refuses what nothing new is written to.
    pub fn check_new(&self) -> Result<(), Unwritable> {
        Unwritable::told("project", &self.0, alike::check_ascii(&self.0))
    }
}

impl Scope {
    /// `*`: on import, every scope of a ref.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }
}

impl Default for ProjectId {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Default for GitRef {
    fn default() -> Self {
        Self("refs/heads/main".to_owned())
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self("buildkit".to_owned())
    }
}

fn bounded(text: &str, limit: usize) -> Result<&str, InvalidName> {
    match text.len() {
        0 => Err(InvalidName::Empty),
        n if n > limit => Err(InvalidName::TooLong(limit)),
        _ => Ok(text),
    }
}

/// Whether nothing of a character is seen, or it turns what is seen around: two
/// names that look alike would be two. The control characters, the line and
/// paragraph separators, and Unicode's format characters (Cf, as of Unicode 17).
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2064}'
                | '\u{2066}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0001}'
                | '\u{e0020}'..='\u{e007f}'
        )
}

/// The rules of `git check-ref-format` that matter for a name with slashes.
fn path_like(text: &str) -> Result<String, InvalidName> {
    let bad_char = |c: char| is_unseen(c) || c.is_whitespace() || "~^:?*[\\".contains(c);
    let bad_part = |part: &str| {
        part.is_empty() || part.starts_with('.') || part.ends_with(".lock") || part.ends_with('.')
    };
    if text.chars().any(bad_char)
        || text.contains("..")
        || text.contains("@{")
        || text.split('/').any(bad_part)
    {
        return Err(InvalidName::Forbidden);
    }
    Ok(text.to_owned())
}

/// Where an export stands, and where an import looks.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub struct Place {
    /// The project.
    pub project: ProjectId,
    /// The git ref.
    #[serde(rename = "ref")]
    pub git_ref: GitRef,
    /// The scope inside the ref.
    pub scope: Scope,
}

impl Place {
    /// Refuses what nothing new is written to: a name that can be taken for
    /// another. What stands there already can be read.
    pub fn check_new(&self) -> Result<(), Unwritable> {
        self.project.check_new()?;
        Unwritable::check_ref(self.git_ref.as_str())?;
        let scope = self.scope.as_str();
        Unwritable::told("scope", scope, alike::check(scope))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "project {}, ref {}, scope {}",
            self.project, self.git_ref, self.scope
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_ref_is_a_branch() {
        assert_eq!(
            "main".parse::<GitRef>().unwrap().as_str(),
            "refs/heads/main"
        );
        assert_eq!(
            "feat/x".parse::<GitRef>().unwrap().as_str(),
            "refs/heads/feat/x"
        );
        assert_eq!(
            "refs/pull/7/merge".parse::<GitRef>().unwrap().as_str(),
            "refs/pull/7/merge"
        );
    }

    #[test]
    fn path_tricks_and_control_characters_are_refused() {
        for text in [
            "..", "a/../b", "/a", "a/", "a//b", "a\0b", "a\nb", "a b", ".git", "x.lock", "a\\b",
            "a@{1}",
        ] {
            assert_eq!(
                text.parse::<ProjectId>(),
                Err(InvalidName::Forbidden),
                "{text:?}"
            );
            assert!(text.parse::<GitRef>().is_err(), "{text:?}");
        }
        assert_eq!("".parse::<Scope>(), Err(InvalidName::Empty));
        assert_eq!("a\u{7}".parse::<Scope>(), Err(InvalidName::Forbidden));
        assert_eq!(
            "x".repeat(2000).parse::<GitRef>(),
            Err(InvalidName::TooLong(MAX_REF))
        );
    }

    #[test]
    fn what_cannot_be_seen_is_in_no_name() {
        for letter in [
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2028}',
            '\u{2029}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let text = format!("ma{letter}in");
            let (project, git_ref, scope) = (text.parse(), text.parse(), text.parse());
            assert_eq!(
                project,
                Err::<ProjectId, _>(InvalidName::Forbidden),
                "{text:?}"
            );
            assert_eq!(
                git_ref,
                Err::<GitRef, _>(InvalidName::Forbidden),
                "{text:?}"
            );
            assert_eq!(scope, Err::<Scope, _>(InvalidName::Forbidden), "{text:?}");
        }
        for text in ["größe", "分支", "ветка", "\u{1f980}"] {
            assert!(text.parse::<GitRef>().is_ok(), "{text:?}");
            assert!(text.parse::<Scope>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_looks_like_another_name_is_a_name_and_takes_nothing_new() {
        let git_ref: GitRef = "m\u{430}in".parse().unwrap();
        let place = Place {
            git_ref,
            ..Place::default()
        };
        assert_eq!(
            place.check_new().unwrap_err().to_string(),
            "nothing new is written to ref \"refs/heads/m\\u{430}in\": U+0430 is of another \
             alphabet than the letters that it stands among"
        );
        let project: ProjectId = "größe".parse().unwrap();
        let scope: Scope = "ma\u{fe0f}in".parse().unwrap();
        for place in [
            Place {
                project,
                ..Place::default()
            },
            Place {
                scope,
                ..Place::default()
            },
        ] {
            assert!(place.check_new().is_err(), "{place}");
        }
        assert_eq!(Place::default().check_new(), Ok(()));
    }

    proptest! {
        #[test]
        fn a_valid_name_never_climbs(text in "[a-z./@{\\\\ ]{0,20}") {
            if let Ok(project) = text.parse::<ProjectId>() {
                prop_assert!(project.as_str().split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}
