//! What is looked for and read: keys, the addresses of what they have, and the
//! bytes that are there.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Door;
use super::address::Way;
use super::away::{Asked, Returns};
use super::call::{Asking, about};
use super::failure::{Failure, Kind};
use super::messages::LookUp;
use super::places::TURN;
use super::range::Span;
use crate::access::{Client, Pass, RefPattern, Share};
use crate::blobs::{BlobStream, Location};
use crate::cache::entries::{Found, Reader};
use crate::cache::{CacheError, Want};
use crate::catalog::ExportId;
use crate::digest::Digest;
use crate::place::{GitRef, Place, ProjectId, Scope};

/// What clients look for in a refusal to read.
const READ_DENIED: &str = "cache read denied: ";
/// What the address of an index may say of refs, in bytes: BuildKit reads no
/// more than 32 KiB of an answer that has it.
const MAX_REFS: usize = 8 << 10;

/// Something that is there, as its address says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known {
    project: ProjectId,
    #[serde(rename = "ref")]
    git_ref: GitRef,
    key: String,
    what: What,
    /// The id of the token that it was given to; empty where none is asked for.
    #[serde(default)]
    token: String,
    /// Which address it is, of all that are given for the same.
    #[serde(default)]
    number: u64,
    /// What its client does where it gets nothing from a bucket.
    #[serde(default)]
    returns: Returns,
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
    /// For as long as it may be read.
    pub pass: Pass,
    /// Its address.
    pub asked: Asked,
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
    /// Whose share it takes to read.
    pub(super) fn reader(&self, readable: &Readable, parts: &Parts) -> Client {
        self.client(&readable.project, &readable.git_ref, parts)
    }

    /// Looks keys up for a runner, whose layers are read by a client that
    /// returns so.
    pub(super) async fn find(
        &self,
        asking: &Asking,
        base: &str,
        look_up: &LookUp,
        layers: Returns,
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
        let (git_ref, created, what, returns) = match found {
            Found::Entry(entry) => {
                let what = What::Entry { id: entry.id.0 };
                (entry.git_ref, entry.created, what, Returns::Once)
            }
            Found::Blob(blob) => {
                let (digest, size) = (blob.digest, blob.size);
                let what = What::Blob { digest, size };
                (first.clone(), Timestamp::now(), what, layers)
            }
            Found::Index(index) => {
                let (fallbacks, readable) = bounded(&refs, asking.guard.grant().read());
                let what = What::Index {
                    scope: index.import.place.scope.clone(),
                    fallbacks,
                    readable,
                };
                let at = index.import.exported_at;
                (first.clone(), at, what, Returns::Never)
            }
        };
        let known = Known {
            project: project.clone(),
            git_ref: git_ref.clone(),
            key: key.clone(),
            what,
            token: asking.guard.grant().id().to_owned(),
            number: rand::random_range(0..1 << 53),
            returns,
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
        let signed = signer.read(Way::Down, what, query, Timestamp::now())?;
        let (known, age): (Known, Duration) = signed;
        about("project", known.project.as_str());
        about("ref", known.git_ref.as_str());
        about("key", &known.key);
        let asked = Asked {
            number: known.number,
            age,
            returns: known.returns,
        };
        let Known {
            project,
            git_ref,
            token,
            ..
        } = known;
        let pass = Pass::of_token(&self.access, token).await?;
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
            pass,
            asked,
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
