//! What both versions, and the addresses that they give, ask of the engine.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tracing::Instrument as _;

use super::Door;
use super::address::{Signer, Way};
use super::bodies::Coming;
use super::call::{Asking, about};
use super::failure::{Failure, Kind};
use super::messages::LookUp;
use super::metrics::Kept;
use super::range::Span;
use crate::access::{Client, RefPattern, Share};
use crate::blobs::{BlobStream, Location};
use crate::cache::entries::{Became, EntryError, EntryName, Found, Piece, Reader, UploadId, Which};
use crate::cache::{CacheError, MAX_DOCUMENTS, Want};
use crate::catalog::ExportId;
use crate::digest::Digest;
use crate::place::{GitRef, Place, ProjectId, Scope};

/// What clients look for in a refusal to write (`CACHE_WRITE_DENIED_PREFIX` in
/// `@actions/cache`), and to read.
pub const WRITE_DENIED: &str = "cache write denied: ";
const READ_DENIED: &str = "cache read denied: ";

/// How long an upload may wait for its turn, and the end of one.
const TURN: Duration = Duration::from_secs(60);
/// What the address of an index may say of refs, in bytes: BuildKit reads no
/// more than 32 KiB of an answer that has it.
const MAX_REFS: usize = 8 << 10;

/// A key that was reserved, as its address says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reserved {
    /// The upload.
    pub id: i64,
    project: ProjectId,
    #[serde(rename = "ref")]
    git_ref: GitRef,
    key: String,
}

/// Something that is there, as its address says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known {
    project: ProjectId,
    #[serde(rename = "ref")]
    git_ref: GitRef,
    key: String,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Entry {
        id: i64,
    },
    Blob {
        digest: Digest,
        size: u64,
    },
    /// Put together anew by whichever hub is asked.
    Index {
        scope: Scope,
        fallbacks: Vec<GitRef>,
        readable: Vec<RefPattern>,
    },
}

/// What a look-up has found.
pub struct Hit {
    /// The whole key.
    pub key: String,
    /// The ref that has it.
    pub scope: GitRef,
    /// When it was saved.
    pub created: Timestamp,
    /// Where it can be read.
    pub address: String,
}

/// Something that can be read.
pub struct Readable {
    /// Its bytes.
    pub size: u64,
    /// What it is called where it is compared.
    pub etag: String,
    project: ProjectId,
    git_ref: GitRef,
    bytes: Held,
    /// Of the memory for indexes, until the last byte is sent.
    room: Option<Share>,
}

impl Readable {
    /// What is to be kept as long as it is read.
    pub fn room(&mut self) -> Option<Share> {
        self.room.take()
    }
}

enum Held {
    Stored(Reader),
    Made(Bytes),
}

impl Door {
    async fn signer(&self) -> Result<&Signer, Failure> {
        let made = self.signer.get_or_try_init(async || {
            let secret = self.entries.secret().await?;
            Ok::<_, CacheError>(Signer::new(&secret))
        });
        Ok(made.await?)
    }

    /// Reserves a key for a runner.
    pub(super) async fn reserve(
        &self,
        asking: &Asking,
        name: EntryName,
    ) -> Result<Reserved, Failure> {
        about("key", name.key.as_str());
        let Some(git_ref) = asking.runner.written() else {
            let text = "the token has no ref that it may write";
            return Err(Failure::new(Kind::Denied, text));
        };
        about("ref", git_ref.as_str());
        let project = &asking.runner.project;
        let reserved = asking.guard.reserve(project, git_ref, &name).await?;
        match reserved {
            crate::cache::entries::Reserved::Upload(UploadId(id)) => Ok(Reserved {
                id,
                project: project.clone(),
                git_ref: git_ref.clone(),
                key: name.key.as_str().to_owned(),
            }),
            crate::cache::entries::Reserved::Exists => {
                let text = format!(
                    "there is an entry of key {} already, or one is being uploaded",
                    name.key
                );
                Err(Failure::new(Kind::Exists, text))
            }
        }
    }

    /// Where the bytes of what was reserved go.
    pub(super) async fn upload_address(
        &self,
        base: &str,
        reserved: &Reserved,
    ) -> Result<String, Failure> {
        let signer = self.signer().await?;
        Ok(signer.address(base, Way::Up, reserved, Timestamp::now()))
    }

