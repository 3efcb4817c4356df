//! What tells the bytes of a blob from those that were stored in their place.

/// Which of all the bytes that ever stood under a blob's name are there: equal as
/// long as nobody has stored it anew, also with the same bytes. What rots without
/// being written does not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// What a store says of them.
    pub(super) fn new(said: impl Into<String>) -> Self {
        Self(said.into())
    }
}
