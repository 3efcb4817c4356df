//! The right to do what only one process at a time should.

use std::any::Any;
use std::fmt;

use tokio_util::sync::CancellationToken;

/// The right to do a background task, until this is dropped.
///
/// It may be lost before that, with the connection that it hangs on: another
/// process may then have it. Work that can't bear two owners asks before each
/// step that matters.
pub struct Ownership {
    lost: CancellationToken,
    _right: Box<dyn Any + Send + Sync>,
}

impl Ownership {
    /// Lasts as long as `right` lives, unless `lost` is cancelled before.
    pub(super) fn new(lost: CancellationToken, right: impl Any + Send + Sync) -> Self {
        Self {
            lost,
            _right: Box::new(right),
        }
    }

    /// Whether it still holds, as far as is known: a connection that has gone
    /// silent is noticed after some seconds.
    pub fn holds(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Returns when it is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ownership")
            .field("holds", &self.holds())
            .finish_non_exhaustive()
    }
}

/// Whether that can be the name of a task: part of a file's name.
pub(super) fn is_task(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}
