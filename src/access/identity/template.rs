//! Texts with claims in them: `refs/heads/{base_ref}`.
//!
//! What comes from a claim is a name and stays one: it has to be what a ref or
//! a project may be, so it can hold no wildcard, climb nowhere and end nothing.
//! Of several claims in one text all but the last are one segment each, with a
//! `/` between them: so no two different identities ever fill a text alike.

use super::super::pattern::RefPattern;
use super::claims::Claims;
use crate::place::{GitRef, ProjectId};

/// The most bytes of a value that are shown.
const SHOWN: usize = 100;

/// Why a text can't be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The claim is not there, or empty.
    #[error("claim {0:?} is not in the token")]
    Absent(String),
    /// Its value is no name, or no name here.
    #[error("claim {claim:?} is {value:?}, which can't be used: {why}")]
    Value {
        /// The claim.
        claim: String,
        /// So much of its value as a message takes.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// All together it is no project, or no ref.
    #[error("{0:?} can't be used: {1}")]
    Whole(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Claim(String),
}

/// A text with claims in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            let inside = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
            match inside {
                Some((name, after)) if !name.is_empty() && !name.contains('{') => {
                    pieces.push(Piece::Claim(name.to_owned()));
                    rest = after;
                }
                _ => return Err("a claim stands in braces: {repository}".to_owned()),
            }
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        if pieces.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Self {
            text: text.to_owned(),
            pieces,
        })
    }

    /// Between two claims there has to be a `/`, which the first can't hold.
    fn apart(self) -> Result<Self, String> {
        let mut open = false;
        for piece in &self.pieces {
            match piece {
                Piece::Claim(name) if open => {
                    return Err(format!("a / has to stand before {{{name}}}"));
                }
                Piece::Claim(_) => open = true,
                Piece::Literal(text) => open &= !text.contains('/'),
            }
        }
        Ok(self)
    }

    /// What it looks like with a letter for each claim.
    fn sample(&self, first: &str) -> String {
        let pieces = self.pieces.iter().enumerate();
        pieces
            .map(|(at, piece)| match piece {
                Piece::Literal(text) => text.as_str(),
                Piece::Claim(_) if at == 0 => first,
                Piece::Claim(_) => "x",
            })
            .collect()
    }

    /// The claims in it.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Claim(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn fill(&self, claims: &Claims) -> Result<String, Unfit> {
        let last = self.claims().count();
        let mut seen = 0;
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => filled += text,
                Piece::Claim(name) => {
                    seen += 1;
                    filled += &name_of(claims, name, seen == last)?;
                }
            }
        }
        Ok(filled)
    }
}

/// The value of a claim, which is a name: of several segments if `free`.
fn name_of(claims: &Claims, claim: &str, free: bool) -> Result<String, Unfit> {
    let value = claims.text(claim).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| Unfit::Absent(claim.to_owned()))?;
    let unfit = |why: String| Unfit::Value {
        claim: claim.to_owned(),
        value: shortened(&value),
        why,
    };
    // What may stand in a ref is what may stand in a project.
    if let Err(error) = value.parse::<GitRef>() {
        return Err(unfit(error.to_string()));
    }
    if !free && value.contains('/') {
        return Err(unfit("a / would make it more than one segment".to_owned()));
    }
    Ok(value)
}

/// So much of a value as a message takes.
pub fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        None => value.to_owned(),
        Some((end, _)) => format!("{}…", &value[..end]),
    }
}

/// A project, with claims in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectTemplate(Template);

impl ProjectTemplate {
    /// Reads one; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Template::parse(text)?.apart()?;
        let sample = template.sample("x").parse::<ProjectId>();
        sample.map_err(|error| error.to_string())?;
        Ok(Self(template))
    }

    /// The text and its claims.
    pub fn template(&self) -> &Template {
        &self.0
    }

    /// The project that these claims make of it.
    pub fn fill(&self, claims: &Claims) -> Result<ProjectId, Unfit> {
        let filled = self.0.fill(claims)?;
        let parsed = filled.parse();
        parsed.map_err(|error: crate::place::InvalidName| Unfit::Whole(filled, error.to_string()))
    }
}

/// A ref, or a pattern of refs, with claims in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefTemplate(Template);

impl RefTemplate {
    /// Reads one; an error says what is wrong with it. As with a pattern, what
    /// does not start with `refs/` is about branches.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut template = Template::parse(text)?.apart()?;
        match template.pieces.first_mut() {
            Some(Piece::Literal(start)) if text != "**" && !start.starts_with("refs/") => {
                start.insert_str(0, "refs/heads/");
            }
            _ => {}
        }
        let sample = template.sample("refs/x").parse::<RefPattern>();
        sample.map_err(|error| error.to_string())?;
        Ok(Self(template))
    }

    /// The text and its claims.
    pub fn template(&self) -> &Template {
        &self.0
    }

    /// What all that it can become begins with: nothing where a claim comes
    /// first, and where every ref is meant.
    pub fn prefix(&self) -> &str {
        match self.0.pieces.first() {
            Some(Piece::Literal(text)) => text.split('*').next().unwrap_or_default(),
            Some(Piece::Claim(_)) | None => "",
        }
    }

    /// The text, beginning with `refs/` unless a claim does.
    pub fn whole(&self) -> String {
        let each = self.0.pieces.iter().map(|piece| match piece {
            Piece::Literal(text) if text == "**" => "refs/**".to_owned(),
            Piece::Literal(text) => text.clone(),
            Piece::Claim(name) => format!("{{{name}}}"),
        });
        each.collect()
    }

    /// What these claims make of it. Where a claim comes first, it has to be a
    /// whole ref: whether a branch or a ref is meant is for the rule to say.
    pub fn fill(&self, claims: &Claims) -> Result<RefPattern, Unfit> {
        let filled = self.0.fill(claims)?;
        if filled != "**" && !filled.starts_with("refs/") {
            let claim = self.0.claims().next().unwrap_or_default();
            return Err(Unfit::Value {
                claim: claim.to_owned(),
                value: shortened(&filled),
                why: format!("it is no whole ref; write refs/heads/{{{claim}}} for a branch"),
            });
        }
        let parsed = filled.parse();
        parsed.map_err(|error: super::super::pattern::InvalidPattern| {
            Unfit::Whole(shortened(&filled), error.to_string())
        })
    }
}

/// A text for people, with claims in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectTemplate(Template);

impl SubjectTemplate {
    /// Reads one; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        Template::parse(text).map(Self)
    }

    /// What these claims make of it: one line, of no more than `limit` bytes.
    pub fn fill(&self, claims: &Claims, limit: usize) -> String {
        let mut filled = String::new();
        for piece in &self.0.pieces {
            match piece {
                Piece::Literal(text) => filled += text,
                Piece::Claim(name) => filled += &claims.text(name).unwrap_or_default(),
            }
        }
        let shown = |letter: char| match letter.is_control() {
            true => '?',
            false => letter,
        };
        let mut line = String::new();
        for letter in filled.chars().map(shown) {
            if line.len() + letter.len_utf8() > limit {
                break;
            }
            line.push(letter);
        }
        line
    }
}