    /// What was reserved, by its address.
    pub(super) async fn reserved(&self, what: &str, query: &str) -> Result<Reserved, Failure> {
        let signer = self.signer().await?;
        let reserved: Reserved = signer.read(Way::Up, what, query, Timestamp::now())?;
        about("project", reserved.project.as_str());
        about("ref", reserved.git_ref.as_str());
        about("key", &reserved.key);
        Ok(reserved)
    }

    /// Whose share it takes to send those bytes.
    pub(super) fn client_of(&self, reserved: &Reserved, parts: &Parts) -> Client {
        self.client(&reserved.project, &reserved.git_ref, parts)
    }

    /// Whose share it takes to read.
    pub(super) fn reader(&self, readable: &Readable, parts: &Parts) -> Client {
        self.client(&readable.project, &readable.git_ref, parts)
    }

    /// Whoever bears an address was given it for a ref. Where nobody is asked for
    /// a token, they may say any.
    fn client(&self, project: &ProjectId, git_ref: &GitRef, parts: &Parts) -> Client {
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

    async fn turn(&self, client: &Client) -> Result<Share, Failure> {
        Ok(self.uploads.take_within(TURN, client, 1, "uploads").await?)
    }

    /// Takes a piece of an upload in, by whoever has its address.
    pub(super) async fn put(
        &self,
        client: &Client,
        upload: UploadId,
        piece: Piece<'_>,
        length: Option<u64>,
        coming: &mut Coming,
    ) -> Result<(), Failure> {
        let _turn = self.turn(client).await?;
        Ok(self.entries.put(upload, piece, length, coming).await?)
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
        self.put(&asking.client, upload, piece, length, coming)
            .await
    }

    /// Has an upload be made of those blocks, in that order.
    pub(super) async fn arrange(
        &self,
        reserved: &Reserved,
        names: &[String],
    ) -> Result<(), Failure> {
        let upload = UploadId(reserved.id);
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
            Became::Entry(_) => Kept::Entry,
            Became::Cache(_) => Kept::Index,
            Became::Blob => Kept::Blob,
        };
        self.metrics.kept(kept);
        tracing::info!(upload = %finalized.upload, became = ?finalized.became, bytes = finalized.size, "an upload has ended");
        Ok(finalized.upload)
    }

    /// Looks keys up for a runner.
    pub(super) async fn find(
        &self,
        asking: &Asking,
        base: &str,
        look_up: &LookUp,
    ) -> Result<Option<Hit>, Failure> {
        if let Some(key) = look_up.keys.first() {
            about("key", key.as_str());
        }
        let runner = &asking.runner;
        let refs = runner.readable();
        let Some(first) = refs.first() else {
            let text = "the token has no ref that it may read";
            return Err(Failure::new(Kind::Denied, text).refusing(READ_DENIED));
        };
        about("ref", first.as_str());
        let (project, own) = (&runner.project, runner.written());
        let found = asking
            .guard
            .find(project, &refs, own, &look_up.keys, &look_up.version)
            .await
            .map_err(|error| Failure::from(error).refusing(READ_DENIED))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let key = found.key().as_str().to_owned();
        let (git_ref, created, what) = match found {
            Found::Entry(entry) => {
                let what = What::Entry { id: entry.id.0 };
                (entry.git_ref, entry.created, what)
            }
            Found::Blob(blob) => {
                let (digest, size) = (blob.digest, blob.size);
                let what = What::Blob { digest, size };
                (first.clone(), Timestamp::now(), what)
            }
            Found::Index(index) => {
                let (fallbacks, readable) = bounded(&refs, asking.guard.grant().read());
                let what = What::Index {
                    scope: index.import.place.scope.clone(),
                    fallbacks,
                    readable,
                };
                (first.clone(), index.import.exported_at, what)
            }
        };
        let known = Known {
            project: project.clone(),
            git_ref: git_ref.clone(),
            key: key.clone(),
            what,
        };
        let signer = self.signer().await?;
        let address = signer.address(base, Way::Down, &known, Timestamp::now());
        Ok(Some(Hit {
            key,
            scope: git_ref,
            created,
            address,
        }))
    }

