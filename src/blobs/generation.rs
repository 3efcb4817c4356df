//! What tells two moments of a store apart.

/// Which blobs there are, as far as a store can tell without counting them.
/// Two of one store are equal where no blob has come or gone in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    place: (u64, u64),
    change: (i64, i64),
}

impl Generation {
    /// Of the store at `place`, as `change` left it.
    pub(super) fn new(place: (u64, u64), change: (i64, i64)) -> Self {
        Self { place, change }
    }
}
