//! A text that nobody but its reader may see: a token.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

use super::token::MAX_TOKEN;
use crate::watched::Watched;

/// A token. It is not shown by `Debug`, and comparing two takes the same time
/// wherever they differ.
#[derive(Clone)]
pub struct Secret(String);

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It can't be read.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// It holds something else.
    #[error("{0}: a token is expected there, alone on one line, of at most {MAX_TOKEN} bytes")]
    Content(String),
}

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever has to send it or check it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a token from a file; what surrounds it may be white space.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let shown = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| SecretError::Io(shown(), error))?;
        let text = String::from_utf8(bytes).map_err(|_| SecretError::Content(shown()))?;
        let token = text.trim();
        let fits = !token.is_empty() && token.len() <= MAX_TOKEN;
        // It becomes part of a header.
        if fits && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self::new(token))
        } else {
            Err(SecretError::Content(shown()))
        }
    }

    /// The same, read again whenever the file changes.
    pub fn watch(path: &Path) -> Result<Watched<Self>, SecretError> {
        let file = path.to_owned();
        Watched::open([path.to_owned()], move || Self::read(&file))
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(secret, "hunter2".parse().unwrap());
        assert_ne!(secret, Secret::new("hunter3"));
        assert_ne!(secret, Secret::new("hunter"));
    }

    #[test]
    fn a_token_file_holds_one_token_and_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, " abc.def.ghi\n").unwrap();
        let watched = Secret::watch(&path).unwrap();
        assert_eq!(watched.current().expose(), "abc.def.ghi");
        std::fs::write(&path, "new").unwrap();
        watched.look();
        assert_eq!(watched.current().expose(), "new");

        for wrong in [
            "",
            " \n",
            "two\nlines",
            "a b",
            "\u{e9}",
            &"x".repeat(20_000),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let error = Secret::read(&path).unwrap_err().to_string();
            assert!(error.contains("token") && !error.contains("two"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Secret::read(&path), Err(SecretError::Io(..))));
    }
}