    /// What can be read at an address.
    pub(super) async fn readable(
        &self,
        what: &str,
        query: &str,
        parts: &Parts,
    ) -> Result<Readable, Failure> {
        let signer = self.signer().await?;
        let known: Known = signer.read(Way::Down, what, query, Timestamp::now())?;
        about("project", known.project.as_str());
        about("ref", known.git_ref.as_str());
        about("key", &known.key);
        let Known {
            project, git_ref, ..
        } = known;
        let mut room = None;
        let stored = |etag, reader: Option<Reader>| match reader {
            Some(reader) => Ok((etag, reader.size(), Held::Stored(reader))),
            None => Err(Failure::new(Kind::Missing, "it is not there any more")),
        };
        let (etag, size, bytes) = match known.what {
            What::Entry { id } => {
                let reader = self.entries.open(ExportId(id)).await?;
                stored(format!("\"entry-{id}\""), reader)?
            }
            What::Blob { digest, size } => {
                let reader = self.entries.open_blob(digest, size).await?;
                stored(format!("\"{digest}\""), reader)?
            }
            What::Index {
                scope,
                fallbacks,
                readable,
            } => {
                let place = Place {
                    project: project.clone(),
                    git_ref: git_ref.clone(),
                    scope,
                };
                let want = Want {
                    fallbacks,
                    readable: Some(readable),
                    ..Want::all_of(place)
                };
                let client = self.client(&project, &git_ref, parts);
                let turn = self.unions.take_within(TURN, &client, 1, "indexes");
                room = Some(turn.await?);
                let index = self.entries.index(want).await?;
                let text = "there is nothing to be seen any more";
                let index = index.ok_or_else(|| Failure::new(Kind::Missing, text))?;
                let etag = format!("\"{}\"", Digest::of(&index));
                (etag, index.len() as u64, Held::Made(index))
            }
        };
        Ok(Readable {
            size,
            etag,
            project,
            git_ref,
            bytes,
            room,
        })
    }

    /// Those bytes of it.
    pub(super) async fn bytes(
        &self,
        readable: &Readable,
        Span { start, length }: Span,
    ) -> Result<BlobStream, Failure> {
        match &readable.bytes {
            Held::Stored(reader) => {
                let bytes = reader.read(start, length).await;
                Ok(bytes.map_err(CacheError::from)?)
            }
            Held::Made(bytes) => {
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let part = bytes.slice(within(start)..within(start.saturating_add(length)));
                Ok(stream::iter([Ok(part)]).boxed())
            }
        }
    }

    /// Where all of it can be read without this hub.
    pub(super) async fn locate(&self, readable: &Readable) -> Result<Option<Location>, Failure> {
        match &readable.bytes {
            Held::Stored(reader) => Ok(reader.locate().await.map_err(CacheError::from)?),
            Held::Made(_) => Ok(None),
        }
    }
}

/// The refs behind the first, and all that may be seen, as far as an address
/// can say them: what comes first counts more.
fn bounded(refs: &[GitRef], readable: &[RefPattern]) -> (Vec<GitRef>, Vec<RefPattern>) {
    let mut left = MAX_REFS;
    let mut fits = |length: usize| {
        left = left.saturating_sub(length + 3);
        left > 0
    };
    let seen = readable
        .iter()
        .take_while(|pattern| fits(pattern.as_str().len()));
    let seen: Vec<_> = seen.cloned().collect();
    let others = refs.iter().skip(1);
    let others = others.take_while(|git_ref| fits(git_ref.as_str().len()));
    (others.cloned().collect(), seen)
}

impl From<EntryError> for Failure {
    fn from(error: EntryError) -> Self {
        let kind = match error {
            EntryError::Cache(error) => return error.into(),
            EntryError::NoUpload => Kind::Missing,
            EntryError::Closed | EntryError::Exists => Kind::Exists,
            EntryError::TooLarge => Kind::TooLarge,
            EntryError::Body(_) => Kind::Slow,
            _ => Kind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_the_refs_that_fit_and_those_that_count_more_first() {
        let refs = |many: usize| -> Vec<GitRef> {
            let names = (0..many).map(|n| format!("{}{n}", "x".repeat(900)));
            names.map(|name| name.parse().unwrap()).collect()
        };
        let patterns = |refs: &[GitRef]| Vec::from_iter(refs.iter().cloned().map(RefPattern::from));
        let few = refs(3);
        let (others, seen) = bounded(&few, &patterns(&few));
        assert_eq!((others.as_slice(), seen.len()), (&few[1..], 3));
        let many = refs(100);
        let (others, seen) = bounded(&many, &patterns(&many));
        assert!(others.is_empty());
        assert!((1..100).contains(&seen.len()), "{}", seen.len());
        assert_eq!(seen[0], RefPattern::from(many[0].clone()));
    }
}
