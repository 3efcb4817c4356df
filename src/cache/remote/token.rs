//! Whose token goes with a call, and to whom: a build's own, or the sidecar's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use super::hub::Hub;
use super::identity::Identity;
use super::renewing::Renewing;
use crate::access::{Secret, SecretError};
use crate::watched::Watched;

/// Where the token of a call comes from. It belongs to one hub, and is sent to
/// no other; it is never shown.
#[derive(Clone, Default)]
pub struct TokenSource(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    Given(Secret),
    File(Arc<Watched<Secret>>),
    Exchanged(Arc<Renewing>),
}

impl TokenSource {
    /// Calls carry none.
    pub fn none() -> Self {
        Self::default()
    }

    /// This one, which a build brought.
    pub fn given(token: Secret) -> Self {
        Self(Source::Given(token))
    }

    /// The one in a file, read again when that changes.
    pub fn file(path: &Path) -> Result<Self, SecretError> {
        Ok(Self(Source::File(Arc::new(Secret::watch(path)?))))
    }

    /// The one that `hub` gives for an identity, renewed before it ends.
    pub fn exchanged(hub: Arc<Hub>, identity: Identity) -> Self {
        Self(Source::Exchanged(Arc::new(Renewing::new(hub, identity))))
    }

    /// What a call carries now.
    pub(super) async fn current(&self) -> Result<Option<Secret>, Failure> {
        Ok(match &self.0 {
            Source::None => None,
            Source::Given(token) => Some(token.clone()),
            Source::File(watched) => Some(Secret::clone(&watched.current())),
            Source::Exchanged(renewing) => Some(renewing.current().await?),
        })
    }
}

impl TokenSource {
    /// The hub says that this one does not count. Gives whether there may be
    /// another now.
    pub(super) fn refused(&self, token: &Secret) -> bool {
        match &self.0 {
            Source::Exchanged(renewing) => renewing.refused(token),
            Source::None | Source::Given(_) | Source::File(_) => false,
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::None => "no token",
            Source::Given(_) => "the build's token",
            Source::File(_) => "the token of a file",
            Source::Exchanged(_) => "a token for this host's identity",
        })
    }
}
