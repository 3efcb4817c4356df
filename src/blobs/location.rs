//! Where a blob can be read without us.

use std::fmt;

/// A URL that anybody who has it can read one blob from, until it expires: a
/// secret, so that [`Debug`](fmt::Debug) hides what makes it one.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(String);

impl Location {
    /// At that URL.
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL, with its secrets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.split('?').next().unwrap_or_default();
        write!(f, "Location({shown}?…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_signature() {
        let location = Location::new("https://bucket/blob?X-Amz-Signature=secret");
        assert_eq!(format!("{location:?}"), "Location(https://bucket/blob?…)");
        assert!(location.as_str().ends_with("secret"));
    }
}
