//! Where both versions, and the addresses that they give, bring something:
//! names that are reserved, pieces, and their end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use super::Door;
use super::address::{Signer, Way};
use super::bodies::{Coming, lasting};
use super::call::{Asking, about};
use super::failure::{Failure, Kind};
use super::metrics::Kept;
use super::places::{TURN, placed};
use super::range::Span;
use crate::access::{Client, Pass};
use crate::cache::entries::{Became, EntryName, Piece, Reserved, UploadId, Which};
use crate::cache::{CacheError, MAX_DOCUMENTS};
use crate::place::{GitRef, ProjectId};

/// What clients look for in a refusal to write (`CACHE_WRITE_DENIED_PREFIX` in
/// `@actions/cache`).
pub const WRITE_DENIED: &str = "cache write denied: ";

/// A key that was reserved, as its address says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Slot {
    /// The upload.
    pub id: i64,
    project: ProjectId,
    #[serde(rename = "ref")]
    git_ref: GitRef,
    key: String,
    /// The id of the token that it was given to; empty where none is asked for.
    #[serde(default)]
    token: String,
}

impl Door {
    pub(super) async fn signer(&self) -> Result<&Signer, Failure> {
        let made = self.signer.get_or_try_init(async || {
            let secret = self.entries.secret().await?;
            Ok::<_, CacheError>(Signer::new(&secret))
        });
        Ok(made.await?)
    }

    /// Reserves a key for a runner.
    pub(super) async fn reserve(&self, asking: &Asking, name: EntryName) -> Result<Slot, Failure> {
        about("key", name.key.as_str());
        let Some(git_ref) = asking.runner.written() else {
            let text = "the token has no ref that it may write";
            return Err(Failure::new(Kind::Denied, text));
        };
        about("ref", git_ref.as_str());
        let project = &asking.runner.project;
        let reserved = asking.guard.reserve(project, git_ref, &name).await?;
        let id = match reserved {
            Reserved::Upload(UploadId(id)) => id,
            Reserved::Exists => {
                let text = format!(
                    "there is an entry of key {} already, or one is being uploaded",
                    name.key
                );
                return Err(Failure::new(Kind::Exists, text));
            }
            Reserved::TooMany => {
                let text = "too many uploads have begun and not ended: try again later";
                return Err(Failure::new(Kind::Full, text));
            }
        };
        Ok(Slot {
            id,
            project: project.clone(),
            git_ref: git_ref.clone(),
            key: name.key.as_str().to_owned(),
            token: asking.guard.grant().id().to_owned(),
        })
    }

    /// Where the bytes of what was reserved go.
    pub(super) async fn upload_address(&self, base: &str, slot: &Slot) -> Result<String, Failure> {
        let signer = self.signer().await?;
        Ok(signer.address(base, Way::Up, slot, Timestamp::now()))
    }

    /// What was reserved, by its address, and as long as whoever was given that
    /// may use it.
    pub(super) async fn slot(&self, what: &str, query: &str) -> Result<(Slot, Pass), Failure> {
        let signer = self.signer().await?;
        let (slot, _): (Slot, _) = signer.read(Way::Up, what, query, Timestamp::now())?;
        about("project", slot.project.as_str());
        about("ref", slot.git_ref.as_str());
        about("key", &slot.key);
        let pass = Pass::of_token(&self.access, slot.token.clone()).await?;
        Ok((slot, pass))
    }

    /// Whose share it takes to send those bytes.
    pub(super) fn client_of(&self, slot: &Slot, parts: &Parts) -> Client {
        self.client(&slot.project, &slot.git_ref, parts)
    }

    /// Whoever bears an address was given it for a ref. Where nobody is asked for
    /// a token, they may say any.
    pub(super) fn client(&self, project: &ProjectId, git_ref: &GitRef, parts: &Parts) -> Client {
        let peer: Option<&SocketAddr> = parts.extensions.get();
        match self.access.is_open() {
            true => Client::At(peer.map(SocketAddr::ip)),
            false => Client::Bearer(
                project.to_string(),
                String::new(),
                vec![git_ref.clone().into()],
            ),
        }
    }

    /// Takes a piece of an upload in, by whoever has its address.
    pub(super) async fn put(
        &self,
        (client, pass): (&Client, Pass),
        upload: UploadId,
        piece: Piece<'_>,
        length: Option<u64>,
        coming: &mut Coming,
    ) -> Result<(), Failure> {
        let bytes = pin!(lasting(coming, pass));
        let bytes = pin!(placed(bytes, &self.uploads, client));
        Ok(self.entries.put(upload, piece, length, bytes).await?)
    }

    /// The same by a runner that says its number.
    pub(super) async fn put_chunk(
        &self,
        asking: &Asking,
        upload: UploadId,
        span: Span,
        coming: &mut Coming,
    ) -> Result<(), Failure> {
        let (guard, project) = (&asking.guard, &asking.runner.project);
        let known = guard.upload(project, upload).await?;
        about("ref", known.git_ref.as_str());
        about("key", known.name.key.as_str());
        let piece = Piece::At(span.start);
        let length = Some(span.length);
        let by = (&asking.client, asking.runner.pass.clone());
        self.put(by, upload, piece, length, coming).await
    }

    /// Has an upload be made of those blocks, in that order.
    pub(super) async fn arrange(&self, slot: &Slot, names: &[String]) -> Result<(), Failure> {
        let upload = UploadId(slot.id);
        Ok(self.entries.put_list(upload, names).await?)
    }

    /// Ends an upload, whether or not its client waits for that; gives what it
    /// is called from now on.
    pub(super) async fn finalize(
        self: &Arc<Self>,
        asking: Asking,
        which: Which,
        size: u64,
    ) -> Result<UploadId, Failure> {
        if let Which::Named(name) = &which {
            about("key", name.key.as_str());
        }
        let memory = match size {
            ..=MAX_DOCUMENTS => size >> 10,
            _ => 1,
        };
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let room = self
            .indexes
            .take_within(TURN, &asking.client, memory, "uploads");
        let room = room.await?;
        let ending = async move {
            let project = asking.runner.project;
            let finalized = asking.guard.finalize(&project, &which, Some(size)).await;
            drop(room);
            finalized
        };
        let ended = self.tasks.spawn(ending.in_current_span()).await;
        let ended = ended.map_err(|_| Failure::new(Kind::Failed, "that failed"))?;
        let finalized = ended?;
        let kept = match finalized.became {
            Became::Entry(_) => Some(Kept::Entry),
            Became::Cache(_) => Some(Kept::Index),
            Became::Blob => Some(Kept::Blob),
            Became::Flushed => None,
        };
        if let Some(kept) = kept {
            self.metrics.kept(kept);
        }
        tracing::info!(upload = %finalized.upload, became = ?finalized.became, bytes = finalized.size, "an upload has ended");
        Ok(finalized.upload)
    }
}
